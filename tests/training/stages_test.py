"""Growing in the loop: one compile a resolution, opened ahead, resumed mid-fade."""

import importlib
import json

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.training import trainer


def growing(images, **changes):
  """4 pixels for 8 images, a fade over 24, then 8 pixels; steps of 8 images."""
  config = importlib.import_module('configs.stylegan_lsun').get_config('tiny').to_dict()
  config['schedule'] |= dict(stabilise=8, fade=24)
  config['train']['images'] = images
  config['log'] |= dict(grid_rows=2, grid_columns=2)
  for name, value in changes.items():
    section, key = name.split('__')
    config[section][key] = value
  return config


def run(config, workdir):
  return trainer.Trainer(parse_config(config), workdir).run()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of six steps: its folder, its last state, and what was compiled."""
  compiled = []

  def note(event, _, **kw):
    if event.endswith('backend_compile_duration'):
      compiled.append(kw['fun_name'])

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    folder = tmp_path_factory.mktemp('whole')
    state = run(growing(6 * 8), folder)
  finally:
    jax.monitoring.unregister_event_duration_listener(note)
  return folder, state, compiled


def lines(folder):
  return [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_compiles_are_as_many_as_resolutions(whole):
  _, state, compiled = whole
  assert int(state.step) == 6
  assert compiled.count('jit(step)') == 2
  assert compiled.count('jit(sample)') == 2


def test_the_journal_tells_of_stages_and_alpha(whole):
  steps = [line for line in lines(whole[0]) if 'd_real' in line]
  assert [line['images'] for line in steps] == [8, 16, 24, 32, 40, 48]
  assert [line['res'] for line in steps] == [4, 4, 8, 8, 8, 8]
  np.testing.assert_allclose(
    [line['alpha'] for line in steps], [1, 1, 1 / 3, 2 / 3, 1, 1], rtol=1e-6
  )
  (change,) = [line for line in lines(whole[0]) if 'change_s' in line]
  assert (change['images'], change['res']) == (16, 8)
  assert {p.stem for p in (whole[0] / 'samples').iterdir()} >= {'0000000016'}


@pytest.mark.parametrize('stop', [2, 3, 4])  # as a fade begins, within, as it ends
def test_resuming_in_a_fade_is_the_same_run(whole, tmp_path, stop):
  run(growing(stop * 8), tmp_path)
  resumed = run(growing(6 * 8), tmp_path)
  for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[1]), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(model__res=24), 'model.res is 24: growing takes powers of two'),
    (dict(model__res=16, model__g_widths=(), model__d_widths=()), 'ends in 8, but'),
    (dict(schedule__resolutions=(4, 16)), 'from 4 to 16: 8 has to come next'),
    (dict(schedule__batch=(8, 6)), 'batch=6 .*model.mbstd_group=4: take a multiple'),
    (dict(model__mbstd_group=3), 'batch=8 .*model.mbstd_group=3'),
    (dict(model__n_classes=5), 'n_classes=5.*10 classes'),
    (dict(data__name='digits', data__flip=False), "'digits' has 1: set model.chann"),
  ],
)
def test_mistakes_end_before_anything_is_written(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    run(growing(16, **changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
