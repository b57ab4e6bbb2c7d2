"""Winograd's convolution and its gradients against XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import winograd
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.ops.convolution_test import plain


@pytest.mark.parametrize(
  'size', [(4, 4), pytest.param((8, 12), marks=pytest.mark.slow)]
)
def test_values_and_gradients_equal_xla_s(size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  conv = winograd.conv
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, *size, 3)))
    k = jnp.asarray(rng.normal(size=(3, 3, 3, 5)))
    assert_equal_values(conv, plain, (x, k), atol=1e-12)
    for made in (scalar, penalty):
      assert_equal_gradients(made(conv), made(plain), (x, k), rtol=1e-9, atol=1e-9)


def test_rounding_is_a_few_times_that_of_direct_summation(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = rng.normal(size=(1, 16, 16, 256))
  k = rng.normal(size=(3, 3, 256, 16)) / 48
  with jax.enable_x64(True):
    exact = np.asarray(plain(jnp.asarray(x), jnp.asarray(k)))
  y = winograd.conv(jnp.float32(x), jnp.float32(k))
  assert np.sqrt(np.mean((y - exact) ** 2)) < 3e-6 * np.sqrt(np.mean(exact**2))
