"""Feature maps as blocks of pixels: the layout, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import blocks

SIZES = [(2, 4), (2, 2), (1, 2)]


@pytest.fixture
def image(rng_seed):
  return np.random.default_rng(rng_seed).normal(size=(2, 4, 8, 3))


def test_a_block_holds_its_pixels_row_by_row(image):
  x = blocks.to_blocks(jnp.asarray(image), (2, 4))
  assert x.shape == image.shape and x.values.shape == (2, 2, 2, 24)
  block = np.asarray(x.values[1, 0, 1]).reshape(2, 4, 3)
  np.testing.assert_array_equal(block, image[1, :2, 4:].astype(np.float32))


@pytest.mark.parametrize('size', SIZES)
def test_blocks_and_pixels_are_inverse(image, size):
  x = jnp.asarray(image)
  np.testing.assert_array_equal(blocks.to_pixels(blocks.to_blocks(x, size)), x)
  assert blocks.to_blocks(x, blocks.PIXEL) is x and blocks.to_pixels(x) is x


@pytest.mark.parametrize('size', SIZES)
def test_channels_of_blocks(image, size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x, bias, one = (
      jnp.asarray(a)
      for a in (image, rng.normal(size=(1, 1, 1, 3)), rng.normal(size=(2, 4, 8, 1)))
    )
    y = blocks.to_blocks(x, size)
    plain = lambda a: blocks.to_pixels(blocks.like(y, a))
    pairs = [
      (blocks.to_pixels(blocks.add_bias(y, bias)), x + bias),
      (
        plain(blocks.channel_means(y, y.values) + 0 * y.values),
        x.mean(-1)[..., None] + 0 * x,
      ),
      (plain(blocks.channel_products(y, one, bias[0, 0])), one * bias),
      (
        blocks.sum_pixels(y, y.values.sum((1, 2), keepdims=True)),
        x.sum((1, 2))[:, None, None],
      ),
    ]
    for ours, expected in pairs:
      np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_products_of_noise_are_exact_in_float32_and_have_plain_gradients(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x, one, weight, g = (
    jnp.asarray(rng.normal(size=size).astype(np.float32))
    for size in ((2, 4, 8, 3), (2, 4, 8, 1), (1, 3), (2, 4, 8, 3))
  )
  y, g_blocks = (blocks.to_blocks(a, (2, 4)) for a in (x, g))
  ours, back = jax.vjp(lambda *a: blocks.channel_products(y, *a), one, weight)
  plain, plain_back = jax.vjp(jnp.matmul, one, weight)
  np.testing.assert_array_equal(blocks.to_pixels(blocks.like(y, ours)), plain)
  for a, b in zip(back(g_blocks.values), plain_back(g), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_only_large_maps_of_few_channels_on_a_tpu_are_in_blocks():
  size = blocks.block_size
  table = {(1024, 16): (2, 4), (512, 32): (2, 2), (256, 64): (1, 2), (512, 16): (2, 4)}
  for (width, channels), block in table.items():
    assert size('tpu', width, width, channels) == block
    assert block[0] * block[1] * channels == 128
  plain = [(128, 16), (256, 128), (1024, 3), (1024, 4)]
  assert {size('tpu', width, width, c) for width, c in plain} == {blocks.PIXEL}
  others = {size(device, 1024, 1024, 16) for device in ('cpu', 'gpu', '')}
  assert others == {blocks.PIXEL}
