"""Convolutions over blocks against plain ones, with second derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import block_convolution, blocks, resampling
from gan_jax.ops.convolution import conv
from tests.gradients import penalty, scalar
from tests.platforms import traced_for

# The smallest maps in which each block of a training at 1024 pixels meets the next one.
BLOCKS = {8: (2, 4), 4: (2, 2), 2: (1, 2), 1: blocks.PIXEL}
CASES = [(8, (1, 2, 1)), (4, (1, 2, 1)), (2, (1, 2, 1))]
CASES += [(4, ()), (4, (1, 2, 3)), (8, (1, 3, 3, 1))]


@pytest.fixture(autouse=True)
def small_maps_are_in_blocks(monkeypatch):
  size = lambda device, h, w, c: BLOCKS[h] if c > 4 and device == 'tpu' else (1, 1)
  monkeypatch.setattr(block_convolution, 'block_size', size)


def plain_down(x, k, taps):
  return resampling.downsample(conv(resampling.blur(x, taps) if taps else x, k))


def plain_up(x, k, taps):
  x = conv(resampling.upsample(x), k)
  return resampling.blur(x, taps) if taps else x


def in_blocks(f, size):
  """f of a map in blocks, from and to arrays."""
  return lambda x, *args: blocks.to_pixels(f(blocks.to_blocks(x, size), *args))


def assert_same(ours, plain, width, kernel_shape, seed):
  """Values, gradients and second derivatives, in float64."""
  rng = np.random.default_rng(seed)

  @partial(jax.jit, static_argnums=0)
  def derivatives(f, x, k):
    return (
      f(x, k),
      jax.grad(scalar(f), (0, 1))(x, k),
      jax.grad(penalty(f), (0, 1))(x, k),
    )

  with traced_for('tpu'), jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, width, width, kernel_shape[2])))
    k = jnp.asarray(rng.normal(size=kernel_shape) / 4)
    ours = in_blocks(ours, block_convolution.block_size('tpu', *x.shape[1:]))
    found, expected = (jax.tree.leaves(derivatives(f, x, k)) for f in (ours, plain))
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('width', 'taps'), CASES)
def test_downsampling(width, taps, rng_seed):
  ours = partial(block_convolution.down_conv, taps=taps)
  assert_same(ours, partial(plain_down, taps=taps), width, (3, 3, 5, 6), rng_seed)


@pytest.mark.parametrize(('width', 'taps'), CASES)
def test_upsampling(width, taps, rng_seed):
  ours = partial(block_convolution.up_conv, taps=taps)
  width //= 2
  assert_same(ours, partial(plain_up, taps=taps), width, (3, 3, 5, 6), rng_seed)


@pytest.mark.parametrize('after', [blocks.PIXEL, (1, 2), (2, 4)])
@pytest.mark.parametrize('up', [False, True])
def test_blocks_that_do_not_follow_each_other_in_the_papers(up, after, monkeypatch):
  monkeypatch.setattr(block_convolution, 'block_size', lambda *_: after)
  x, k = (
    jnp.asarray(np.random.default_rng(0).normal(size=s))
    for s in ((1, 8, 8, 5), (3, 3, 5, 6))
  )
  ours = block_convolution.up_conv if up else block_convolution.down_conv
  plain = plain_up if up else plain_down
  both = jax.jit(
    lambda x, k: (in_blocks(ours, (2, 4))(x, k, (1, 2, 1)), plain(x, k, (1, 2, 1)))
  )
  np.testing.assert_allclose(*both(x, k), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(3, 3, 5, 6), (1, 1, 3, 6), (1, 1, 5, 3)])
def test_convolutions_also_from_and_to_images(shape, rng_seed):
  assert_same(block_convolution.conv, conv, 8, shape, rng_seed)


@pytest.mark.parametrize('shape', [(1, 1, 3, 16), (1, 1, 16, 3)])
def test_images_meet_blocks_in_products(shape):
  x = jnp.ones((1, 8, 8, shape[2]))
  with traced_for('tpu'):
    x = blocks.to_blocks(x, block_convolution.block_size('tpu', *x.shape[1:]))
    text = str(jax.make_jaxpr(block_convolution.conv)(x, jnp.ones(shape)))
  assert text.count('dot_general[') == 2 and 'conv_general_dilated' not in text


def test_means_of_2x2_pixels(rng_seed):
  ours = lambda x, k: block_convolution.downsample(x)
  plain = lambda x, k: resampling.downsample(x)
  assert_same(ours, plain, 4, (1, 1, 5, 5), rng_seed)


def test_no_multiplication_with_the_zeros_between_strides():
  x = blocks.PixelBlocks(jnp.ones((1, 4, 2, 40)), (2, 4))
  with traced_for('tpu'):
    f = lambda x: block_convolution.down_conv(x, jnp.ones((3, 3, 5, 6))).values.sum()
    text = str(jax.make_jaxpr(jax.grad(f))(x))
  assert text.count('conv_general_dilated[') >= 3
  assert text.count('lhs_dilation=(1, 1)') == text.count('conv_general_dilated[')
