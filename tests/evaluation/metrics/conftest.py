"""Feature statistics of arrays, for the tests of metrics."""

import numpy as np
import pytest

from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics


@pytest.fixture(scope='session')
def statistics_of():
  """A function: feature rows -> their statistics, updated in several parts."""

  def build(rows, max_rows=0, parts=1, labels=None):
    statistics = FeatureStatistics(rows.shape[1], max_rows)
    for part in np.array_split(np.arange(len(rows)), parts):
      statistics.update(rows[part], None if labels is None else labels[part])
    return statistics

  return build
