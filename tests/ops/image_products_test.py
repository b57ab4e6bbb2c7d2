"""Images as products on a TPU, against the plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import image_products, resampling
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import traced_for

FUNCTIONS = {
  'upsample': (resampling.upsample, 128),
  'downsample': (resampling.downsample, 256),
}


def on_tpu(function):
  def traced(x):
    with traced_for('tpu'):
      return function(x)

  return traced


@pytest.mark.parametrize('name', FUNCTIONS)
def test_products_are_the_plain_form(name, rng_seed):
  plain, width = FUNCTIONS[name]
  ours = on_tpu(plain)
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.standard_normal((2, 4, width, 3)))
    assert 'dot_general' in str(jax.make_jaxpr(ours)(x))
    assert 'dot_general' not in str(jax.make_jaxpr(plain)(x))
    assert_equal_values(ours, plain, (x,), 1e-12)
    assert_equal_gradients(scalar(ours), scalar(plain), (x,), 1e-12)
    assert_equal_gradients(penalty(ours), penalty(plain), (x,), 1e-12)
  narrow = x.astype(jnp.bfloat16)
  for a, b in zip(*(jax.tree.leaves(f(narrow)) for f in (ours, plain)), strict=True):
    assert a.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(a, 'f4'), np.asarray(b, 'f4'))


def test_only_large_images_are_products():
  for width, channels in ((128, 3), (256, 8)):
    x = jax.ShapeDtypeStruct((1, 4, width, channels), jnp.float32)
    jaxpr = jax.make_jaxpr(on_tpu(resampling.downsample))(x)
    assert 'dot_general' not in str(jaxpr)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_columns_are_split_and_joined(dtype, rng_seed):
  x = np.random.default_rng(rng_seed).standard_normal((2, 4, 16, 3))
  x = jnp.asarray(x, dtype)
  split = image_products.split_columns(x, 4)
  assert split.shape == (2, 4, 3, 4, 4) and split.dtype == dtype
  for n in range(4):
    np.testing.assert_array_equal(split[:, :, :, n], x[:, :, n::4].swapaxes(2, 3))
  np.testing.assert_array_equal(image_products.join_columns(split), x)
