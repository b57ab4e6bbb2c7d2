"""Networks from files that the user names."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from gan_jax import UserError
from gan_jax.evaluation.metrics.named_network import read_network, read_networks
from gan_jax.runtime.mesh import make_mesh


def write(path, function, *shapes, dtype=jnp.uint8, platforms=('cpu', 'cuda', 'tpu')):
  """Exports a function of arrays of these shapes, 'b, 8, 8, 3'; letters are symbols."""
  scope = export.SymbolicScope()
  inputs = [
    jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
    for shape in shapes
  ]
  exported = export.export(jax.jit(function), platforms=list(platforms))(*inputs)
  path.write_bytes(exported.serialize())
  return path


def means(x):
  """The mean of each channel."""
  return x.astype(jnp.float32).mean((1, 2))


@pytest.fixture
def images(rng_seed):
  return np.random.default_rng(rng_seed).integers(0, 256, (13, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
  'shape, dtype',
  [
    ('b, h, h, 3', jnp.uint8),
    ('2, 16, 16, 3', jnp.float32),
    ('b, 8, 8, 3', jnp.float32),
  ],
)
def test_features_are_those_of_the_function(tmp_path, images, shape, dtype):
  network = read_network(write(tmp_path / 'n', means, shape, dtype=dtype), 'features')
  assert network.dim == 3 and network.name == 'n'
  assert network.digest == hashlib.sha256((tmp_path / 'n').read_bytes()).hexdigest()
  network.check_images((16, 16), 3)
  mesh = make_mesh(jax.devices()[:4])
  features, logits = network.extractor(mesh, 8)(images)
  np.testing.assert_allclose(features, means(images), rtol=1e-5)
  assert logits.shape == (13, 0)


def test_grey_images_are_repeated_and_others_checked(tmp_path, images):
  network = read_network(write(tmp_path / 'n', means, 'b, 8, 8, 3'), 'features')
  network.check_images((8, 8), 1)
  grey = images[:, :8, :8, :1]
  features, _ = network.extractor(make_mesh(jax.devices()[:1]), 13)(grey)
  np.testing.assert_allclose(features, means(np.repeat(grey, 3, -1)), rtol=1e-5)
  with pytest.raises(UserError, match='takes images of 8 pixels, .* this model have 4'):
    network.check_images((4, 4), 3)
  path = write(tmp_path / 'one', lambda x: 1.0 * x.mean((1, 2)), 'b, 8, 8, 1')
  one = read_network(path, 'features')
  with pytest.raises(UserError, match='takes images of 1 channels, .* have 3'):
    one.check_images((8, 8), 3)


@pytest.mark.parametrize(
  'function, shapes, words',
  [
    (lambda x, y: 1.0 * x[:, 0, 0] + y[:, 0, 0], ['2, 4, 4, 3', '2, 4, 4, 3'],
     r'takes uint8 \[2, 4, 4, 3\], uint8 \[2, 4, 4, 3\], and it must take one array'),
    (lambda x: 1.0 * x, ['2, 48'], r'takes uint8 \[2, 48\], and it must take'),
    (lambda x: 1.0 * x[:, 0, 0], ['2, 3, 4, 5'], r'takes uint8 \[2, 3, 4, 5\], and'),
    (lambda x: 1.0 * x, ['b, 4, 4, 3'],
     r'returns float32 \[b, 4, 4, 3\], and it must return features, one row of floats'),
    (lambda x: 1.0 * x[:1, 0, 0], ['b, 4, 4, 3'], r'returns float32 \[1, 3\], and'),
    (lambda x: x[:, 0, 0], ['b, 4, 4, 3'], r'returns uint8 \[b, 3\], and'),
    (lambda x: (1.0 * x[:, 0, 0],) * 2, ['b, 4, 4, 3'],
     r'returns float32 \[b, 3\], float32 \[b, 3\], and'),
    (lambda x: 1.0 * x[:, 0, :, 0], ['b, h, h, 3'], r'returns float32 \[b, h\], and'),
  ],
)  # fmt: skip
def test_functions_of_another_shape_are_one_sentence(tmp_path, function, shapes, words):
  path = write(tmp_path / 'net.stablehlo', function, *shapes)
  with pytest.raises(UserError, match=words):
    read_network(path, 'features')


def test_files_that_are_none_are_one_sentence(tmp_path):
  with pytest.raises(UserError, match='gone cannot be read: No such file'):
    read_networks(tmp_path / 'gone', [])
  for name, content in (('empty', b''), ('text', b'weights'), ('zip', b'PK\3\4' * 99)):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name} is no exported JAX function: write'):
      read_networks(None, [tmp_path / name])
  other = write(tmp_path / 'tpu', means, 'b, 4, 4, 3', platforms=['tpu'])
  with pytest.raises(UserError, match='exported for tpu, and this is cpu'):
    read_network(other, 'features')
