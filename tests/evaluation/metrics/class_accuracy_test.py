"""Accuracy of generated images under a classifier of real features."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics.class_accuracy import classifier_accuracy


def test_accuracy_of_right_and_of_swapped_classes(statistics_of):
  rng = np.random.default_rng(0)
  labels = np.arange(120, dtype=np.int32) % 3
  centers = 10 * np.eye(3, 4, dtype=np.float32)
  real, right, swapped = (
    statistics_of(
      centers[y] + rng.normal(size=(120, 4)).astype(np.float32), 120, labels=labels
    )
    for y in (labels, labels, (labels + 1) % 3)
  )
  assert classifier_accuracy(real, right) == (1.0, 1.0)
  assert classifier_accuracy(real, swapped) == (0.0, 1.0)


def test_a_class_without_real_images_is_an_error(statistics_of):
  rows = np.eye(4, dtype=np.float32)
  real = statistics_of(rows, 4, labels=np.array([0, 0, 1, 1]))
  fake = statistics_of(rows, 4, labels=np.array([0, 0, 1, 2]))
  with pytest.raises(UserError, match='no real image shows class 2'):
    classifier_accuracy(real, fake)
  with pytest.raises(UserError, match='classifier of 1 classes'):
    classifier_accuracy(statistics_of(rows, 4), statistics_of(rows, 4))
