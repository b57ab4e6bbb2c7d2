"""Running mean, covariance and leading rows of a stream of feature vectors."""

import numpy as np
from jaxtyping import Float, Int

from gan_jax import UserError


class FeatureStatistics:
  """Mean and covariance (float64) of a stream of feature vectors, and its first rows.

  Memory depends on `dim` and `max_rows` only, not on the number of images. Merging the
  statistics of two streams gives those of the first stream followed by the second.
  """

  def __init__(self, dim: int, max_rows: int = 0):
    """
    Args:
      dim: length of a feature vector.
      max_rows: how many vectors, the first ones of the stream, are stored. KID and the
        nearest-neighbor metrics need them.
    """
    self.dim, self.max_rows = dim, max_rows
    self.n = 0
    self.mean = np.zeros(dim)
    self._scatter = np.zeros((dim, dim))
    self._rows: list[np.ndarray] = []
    self._labels: list[np.ndarray] = []

  def update(
    self,
    features: Float[np.ndarray, 'n dim'],
    labels: Int[np.ndarray, ' n'] | None = None,
  ) -> None:
    """Adds feature vectors, with the class labels of their images if there are any.

    Raises:
      UserError: a feature is non-finite.
    """
    if features.ndim != 2 or features.shape[1] != self.dim:
      raise ValueError(f'features {features.shape} where [n, {self.dim}] is needed')
    finite = np.isfinite(features).all(1)
    if not finite.all():
      raise UserError(
        f'the features of image {self.n + int(np.argmin(finite))} are non-finite: the '
        'generator or the weights of the feature network hold NaN or infinity.'
      )
    if labels is None:
      labels = np.zeros(len(features), np.int32)
    self._store(features, labels)
    if len(features):
      x = features.astype(np.float64)
      mean = x.mean(0)
      centered = x - mean
      self._add_moments(len(x), mean, centered.T @ centered)

  def merge(self, other: 'FeatureStatistics') -> None:
    """Adds the statistics of a stream that follows this one."""
    self._store(other.rows, other.labels)
    if other.n:
      self._add_moments(other.n, other.mean, other._scatter)

  def set_moments(
    self, mean: Float[np.ndarray, ' dim'], covariance: Float[np.ndarray, 'dim dim']
  ) -> None:
    """Replaces mean and covariance by given ones, of an unknown number of vectors.

    `n` becomes the least number whose covariance can have full rank.
    """
    self.n = self.dim + 1
    self.mean, self._scatter = mean, covariance * self.dim

  def _store(self, rows: np.ndarray, labels: np.ndarray) -> None:
    free = self.max_rows - sum(map(len, self._rows))
    if free > 0:
      self._rows.append(np.array(rows[:free], np.float32))
      self._labels.append(np.array(labels[:free], np.int32))

  def _add_moments(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
    """Combines the moments of two samples (Chan, Golub and LeVeque 1983)."""
    total = self.n + n
    shift = mean - self.mean
    self._scatter += scatter
    if self.n:
      self._scatter += np.multiply.outer(shift, shift * (self.n * n / total))
    self.mean = self.mean + shift * (n / total)
    self.n = total

  @property
  def covariance(self) -> Float[np.ndarray, 'dim dim']:
    """Sample covariance in float64, with the divisor n - 1."""
    return self._scatter / max(self.n - 1, 1)

  @property
  def rows(self) -> Float[np.ndarray, 'rows dim']:
    """The stored feature vectors in float32; min(n, max_rows) rows."""
    if len(self._rows) != 1:
      empty = np.zeros((0, self.dim), np.float32)
      self._rows = [np.concatenate([empty, *self._rows])]
    return self._rows[0]

  @property
  def labels(self) -> Int[np.ndarray, ' rows']:
    """The class labels of `rows`, int32."""
    if len(self._labels) != 1:
      self._labels = [np.concatenate([np.zeros(0, np.int32), *self._labels])]
    return self._labels[0]

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    return {
      'n': np.array(self.n),
      'keep': np.array(self.max_rows),
      'mean': self.mean,
      'scatter': self._scatter,
      'rows': self.rows,
      'labels': self.labels,
    }

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'FeatureStatistics':
    """The statistics that `arrays` described. Raises: KeyError."""
    statistics = cls(len(arrays['mean']), int(arrays['keep']))
    statistics.n, statistics.mean = int(arrays['n']), arrays['mean']
    statistics._scatter = arrays['scatter']
    statistics._rows, statistics._labels = [arrays['rows']], [arrays['labels']]
    return statistics
