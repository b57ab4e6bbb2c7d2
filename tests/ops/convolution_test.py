"""Every form of a convolution against XLA's, with gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import convolution
from gan_jax.ops.convolution import conv
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import traced_for


def plain(x, k):
  return jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('c, o', [(3, 6), (6, 3), (6, 5)])
@pytest.mark.parametrize('chunk', [2, pytest.param(100, marks=pytest.mark.slow)])
def test_forms_for_cpus_equal_xla_s(c, o, size, chunk, monkeypatch, rng_seed):
  monkeypatch.setattr(convolution, 'CPU_CACHE_VALUES', chunk * 4 * 6 * c)
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(5, 4, 6, c)))
    k = jnp.asarray(rng.normal(size=(size, size, c, o)))
    assert_equal_values(conv, plain, (x, k), atol=1e-12)
    for made in (scalar, penalty):
      assert_equal_gradients(made(conv), made(plain), (x, k), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
  'channels', [(3, 5), (5, 3), pytest.param((2, 1), marks=pytest.mark.slow)]
)
def test_blocks_of_few_channels_on_a_tpu_equal_xla_s(channels, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with traced_for('tpu'), jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 8, 4, channels[0])))
    k = jnp.asarray(rng.normal(size=(3, 3, *channels)))
    lowered = jax.jit(jax.grad(scalar(conv))).lower(x, k).as_text()
    assert 'stride = [4, 4]' in lowered  # in one of the two directions
    assert_equal_values(conv, plain, (x, k), atol=1e-11)
    assert_equal_gradients(scalar(conv), scalar(plain), (x, k), atol=1e-11)
    by_kernel = [jax.grad(penalty(f), 1)(x, k) for f in (conv, plain)]
    np.testing.assert_allclose(*by_kernel, rtol=1e-9, atol=1e-9)


def shaped(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
  'x, kernel, pays',
  [
    (shaped(32, 16, 16, 256), shaped(3, 3, 256, 256), True),
    (shaped(32, 16, 16, 256), shaped(3, 3, 256, 64), True),
    (shaped(8, 32, 32, 64), shaped(3, 3, 64, 64), True),
    (shaped(7, 32, 32, 64), shaped(3, 3, 64, 64), False),  # too few pixels
    (shaped(32, 16, 16, 256), shaped(3, 3, 256, 60), False),  # too few channels
    (shaped(32, 18, 18, 256), shaped(3, 3, 256, 256), False),  # no multiple of a tile
    (shaped(32, 16, 16, 256), shaped(1, 1, 256, 256), False),
    (shaped(32, 16, 16, 256, dtype=jnp.bfloat16), shaped(3, 3, 256, 256), False),
  ],
)
def test_winograd_is_used_for_many_pixels_and_channels(x, kernel, pays):
  assert convolution.use_winograd(x, kernel) == pays


def test_winograd_is_used_on_a_cpu_alone():
  x, kernel = shaped(32, 16, 16, 256), shaped(3, 3, 256, 256)
  forms = {}
  for platform in ('cpu', 'tpu', 'gpu'):
    with traced_for(platform):
      forms[platform] = str(jax.make_jaxpr(conv)(x, kernel))
  products = {name: 'conv_general_dilated' not in text for name, text in forms.items()}
  assert products == {'cpu': True, 'tpu': False, 'gpu': False}
