"""Exported generators: the images of the sampler, and files that need no gan_jax."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from gan_jax import UserError
from gan_jax.importers import sources
from gan_jax.models.biggan import BigGAN
from gan_jax.sampling import export
from gan_jax.storage.weights import read_arrays

GOLDEN = Path(__file__).parents[1] / 'golden'
PROGRAM = Path(__file__).parent / 'programs' / 'run_exported.py'


def jitted_sampler(gan, g):
  """The sampler on one device."""

  def draw(g, z, classes, psi):
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    images = gan.generate(g, z, labels, psi)
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)

  return jax.jit(draw)


def inputs(gan, seed, n):
  rng = np.random.default_rng(seed)
  z = rng.standard_normal((n, gan.dim_z)).astype(np.float32)
  classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)
  rows = rng.integers(0, len(classes), n)
  return z, classes[rows] if gan.n_classes else np.zeros((n, 0), np.float32)


def assert_equal_but_for_rounding(got, want):
  """XLA may scale either side of a product: a value can round to the next level."""
  difference = np.abs(np.asarray(got, np.int32) - np.asarray(want, np.int32))
  assert difference.max() <= 1 and (difference > 0).mean() <= 0.01


def biggan():
  gan = BigGAN(
    res=16, n_classes=3, dim_z=6, shared_dim=4, g_ch=2, d_ch=1,
    g_widths=(8, 8, 8), d_widths=(1, 1, 1), g_attention=(8,),
  )  # fmt: skip
  return gan, jax.device_get(jax.jit(gan.init)(jax.random.key(3))[0])


def stylegan():
  source = sources.read_published(GOLDEN / 'progan_stylegan' / 'stylegan_tiny.pkl')
  return source.gan, source.ema


def biggan_with_statistics():
  source = sources.read_published(GOLDEN / 'biggan_metrics' / 'checkpoints' / 'hf_zip')
  return source.gan, source.ema


@pytest.mark.parametrize(
  'make',
  [pytest.param(biggan, marks=pytest.mark.slow), stylegan, biggan_with_statistics],
)
def test_an_exported_generator_draws_as_the_sampler(tmp_path, rng_seed, make):
  gan, g = make()
  program, weights = export.export_generator(gan, g, tmp_path / 'gen.stablehlo')
  sampler = jitted_sampler(gan, g)
  loaded = jax.export.deserialize(bytearray(program.read_bytes()))
  assert loaded.platforms == ('cpu', 'tpu', 'cuda')
  assert export.read_defaults(loaded) == gan.sampling_defaults
  call = jax.jit(loaded.call)
  for n, psi in ((3, 1.0), (3, 0.517), (1, 0.7)):
    z, classes = inputs(gan, rng_seed, n)
    want = sampler(g, z, classes, np.float32(psi))
    got = call(z, classes, np.float32(psi))
    assert got.shape == (n, gan.res, gan.res, gan.channels) and got.dtype == np.uint8
    assert_equal_but_for_rounding(got, want)
  assert np.std(np.asarray(want, np.float32)) > 1
  arrays = read_arrays(weights)
  flat = traverse_util.flatten_dict(g, sep='/')
  assert arrays.keys() == flat.keys()
  for name, value in flat.items():
    np.testing.assert_array_equal(arrays[name], value)
  header = weights.read_bytes()
  size = int.from_bytes(header[:8], 'little')
  section = json.loads(json.loads(header[8 : 8 + size])['__metadata__']['gan_jax'])
  assert section.pop('family') == type(gan).__name__.lower()
  rebuilt = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
  assert type(gan)(**rebuilt) == gan
  assert {p.name for p in tmp_path.iterdir()} == {'gen.stablehlo', 'gen.safetensors'}


def test_an_exported_generator_runs_without_gan_jax(tmp_path, rng_seed):
  gan, g = biggan()
  program, _ = export.export_generator(gan, g, tmp_path / 'gen.stablehlo')
  z, classes = inputs(gan, rng_seed, 2)
  psi = np.float32(0.8)
  np.savez(tmp_path / 'inputs.npz', z=z, classes=classes, psi=psi)
  paths = [str(tmp_path / name) for name in ('inputs.npz', 'images.npy')]
  done = subprocess.run(
    [sys.executable, str(PROGRAM), str(program), *paths],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  want = jitted_sampler(gan, g)(g, z, classes, psi)
  assert_equal_but_for_rounding(np.load(tmp_path / 'images.npy'), want)


def test_mistakes(tmp_path):
  gan, g = biggan()
  with pytest.raises(UserError, match='ends in .stablehlo'):
    export.export_generator(gan, g, tmp_path / 'gen.bin')
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot be written'):
    export.export_generator(
      gan, g, tmp_path / 'file' / 'gen.stablehlo', platforms=('cpu',)
    )


def test_bfloat16_weights_are_written_as_bfloat16(tmp_path):
  path = tmp_path / 'gen.safetensors'
  kernel = jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)
  g = {'params': {'a': {'kernel': kernel.T, 'scale': jnp.float32(2)}}}
  export.write_safetensors(path, g, {'gan_jax': '{}'})
  assert b'"BF16"' in path.read_bytes()
  arrays = read_arrays(path)
  np.testing.assert_array_equal(arrays['params/a/kernel'], np.arange(6).reshape(2, 3).T)
  assert arrays['params/a/scale'].shape == ()
