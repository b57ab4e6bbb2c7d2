"""Published numbers of parameters, and settings without a network."""

import math

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.models.biggan import BigGAN

IMAGENET = dict(n_classes=1000, g_attention=(64,), d_attention=(64,))


@pytest.mark.parametrize(
  'fields, g_count, d_count',
  [
    (dict(res=128, dim_z=120, g_ch=96, d_ch=96, **IMAGENET), 70_433_988, 87_982_370),
    (dict(res=256, dim_z=140, g_ch=96, d_ch=96, **IMAGENET), 82_235_844, 99_225_890),
    (
      dict(res=128, dim_z=128, g_ch=128, d_ch=128, depth=2, **IMAGENET),
      50_244_484,
      34_590_210,
    ),
    (
      dict(res=32, n_classes=10, shared_dim=0, hier=False),
      4_304_387,  # BigGAN-PyTorch's defaults on CIFAR
      4_207_361,
    ),
  ],
)
def test_numbers_of_parameters_are_the_published_ones(fields, g_count, d_count):
  g, d = jax.eval_shape(BigGAN(**fields).init, jax.random.key(0))
  count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  assert (count(g['params']), count(d['params'])) == (g_count, d_count)


@pytest.mark.parametrize('depth', [0, 2])
@pytest.mark.parametrize('n_classes', [0, 3])
def test_networks_for_512_pixels_and_without_classes(n_classes, depth):
  gan = BigGAN(res=512, n_classes=n_classes, dim_z=160, depth=depth, g_ch=16, d_ch=16)
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  z = jax.ShapeDtypeStruct((2, 160), np.float32)
  y = jax.ShapeDtypeStruct((2,), np.int32)
  images = jax.eval_shape(gan.generate, g, z, y)
  assert images.shape == (2, 512, 512, 3)
  assert ('shared' in g['params']) == bool(n_classes)


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(res=48), 'power of two'),
    (dict(res=8), 'power of two'),
    (dict(res=16), 'no widths are published'),
    (dict(res=16, g_widths=(1, 1), d_widths=(1,)), 'needs 3'),
    (dict(res=128, dim_z=128), 'multiple of 6'),
    (dict(res=32, n_classes=2, shared_dim=0), 'shared_dim'),
    (dict(res=32, depth=2, hier=False), 'hier'),
    (dict(res=32, g_init='zeros'), 'ortho'),
    (dict(res=32, depth=2, g_blocks=('4', 'down 2')), 'g_blocks is'),
    (dict(res=32, depth=2, g_blocks=('4', 'up 2')), 'upsamples 1 times'),
    (dict(res=32, stats_rows=1), '2 and more'),
  ],
)
def test_settings_without_a_network_are_errors(fields, words):
  with pytest.raises(UserError, match=words):
    BigGAN(**fields)


def test_bfloat16_keeps_float32_parameters_and_images(strict_dtypes):
  gan = BigGAN(
    res=16, n_classes=2, dim_z=6, shared_dim=4, g_ch=8, d_ch=8, g_widths=(2, 1, 1),
    d_widths=(1, 2), g_attention=(8,), d_attention=(8,), dtype='bfloat16', remat=True,
  )  # fmt: skip
  g, d = jax.eval_shape(gan.init, jax.random.key(0))
  assert {x.dtype for x in jax.tree.leaves((g, d))} == {np.dtype('float32')}
  z = jax.ShapeDtypeStruct((2, 6), np.float32)
  y = jax.ShapeDtypeStruct((2,), np.int32)
  assert jax.eval_shape(gan.generate, g, z, y).dtype == np.float32
  text = jax.jit(gan.generate).lower(g, z, y).as_text()
  convolutions = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
  assert convolutions and all('bf16' in line for line in convolutions)
