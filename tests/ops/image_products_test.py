"""Images as products on a TPU, against the plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import blocks, resampling
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import traced_for


def round_trip(x):
  return blocks.to_pixels(blocks.to_blocks(x, (2, 4)))


FUNCTIONS = {
  'upsample': (resampling.upsample, 128),
  'downsample': (resampling.downsample, 256),
  'to_blocks': (lambda x: blocks.to_blocks(x, (2, 4)), 256),
  'round_trip': (round_trip, 256),
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
