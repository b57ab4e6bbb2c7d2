"""The probability of ADA in the train state: kept by a resumed run, or begun anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.report.charts import make_charts
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training.session import restore_or_init
from tests.runs import tiny_config, train

ADA = dict(augment__pipe='blit', augment__interval=2, augment__ramp=50)
SAVED = {'p': np.float32(0.1) * 3, 'signs': np.int32(-5), 'scores': np.int32(16)}


@pytest.mark.slow
def test_a_resumed_run_keeps_p_bit_for_bit(tmp_path):
  whole = train(tiny_config(train__images=32, **ADA), tmp_path / 'whole')
  half = train(tiny_config(train__images=8, **ADA), tmp_path / 'parts')
  assert int(half.augment['scores']) == 8  # between two adjustments
  resumed = train(tiny_config(train__images=32, **ADA), tmp_path / 'parts')
  for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  lines = read_json_lines(tmp_path / 'parts' / 'metrics.jsonl')
  lines = [line for line in lines if 'd_real' in line]
  assert all(-1 <= line['d_sign'] <= 1 for line in lines)
  # p is logged as it was used: two iterations move it by 16 of 50 images, or not at 0.
  p = [line['augment_p'] for line in lines]
  assert p[:2] == [0, 0]
  assert p[2] == p[3]
  mean = np.float32(lines[0]['d_sign'] + lines[1]['d_sign']) / 2
  assert p[2] == pytest.approx(0.32 if mean > 0.6 else 0)
  (chart,) = (c for c in make_charts(lines) if 'augment_p' in c['names'])
  assert sorted(chart['names']) == ['augment_p', 'd_sign']


@pytest.fixture(scope='module')
def configs():
  plain = tiny_config(model__g_ch=1, model__d_ch=1)
  return {
    'without': parse_config(plain),
    'with': parse_config(plain | {'augment': dict(pipe='blit')}),
  }


def restored(config, folder):
  checkpointer = Checkpointer(folder)
  try:
    key = jax.random.key(0)
    return restore_or_init(config, key, make_mesh(jax.devices()[:1]), checkpointer)
  finally:
    checkpointer.close()


@pytest.mark.parametrize('kind', ['with', 'without', 'of an earlier version'])
def test_checkpoints_with_and_without_p(kind, configs, tmp_path):
  config = configs['with' if kind == 'with' else 'without']
  state = restored(config, tmp_path)
  if kind == 'with':
    state = dataclasses.replace(state, augment=jax.tree.map(jnp.asarray, SAVED))
  tree = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  if kind == 'of an earlier version':
    del tree['augment']
  checkpointer = Checkpointer(tmp_path)
  checkpointer.save(1, tree if kind == 'of an earlier version' else state)
  checkpointer.close()
  for name in configs:
    again = restored(configs[name], tmp_path)
    for a, b in zip(jax.tree.leaves(again.d), jax.tree.leaves(state.d), strict=True):
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    expected = {} if name == 'without' else configs['with'].augment.init_state()
    if name == kind == 'with':
      expected = SAVED
    assert again.augment.keys() == expected.keys()
    for k, value in expected.items():
      assert again.augment[k].dtype == value.dtype
      np.testing.assert_array_equal(np.asarray(again.augment[k]), value)


@pytest.mark.parametrize(
  ('settings', 'words'),
  [
    (dict(pipe='bgcf'), "augment.pipe is 'bgcf', whose image filter needs 22 pixels"),
    (dict(pipe='bg', interval=1), 'augment.interval=1 iterations of 8 real images'),
    (dict(pipes='bg'), "augment has no key 'pipes'"),
  ],
)
def test_mistakes_end_before_training(settings, words):
  with pytest.raises(UserError) as error:
    parse_config(tiny_config() | {'augment': settings})
  assert words in str(error.value)
