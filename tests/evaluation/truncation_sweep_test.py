"""Truncation sweeps: one compiled sampler, tables, plots, and amenability."""

import csv
import json

import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.evaluation import truncation_sweep
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.protocol import EvaluationProtocol
from tests.evaluation.conftest import scaled


@pytest.fixture(scope='module')
def records(gan, generator, digits, cache):
  """A sweep of two generators over two thresholds, with one compiled sampler."""
  protocol = EvaluationProtocol(num=64, reals=256, standing=0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('gan_jax.evaluation.metrics.small_network.TRAINING_STEPS', 5)
    evaluator = Evaluator(
      gan, digits, ['prdc_small'], protocol, cache=cache, progress=False
    )
  generators = {True: generator, False: scaled(generator, 1.1)}
  records = truncation_sweep.sweep_truncation(evaluator, generators, [0.5, 2.0])
  assert evaluator.sampler._cache_size() == 1
  return records


def test_table_has_a_row_per_generator_and_threshold(records):
  thresholds = [record['stamp']['truncation'] for record in records[::4]]
  assert thresholds == [2.0, 0.5, 2.0, 0.5]
  rows = truncation_sweep.sweep_table(records)
  assert [(row['ema'], row['truncation']) for row in rows] == [
    (True, 2.0), (True, 0.5), (False, 2.0), (False, 0.5),
  ]  # fmt: skip


def test_files_of_a_sweep(records, tmp_path):
  pytest.importorskip('matplotlib')
  truncation_sweep.write_sweep(records, tmp_path / 'frontier')
  lines = (tmp_path / 'frontier.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == records
  with (tmp_path / 'frontier.csv').open() as f:
    written = list(csv.DictReader(f))
  rows = truncation_sweep.sweep_table(records)
  assert float(written[3]['recall_small']) == rows[3]['recall_small']
  with Image.open(tmp_path / 'frontier.png') as image:
    assert image.size == (600, 480)


def test_scores_that_cannot_be_plotted_are_an_error(tmp_path):
  pytest.importorskip('matplotlib')
  rows = [{'truncation': 1.0, 'ema': True, 'swd': 1.0}]
  with pytest.raises(UserError, match='prdc_small'):
    truncation_sweep.plot_frontier(rows, tmp_path / 'x.png')


def test_amenability_to_truncation():
  rows = lambda *values: [{'truncation': 1.0, 'is': v} for v in values]
  assert truncation_sweep.amenability(rows(5, 6, 7.5)) == 1
  assert truncation_sweep.amenability(rows(5, 6, 4, 2)) == pytest.approx(1 / 3)
  assert truncation_sweep.amenability(rows(5, 4.99)) == 1  # within the tolerance
  with pytest.raises(UserError, match='two thresholds'):
    truncation_sweep.amenability(rows(5))
