"""Layers with a spectral scale, embeddings and attention against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.initializers import orthogonal

from gan_jax.nn import layers
from tests.gradients import assert_equal_gradients, assert_equal_values, scalar


@pytest.mark.parametrize('pixels', [1, 64])
def test_a_spectral_scale_multiplies_the_weight_or_its_input(pixels, rng_seed):
  # The weight is larger than an input of one pixel and smaller than one of 64.
  rng = np.random.default_rng(rng_seed)
  x = jnp.asarray(rng.normal(size=(1, pixels, 1, 4)), jnp.float32)
  module = layers.Conv(3, size=3)
  variables = module.init(jax.random.key(0), x)
  scales = {'scales': {'kernel': jnp.float32(0.25)}}
  kernel = variables['params']['kernel'] / 4
  plain = {'params': {**variables['params'], 'kernel': kernel}}
  ours, theirs = module.apply({**variables, **scales}, x), module.apply(plain, x)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
  assert np.abs(ours - module.apply(variables, x)).max() > 0.01


@pytest.mark.parametrize('shape', [(3, 3, 5, 7), (1, 1, 3, 8)])  # tall, wide
def test_orthogonal_kernels_are_the_bits_of_flax(shape, rng_seed):
  key = jax.random.key(rng_seed)
  ours, theirs = layers.orthogonal_rows(key, shape), orthogonal()(key, shape)
  assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_weights_over_classes_mix_embeddings():
  embed = layers.Embed(4, 3)
  variables = embed.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
  rows = embed.apply(variables, jnp.arange(3))
  mixed = embed.apply(variables, jnp.array([[0.25, 0.0, 0.75]]))
  np.testing.assert_allclose(mixed[0], 0.25 * rows[0] + 0.75 * rows[2], rtol=1e-6)


def test_attention_is_softmax_over_pooled_keys(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = jnp.asarray(rng.normal(size=(2, 4, 4, 16)), jnp.float32)
  module = layers.Attention(layers.Conv)
  params = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype),
    module.init(jax.random.key(0), x),
  )['params']

  def plain(x, params):
    flat = x.reshape(2, 16, 16)
    q, k, v = (flat @ params[name]['kernel'][0, 0] for name in ('theta', 'phi', 'g'))
    pool = lambda y: y.reshape(2, 2, 2, 2, 2, -1).max((2, 4)).reshape(2, 4, -1)
    weights = jax.nn.softmax(q @ pool(k).swapaxes(1, 2))
    out = weights @ pool(v) @ params['o']['kernel'][0, 0]
    return x + params['gamma'] * out.reshape(x.shape)

  ours = lambda x, p: module.apply({'params': p}, x)
  assert_equal_values(ours, plain, (x, params), rtol=1e-4, atol=1e-4)
  assert_equal_gradients(scalar(ours), scalar(plain), (x, params), rtol=2e-3, atol=2e-3)
