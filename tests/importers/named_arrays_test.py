"""Official names in .npz and .safetensors files."""

import json

import numpy as np
import safetensors.numpy

from gan_jax.importers.sources import read_published
from gan_jax.storage import weights


def test_named_arrays_give_the_model_of_the_pickle(
  tmp_path, stylegan, assert_equal_trees
):
  networks = weights.read_network_pickle(stylegan.path)
  arrays = {
    f'{role}/{name}': np.ascontiguousarray(value)
    for role, network in zip(('G', 'D', 'Gs'), networks, strict=True)
    for name, value in network.variables.items()
  }
  np.savez(tmp_path / 'a.npz', **arrays)
  safetensors.numpy.save_file(arrays, tmp_path / 'a.safetensors')
  kwargs = {f'{side}_kwargs': n.kwargs for side, n in zip('GD', networks, strict=False)}
  (tmp_path / 'a.json').write_text(json.dumps(kwargs))
  for name in ('a.npz', 'a.safetensors'):
    got = read_published(tmp_path / name)
    assert got.gan == stylegan.gan
    for side in ('g', 'd', 'ema'):
      assert_equal_trees(getattr(got, side), getattr(stylegan, side))
