"""Growing networks in blocks of pixels against plain ones: losses and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.models.base import Batch
from gan_jax.ops import block_convolution, blocks, image_products
from gan_jax.runtime.mesh import AXIS
from tests.models.growing import PROGAN, STYLEGAN, phase
from tests.platforms import traced_for
from tests.training.program_test import equations

# From the final resolution down, as at 1024, 512 and 256 pixels.
SIZES = {1: (2, 4), 2: (2, 2), 4: (1, 2)}
ALPHAS = (0.0, 0.3, 1.0)
# GAN, final resolution, resolution: each size of blocks as that which fades in.
CASES = [(PROGAN, 32, 8), (PROGAN, 32, 16), (STYLEGAN, 16, 16)]


def at_resolution(gan, res):
  widths = (5,) * (res.bit_length() - 1)
  few = dict(dim_z=3, g_widths=widths, d_widths=widths, mbstd_group=2)
  return dataclasses.replace(gan, res=res, dtype='float64', **few)


def random_arguments(gan, res):
  """Variables of G and D, a batch of one device, and its random inputs."""
  rng = np.random.default_rng(0)

  def values(x):
    if jnp.issubdtype(x.dtype, jnp.integer):
      return np.ones(x.shape, x.dtype)
    return rng.uniform(size=x.shape)

  key = jax.random.key(0)
  g, d = jax.tree.map(lambda x: rng.normal(size=x.shape), jax.eval_shape(gan.init, key))
  draw = lambda key: gan.draw_inputs(key, jnp.arange(2), phase(res))
  inputs = jax.tree.map(values, jax.eval_shape(draw, key))
  images = rng.uniform(-1, 1, size=(2, res, res, 3))
  batch = Batch(images, np.zeros(2, np.int32))
  return g, d, *jax.tree.map(lambda x: x[None], (batch, inputs))


def gradients(gan, res, device, arguments):
  """Of both losses, with the penalty's, by alpha, in the form of a device."""

  def losses(params, alpha, g, d, batch, inputs):
    g, d = ({**v, 'params': p} for v, p in zip((g, d), params, strict=True))
    at = phase(res).replace(alpha=alpha)
    return gan.d_loss(g, d, batch, inputs, at)[0] + gan.g_loss(g, d, inputs, at)[0]

  @jax.jit
  def by_alpha(g, d, *examples):
    axes = (None, None, None, None, 0, 0)
    mapped = jax.vmap(jax.grad(losses), axes, axis_name=AXIS)
    at = lambda alpha: mapped((g['params'], d['params']), alpha, g, d, *examples)
    return jax.lax.map(at, jnp.asarray(ALPHAS))

  with traced_for(device), jax.enable_x64(True):
    return by_alpha(*arguments)


@pytest.mark.parametrize(('gan', 'final', 'res'), CASES)
def test_gradients_are_those_of_the_plain_form(gan, final, res, monkeypatch):
  gan, found = at_resolution(gan, final), set()
  with jax.enable_x64(True):
    arguments = random_arguments(gan, res)

  def size(device, height, width, channels):
    if device != 'tpu' or channels <= 4 or width <= 4:
      return blocks.PIXEL
    found.add(width)
    return SIZES[final // width]

  monkeypatch.setattr(block_convolution, 'block_size', size)
  monkeypatch.setattr(image_products, 'MIN_WIDTH', 8)
  ours, plain = (gradients(gan, res, device, arguments) for device in ('tpu', ''))
  assert found == {8 << i for i in range(res.bit_length() - 3)}
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
    assert a.dtype == np.float64
    for by_alpha, expected in zip(a, b, strict=True):
      atol = 1e-12 * np.abs(expected).max()
      np.testing.assert_allclose(by_alpha, expected, rtol=0, atol=atol)


@pytest.mark.parametrize('gan', [PROGAN, STYLEGAN], ids=['progan', 'stylegan'])
def test_bfloat16_from_a_resolution_on(gan, strict_dtypes):
  gan = dataclasses.replace(gan, bfloat16_from=8)
  at, key = phase(8, 0.3), jax.random.key(0)
  types = set()

  def losses(g, d, batch):
    inputs = gan.draw_inputs(key, jnp.arange(4), at)
    fake = gan.d_loss(g, d, batch, inputs, at)[0]
    return fake + gan.g_loss(g, d, inputs, at)[0]

  g, d = jax.eval_shape(gan.init, key)
  batch = Batch(jnp.zeros((4, 8, 8, 3)), jnp.zeros(4, jnp.int32))
  with traced_for('tpu'):
    f = jax.vmap(jax.grad(losses, (0, 1)), (None, None, 0), axis_name=AXIS)
    one = jax.tree.map(lambda x: x[None], batch)
    traced = jax.make_jaxpr(f)(g, d, one)
  for eqn in equations(traced.jaxpr):
    if eqn.primitive.name == 'conv_general_dilated':
      width = max(x.aval.shape[-2] for x in (*eqn.invars[:1], *eqn.outvars))
      types.add((width >= 8, str(eqn.outvars[0].aval.dtype)))
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(traced.out_avals))
  assert types == {(False, 'float32'), (True, 'bfloat16')}
