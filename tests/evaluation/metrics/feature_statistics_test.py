"""Feature statistics: streaming, merging, saving, and memory."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics


def test_parts_of_a_stream_give_the_statistics_of_all_rows(rng_seed, statistics_of):
  rng = np.random.default_rng(rng_seed)
  # Far from the origin, where sums of squares would lose the covariance.
  rows = (1e3 + rng.normal(size=(300, 7))).astype(np.float32)
  exact = np.cov(rows.astype(np.float64), rowvar=False)
  for parts in (1, 13):
    statistics = statistics_of(rows, 40, parts)
    exact_mean = rows.mean(0, dtype=np.float64)
    np.testing.assert_allclose(statistics.mean, exact_mean, rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, exact, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(statistics.rows, rows[:40])
  first, second = statistics_of(rows[:110], 40), statistics_of(rows[110:])
  first.merge(second)
  np.testing.assert_allclose(first.covariance, exact, rtol=1e-10, atol=1e-12)
  assert first.n == 300
  restored = FeatureStatistics.restore(first.arrays())
  np.testing.assert_array_equal(restored.covariance, first.covariance)
  np.testing.assert_array_equal(restored.rows, rows[:40])


def test_memory_does_not_grow_with_the_stream():
  rows = np.ones((50, 5), np.float32)

  def size(times):
    statistics = FeatureStatistics(5, max_rows=50)
    for _ in range(times):
      statistics.update(rows)
    return sum(x.nbytes for x in statistics.arrays().values())

  assert size(1) == size(20)


def test_non_finite_features_are_an_error(statistics_of):
  rows = np.ones((4, 3), np.float32)
  statistics = statistics_of(rows)
  rows[2, 1] = np.nan
  with pytest.raises(UserError, match='features of image 6 are non-finite'):
    statistics.update(rows)
