"""LPIPS: its weights, symmetry, and the role of the stage weights."""

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import lpips


def random_weights(rng):
  """LPIPS with two channels per layer, under LPIPS's own names."""
  arrays, channels = {}, 3
  for stage, layers in enumerate(lpips.STAGES):
    for i in layers:
      kernel = rng.normal(size=(2, channels, 3, 3)).astype(np.float32)
      arrays[f'net.slice{stage + 1}.{i}.weight'] = kernel
      arrays[f'net.slice{stage + 1}.{i}.bias'] = np.ones(2, np.float32)
      channels = 2
    arrays[f'lin{stage}.model.1.weight'] = np.full((1, 2, 1, 1), 0.5, np.float32)
  return arrays


def test_distance_is_symmetric_and_linear_in_the_stage_weights(
  rng_seed, tmp_path, monkeypatch
):
  rng = np.random.default_rng(rng_seed)
  arrays = random_weights(rng)
  np.savez(tmp_path / 'a.npz', **{k: v for k, v in arrays.items() if k[:3] != 'lin'})
  np.savez(tmp_path / 'b.npz', **{k: v for k, v in arrays.items() if k[:3] == 'lin'})
  weights, stamp = lpips.load(f'{tmp_path}/a.npz,{tmp_path}/b.npz')
  assert stamp['network'] == 'lpips-vgg16'
  a, b = rng.uniform(-1, 1, (2, 3, 32, 32, 3)).astype(np.float32)
  compiled = jax.jit(lpips.distance)
  d = np.asarray(compiled(weights, a, b))
  assert d.shape == (3,) and (d > 0).all()
  np.testing.assert_allclose(compiled(weights, b, a), d, rtol=1e-5)
  np.testing.assert_array_equal(compiled(weights, a, a), 0)
  doubled = weights._replace(weights=tuple(2 * w for w in weights.weights))
  np.testing.assert_allclose(compiled(doubled, a, b), 2 * d, rtol=1e-5)
  with pytest.raises(UserError, match='lin0.model.1.weight is missing'):
    lpips.load(f'{tmp_path}/a.npz')
  monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
  with pytest.raises(UserError, match='--lpips=FILES'):
    lpips.load(None)
