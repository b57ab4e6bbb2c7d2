"""Sums and their gradients against the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import reductions
from tests.gradients import assert_equal_gradients, assert_equal_values, scalar
from tests.platforms import traced_for


def plain_scale_and_shift(x, mean, scale, bias):
  return (x - mean) * scale + bias


def plain_moments(x):
  return tuple(y.sum((1, 2), keepdims=True) for y in (x, x**2))


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'ours, plain, shapes',
  [
    (reductions.moments, plain_moments, [(3, 4, 6, 5)]),
    (
      reductions.scale_and_shift,
      plain_scale_and_shift,
      [(3, 4, 6, 5), *[(1, 1, 1, 5)] * 3],
    ),
    (
      reductions.scale_and_shift,
      plain_scale_and_shift,
      [(3, 4, 6, 5), (1, 1, 1, 5), (3, 1, 1, 5), (3, 1, 1, 5)],
    ),
  ],
)
def test_values_and_gradients_equal_the_formula_s(
  ours, plain, shapes, device, rng_seed
):
  rng = np.random.default_rng(rng_seed)
  with traced_for(device), jax.enable_x64(True):
    args = [jnp.asarray(rng.normal(1, 2, size=s)) for s in shapes]
    assert_equal_values(ours, plain, args, rtol=1e-11, atol=1e-11)
    assert_equal_gradients(scalar(ours), scalar(plain), args, rtol=1e-9, atol=1e-9)


def test_sums_of_bfloat16_are_float32():
  ones = jnp.ones((2, 64, 64, 3), jnp.bfloat16)  # a bfloat16 sum would stop at 256
  for total in reductions.moments(ones):
    assert total.dtype == jnp.float32
    np.testing.assert_array_equal(total, 4096)
  scale = jnp.ones((1, 1, 1, 3))
  y, back = jax.vjp(reductions.scale_and_shift, ones, 0 * scale, scale, 0 * scale)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(back(ones)[3], 2 * 4096)


def test_the_gradient_of_a_bias_is_the_sum(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x, bias = (jnp.asarray(rng.normal(size=s)) for s in ((2, 3, 5, 4), (1, 1, 1, 4)))
  np.testing.assert_array_equal(reductions.add_bias(x, bias), x + bias)
  assert_equal_gradients(
    scalar(reductions.add_bias), scalar(jnp.add), (x, bias), rtol=1e-5, atol=1e-6
  )
  # 4096 ones: a sum in bfloat16 would stop at 256.
  many = jnp.ones((4096, 2), jnp.bfloat16)
  _, back = jax.vjp(reductions.add_bias, many, many[:1])
  np.testing.assert_array_equal(back(many)[1], 4096)
