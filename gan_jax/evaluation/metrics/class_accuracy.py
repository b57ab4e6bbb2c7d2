"""Classification accuracy of generated images under a classifier of real features."""

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics


def classifier_accuracy(
  real: FeatureStatistics, fake: FeatureStatistics
) -> tuple[float, float]:
  """How often a classifier predicts the class a generated image was conditioned on.

  The classifier is linear discriminant analysis, fitted in closed form to the stored
  rows of the real images. Its covariance is regularized by a thousandth of the mean
  variance.

  Returns:
    The accuracy on the stored rows of the generated images, and as a reference the
    accuracy on the odd real rows of a classifier fitted to the even ones.

  Raises:
    UserError: fewer than two classes, or a class without real images.
  """
  x, y = real.rows.astype(np.float64), real.labels
  even, odd = slice(0, None, 2), slice(1, None, 2)
  return (
    _accuracy(x, y, fake.rows.astype(np.float64), fake.labels),
    _accuracy(x[even], y[even], x[odd], y[odd]),
  )


def _accuracy(
  train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> float:
  classes = np.unique(train_y)
  missing = set(test_y) - set(classes)
  if missing or len(classes) < 2:
    raise UserError(
      f'a classifier of {len(classes)} classes cannot be scored'
      + (f': no real image shows class {min(missing)}' if missing else '')
      + '; take a conditional model and more real images.'
    )
  means = np.stack([train_x[train_y == c].mean(0) for c in classes])
  centered = train_x - means[np.searchsorted(classes, train_y)]
  covariance = centered.T @ centered / len(train_x)
  ridge = 1e-3 * np.trace(covariance) / len(covariance) + 1e-12
  covariance += np.eye(len(covariance)) * ridge
  weights = np.linalg.solve(covariance, means.T)
  scores = test_x @ weights - (means * weights.T).sum(1) / 2
  return float((classes[scores.argmax(1)] == test_y).mean())
