"""The largest of four pixels on a GPU against XLA's own form, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops.pooling import max_pool
from tests.gradients import penalty, scalar
from tests.platforms import lowered_for_cuda, traced_for


@pytest.mark.parametrize('dtype', ['float64', 'bfloat16'])
def test_a_gpu_has_the_same_values_and_gradients(dtype, rng_seed):
  rng = np.random.default_rng(rng_seed)

  def derivatives(x):
    return max_pool(x), *(jax.grad(of(max_pool))(x) for of in (scalar, penalty))

  with jax.enable_x64(True):
    # Three values: most windows have several largest pixels.
    x = jnp.asarray(rng.integers(0, 3, (3, 4, 6, 5)), dtype)
    plain = jax.jit(derivatives)(x)
    with traced_for('gpu'):
      found = jax.jit(lambda x: derivatives(x))(x)
    for ours, theirs in zip(found, plain, strict=True):
      assert ours.dtype == dtype
      np.testing.assert_array_equal(ours, theirs)


def test_a_gpu_passes_on_what_is_not_a_number():
  x = jnp.zeros((1, 2, 4, 1)).at[0, 0, 1].set(jnp.nan)
  with traced_for('gpu'):
    np.testing.assert_array_equal(max_pool(x).ravel(), [np.nan, 0])


def test_a_gpu_scatters_nothing():
  x = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.bfloat16)
  text = lowered_for_cuda(jax.grad(scalar(max_pool)), x)
  assert 'reduce_window' not in text and 'scatter' not in text
