"""experiments/fashion: the runs on few images, and their table; nothing is trained."""

import sys
from pathlib import Path

import pytest

from gan_jax.config import load_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def modules():
  """The experiment's series.py and tables.py, which imports classifier.py by name."""
  before = list(sys.path)
  sys.path.insert(0, str(ROOT / 'experiments' / 'fashion'))
  try:
    import series
    import tables
  finally:
    sys.path[:] = before
  yield series, tables
  for name in ('series', 'tables', 'classifier'):
    sys.modules.pop(name, None)


def test_the_runs_differ_in_images_augmentation_and_seed(modules):
  cells = modules[0].cells()
  assert len({cell.run for cell in cells}) == len(cells) == 24
  assert [cell.seed for cell in cells] == [0] * 12 + [1] * 12
  configs = {
    cell.run: load_config(
      str(ROOT / 'configs' / f'{cell.series}_fashion.py'), list(cell.settings.items())
    )
    for cell in cells
  }
  assert len({repr(config) for config in configs.values()}) == 24
  run = configs['progan-10-ada-1']
  assert (run.data.split, run.train.seed) == ('train[:10%]', 1)
  assert (run.augment.pipe, run.augment.fixed_p) == ('bgc', 0.3)
  run = configs['biggan-1-none-0']
  assert (run.data.split, run.train.images) == ('train[:1%]', 800_000)


def test_table_has_the_last_and_the_lowest_score_of_each_run(modules):
  _, tables = modules
  rest = {'accuracy': 0.5, 'diversity': 0.25, 'recall': 0, 'memorized': 1}
  scores = [('a-0', 100_000, 2.5), ('a-0', 200_000, 4.0), ('a-1', 200_000, 3.0)]
  records = [
    {'run': run, 'images': images, 'excess': excess, 'memorized_real': 0.3, **rest}
    for run, images, excess in scores
  ]
  rows = {'1%': {'none': ['a-0', 'a-1'], 'ada': ['b-0']}}
  lines = tables.table(records, rows).splitlines()
  assert lines[2].startswith(
    '| 1% | none | 4.00, 3.00 | 2.50 at 100, 3.00 at 200 | 50.0%'
  )
  assert lines[3].startswith('| 1% | ada | not yet measured | not yet measured |')
