"""The registry of metrics."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import METRICS, PATHS, SOURCES
from gan_jax.evaluation.metrics.feature_network import NetworkStatistics
from gan_jax.evaluation.protocol import EvaluationProtocol


def test_names_of_metrics_and_scores_are_unique():
  scores = [score for metric in METRICS.values() for score in metric.best]
  assert len(scores) == len({*scores}) and not {*scores} & {*PATHS}
  assert {metric.source for metric in METRICS.values()} == {*SOURCES}


def test_fid_of_too_few_images_is_an_error(statistics_of):
  few = NetworkStatistics(None, statistics_of(np.ones((3, 5), np.float32)))
  with pytest.raises(UserError, match='rank 2'):
    METRICS['fid'].measure(few, few, EvaluationProtocol())
