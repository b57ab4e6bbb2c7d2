"""The evaluator: scores with protocols, on any devices, from cached statistics."""

import json
import math

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.metrics import small_network
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.runtime.mesh import make_mesh

PROTOCOL = EvaluationProtocol(num=128, reals=256, standing=0)


@pytest.fixture(scope='module')
def make_evaluator(gan, digits, tmp_path_factory):
  """A function: metrics -> an evaluator; all of them share a cache."""
  cache = tmp_path_factory.mktemp('cache')

  def make(metrics, **options):
    return Evaluator(
      gan, digits, metrics, PROTOCOL, cache=cache, progress=False, **options
    )

  make.cache = cache
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(small_network, 'TRAINING_STEPS', 5)
    yield make


@pytest.fixture(scope='module')
def evaluator(make_evaluator):
  metrics = ['fd_small', 'kid_small', 'prdc_small', 'accuracy_small', 'swd']
  return make_evaluator(metrics)


@pytest.fixture(scope='module')
def records(evaluator, generator):
  return evaluator.evaluate(generator, standing=2)


def test_a_score_carries_its_protocol(records):
  by_name = {record['metric']: record for record in records}
  assert set(by_name) == {
    'fd_small', 'kid_small', 'kid_small_std', 'precision_small', 'recall_small',
    'density_small', 'coverage_small', 'accuracy_small', 'accuracy_small_real', 'swd',
    'swd_16',
  }  # fmt: skip
  assert all(math.isfinite(record['value']) for record in records)
  assert by_name['fd_small']['best'] == 'min'
  assert by_name['recall_small']['best'] == 'max'
  stamp = by_name['fd_small']['stamp']
  assert stamp['n'] == 128 and stamp['reals'] == 256 and stamp['seeds'] == '0-127'
  assert stamp['truncation'] is None and stamp['psi'] == 1 and stamp['ema'] is True
  assert stamp['data'] == 'digits' and stamp['split'] == 'train'
  assert stamp['preprocessing'] == 'friendly 32' and stamp['dtype'] == 'float32'
  assert len(stamp['weights']) == 64 and stamp['standing'] == '2 x 64'
  assert 'weights' not in by_name['swd']['stamp']
  assert json.loads(json.dumps(records)) == records


def test_keys_of_a_stamp_stay_as_published(records):
  """Scores of older runs compare only while these keys and settings stay the same."""
  stamps = {record['metric']: record['stamp'] for record in records}
  assert list(stamps['fd_small']) == [
    'data', 'split', 'res', 'channels', 'content', 'files', 'n', 'seeds', 'ema',
    'standing', 'reals', 'truncation', 'psi', 'alpha', 'mirror', 'settings', 'network',
    'weights', 'preprocessing', 'dtype',
  ]  # fmt: skip
  assert {name: stamp['settings'] for name, stamp in stamps.items()} == {
    'fd_small': 'n - 1, float64',
    **dict.fromkeys(('kid_small', 'kid_small_std'), 'cubic kernel, unbiased'),
    **dict.fromkeys(
      ('precision_small', 'recall_small', 'density_small', 'coverage_small'),
      'k = 3, closed balls',
    ),
    **dict.fromkeys(
      ('accuracy_small', 'accuracy_small_real'),
      'linear discriminant of real features',
    ),
    **dict.fromkeys(('swd', 'swd_16'), '128 patches of each image, 512 directions'),
  }


@pytest.mark.slow  # compiles everything again, for one device
def test_scores_do_not_depend_on_devices(make_evaluator, evaluator, records, generator):
  single = make_evaluator(['fd_small', 'swd'], mesh=make_mesh(jax.devices()[:1]))
  expected = {record['metric']: record['value'] for record in records}
  for name, value in single.scores(generator, standing=2).items():
    assert value == pytest.approx(expected[name], rel=2e-3), name
  a, b = (
    np.concatenate(
      [x for x, _ in e.generate(generator, PROTOCOL, np.arange(70, dtype='u4'))]
    )
    for e in (single, evaluator)
  )
  assert a.shape == (70, 16, 16, 1) and np.abs(a.astype(int) - b).max() <= 1


def test_evaluators_share_the_cache(make_evaluator, records, generator, evaluator):
  files = sorted(path.name for path in make_evaluator.cache.iterdir())
  assert [name.rsplit('-', 1)[0] for name in files] == [
    'real-patches', 'real-small', 'small',
  ]  # fmt: skip
  again = make_evaluator(['fd_small'])
  assert again.scores(generator, standing=2)['fd_small'] == pytest.approx(
    records[0]['value'], rel=1e-9
  )
  assert sorted(path.name for path in make_evaluator.cache.iterdir()) == files


def test_non_finite_weights_are_an_error(evaluator, generator):
  broken = jax.tree.map(np.array, generator)
  broken['params']['linear']['kernel'][0, 0] = np.nan
  with pytest.raises(UserError, match='params/linear/kernel holds NaN'):
    evaluator.scores(broken)
