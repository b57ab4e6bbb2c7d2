"""Batch statistics as a table over psi: which rows count, and how they are updated."""

import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.models.truncation_table import row_weights, statistics_at, update_table


@pytest.mark.parametrize('psi, row', [(0.0, 0), (0.5, 2), (1.0, 4), (7.0, 4)])
def test_psi_on_the_grid_selects_one_row(psi, row):
  np.testing.assert_array_equal(row_weights(psi, 5), np.eye(5, dtype=np.float32)[row])


def test_between_rows_the_lower_one_gets_the_fractional_part():
  # 0.3 * 4 is 1.2; linear interpolation would give row 1 the weight 0.8.
  np.testing.assert_allclose(row_weights(0.3, 5), [0, 0.2, 0.8, 0, 0], atol=1e-6)
  table = {'norm': {'mean': jnp.arange(10.0).reshape(5, 2)}}
  mean = statistics_at(table, 0.3, 5)['norm']['mean']
  np.testing.assert_allclose(mean, [0.2 * 2 + 0.8 * 4, 0.2 * 3 + 0.8 * 5], rtol=1e-5)


def test_all_rows_follow_the_last_one():
  table = {'mean': jnp.array([[1.0], [2.0]]), 'var': jnp.array([[1.0], [4.0]])}
  before = {'mean': jnp.array([2.0]), 'var': jnp.array([4.0])}
  after = {'mean': jnp.array([2.5]), 'var': jnp.array([2.0])}
  new = update_table(table, before, after)
  np.testing.assert_allclose(new['mean'], [[1.5], [2.5]])  # shifted
  np.testing.assert_allclose(new['var'], [[0.5], [2.0]])  # scaled
