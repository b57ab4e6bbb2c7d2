"""Layers with a spectral scale, embeddings and attention against their formulas."""

import itertools
import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.initializers import orthogonal

from gan_jax.nn import layers
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import lowered_for_cuda, traced_for


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


def random_variables(module, rng, *args):
  """Variables drawn from N(0, 1) in float64."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
  return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), shapes)


def assert_equal_on_a_gpu(module, variables, x, orders=2):
  """A module for a GPU against itself for a CPU, with derivatives, in float64."""

  def derivatives(x, params):
    f = lambda x, params: module.apply({**variables, 'params': params}, x)
    gradients = (jax.grad(of(f), (0, 1))(x, params) for of in (scalar, penalty))
    return f(x, params), *itertools.islice(gradients, orders)

  args = x, variables['params']
  with traced_for('gpu'):
    gpu = jax.jit(derivatives)(*args)
  cpu = jax.jit(derivatives)(*args)
  for ours, plain in zip(*map(jax.tree.leaves, (gpu, cpu)), strict=True):
    scale = max(np.abs(plain).max(), 1)
    np.testing.assert_allclose(ours / scale, plain / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize('size', [8, 2])  # the kernels are smaller than x; larger
def test_attention_of_a_gpu_is_the_same(size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, size, size, 16)))
    module = layers.Attention(partial(layers.Conv, dtype=jnp.float64))
    variables = random_variables(module, rng, x)
    names = ('theta', 'phi', 'g', 'o')
    scales = {name: {'kernel': jnp.asarray(rng.uniform(0.2, 0.8))} for name in names}
    orders = 2 if size == 8 else 1
    assert_equal_on_a_gpu(module, {**variables, 'scales': scales}, x, orders)


def test_attention_of_a_gpu_projects_x_once():
  x = jax.ShapeDtypeStruct((64, 16, 16, 32), jnp.bfloat16)
  module = layers.Attention(partial(layers.Conv, dtype=jnp.bfloat16))
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  gradients = jax.grad(scalar(module.apply), (0, 1))
  text = lowered_for_cuda(gradients, variables, x, kind='NVIDIA H100 80GB HBM3')
  products = re.findall(r'(?:dot_general|convolution).*-> (tensor<[\dx]+)', text)
  assert sum(p == 'tensor<64x16x16x32x' for p in products) <= 2, products


class TwoConvs(nn.Module):
  dtype: Any

  @nn.compact
  def __call__(self, x):
    three, one = (
      partial(layers.Conv, 5, size=size, dtype=self.dtype, name=f'conv{size}')
      for size in (3, 1)
    )
    return layers.sum_of_convs(three, x, one, jnp.square(x))


def test_the_sum_of_two_convolutions_on_a_gpu_is_the_same(rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 3)))
    module = TwoConvs(jnp.float64)
    assert_equal_on_a_gpu(module, random_variables(module, rng, x), x, orders=1)


def test_a_gpu_adds_one_bias_to_the_sum_of_two_convolutions():
  x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.bfloat16)
  module = TwoConvs(jnp.bfloat16)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  text = lowered_for_cuda(module.apply, variables, x)
  assert len(re.findall(r'add.*: tensor<2x8x8x5xbf16>', text)) == 2


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
