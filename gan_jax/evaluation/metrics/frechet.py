"""Frechet distance of features, over all images (FID) and within classes (intra-FID).

Heusel et al. 2017, arXiv:1706.08500. Everything is computed in float64.
"""

import numpy as np
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics


def require_full_rank(n: int, dim: int, kind: str) -> None:
  """Checks that the covariance of n images can have full rank.

  The Frechet distance of singular covariances depends on the number of images.

  Args:
    kind: 'real' or 'generated', for the message.

  Raises:
    UserError: n is at most `dim`.
  """
  if n <= dim:
    raise UserError(
      f'{n} {kind} images leave the covariance of {dim} features with '
      f'rank {max(n - 1, 0)} at most: a Frechet distance needs at least '
      f'{dim + 1} images; take more images, or kid, which needs no covariance.'
    )


def symmetric_sqrt(matrix: Float[np.ndarray, 'd d']) -> Float[np.ndarray, 'd d']:
  """Square root of a positive semidefinite matrix.

  Eigenvalues within rounding error of zero are set to zero. A singular covariance
  therefore has a real root, and missing ranks add no rounding noise.
  """
  values, vectors = np.linalg.eigh(matrix)
  floor = len(matrix) * np.finfo(np.float64).eps * max(values[-1], 0)
  roots = np.sqrt(np.where(values > floor, values, 0))
  return (vectors * roots) @ vectors.T


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
  """|mean(a) - mean(b)|^2 + tr(A + B - 2 sqrt(A B)) with covariances A and B.

  The trace of sqrt(A B) is computed as the sum of the singular values of
  sqrt(A) sqrt(B). Only symmetric matrices are rooted, and the distance of a set to
  itself is zero.
  """
  cov_a, cov_b = a.covariance, b.covariance
  product = symmetric_sqrt(cov_a) @ symmetric_sqrt(cov_b)
  trace_of_sqrt = np.linalg.svd(product, compute_uv=False).sum()
  shift = a.mean - b.mean
  return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * trace_of_sqrt)


def frechet_distance_of_rows(
  a: Float[np.ndarray, 'n d'], b: Float[np.ndarray, 'm d']
) -> float:
  """`frechet_distance` of feature vectors, without [d, d] matrices.

  With covariances x^T x and y^T y, the singular values needed are those of x y^T, an
  [n, m] matrix: cheap for the few images of one class, and exact for any rank.
  """
  a, b = a.astype(np.float64), b.astype(np.float64)
  mean_a, mean_b = a.mean(0), b.mean(0)
  x = (a - mean_a) / np.sqrt(max(len(a) - 1, 1))
  y = (b - mean_b) / np.sqrt(max(len(b) - 1, 1))
  trace_of_sqrt = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  shift = mean_a - mean_b
  return float(
    shift @ shift + np.square(x).sum() + np.square(y).sum() - 2 * trace_of_sqrt
  )


def intra_class_frechet(real: FeatureStatistics, fake: FeatureStatistics) -> float:
  """Mean over the classes of the Frechet distance within a class (intra-FID).

  Computed from the stored rows. Classes of few images have covariances of low rank, as
  in the literature, so only runs with the same number of images are comparable.

  Raises:
    UserError: a class has fewer than two real or fewer than two generated images.
  """
  distances = []
  for label in np.unique(real.labels):
    a = real.rows[real.labels == label]
    b = fake.rows[fake.labels == label]
    if min(len(a), len(b)) < 2:
      raise UserError(
        f'class {label} has {len(a)} real and {len(b)} generated images: intra-class '
        'distances need at least two of each class; take more images.'
      )
    distances.append(frechet_distance_of_rows(a, b))
  return float(np.mean(distances))
