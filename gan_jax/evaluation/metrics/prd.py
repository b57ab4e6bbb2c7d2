"""Precision and recall for distributions, PRD (Sajjadi et al. 2018, arXiv:1806.00035).

The features of both sets are clustered together, and the histograms over the clusters
compared: a curve of precision and recall, and the two F scores that sum it up.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gan_jax.evaluation.metrics.scikit_learn import without_convergence_warnings

CLUSTERS, RUNS, ANGLES = 20, 10, 1001  # of the paper and its code
BETA = 8
_MARGIN = 1e-10  # of the slopes' angles from 0 and from 90 degrees
_EPSILON = 1e-10  # added to the divisor of an F score


class Curve(NamedTuple):
  """Precision and recall in [0, 1], for slopes from about 0 to about infinity."""

  precision: Float[np.ndarray, ' angles']
  recall: Float[np.ndarray, ' angles']


class FScores(NamedTuple):
  """The largest F scores on a curve, in [0, 1]."""

  f8: float  # weights recall: low if images of the data are missing
  f1_8: float  # weights precision: low if generated images are unlike the data


def prd_curve(
  fake: Float[np.ndarray, ' bins'],
  real: Float[np.ndarray, ' bins'],
  angles: int = ANGLES,
) -> Curve:
  """The curve of two histograms over the same bins, each of sum 1."""
  slopes = np.tan(np.linspace(_MARGIN, np.pi / 2 - _MARGIN, angles))
  precision = np.minimum(slopes[:, None] * real, fake).sum(1)
  return Curve(np.clip(precision, 0, 1), np.clip(precision / slopes, 0, 1))


def curve_of_labels(
  fake: Int[np.ndarray, ' n'],
  real: Int[np.ndarray, ' m'],
  clusters: int = CLUSTERS,
  angles: int = ANGLES,
) -> Curve:
  """The curve of two sets of images, from the cluster of each image."""
  shares = lambda labels: np.bincount(labels, minlength=clusters) / len(labels)
  return prd_curve(shares(fake), shares(real), angles)


def f_scores(curve: Curve, beta: float = BETA) -> FScores:
  """The largest F_beta and the largest F_1/beta on a curve."""
  precision, recall = curve

  def largest(beta: float) -> float:
    weighted = beta**2 * precision + recall + _EPSILON
    return float(((1 + beta**2) * precision * recall / weighted).max())

  return FScores(largest(beta), largest(1 / beta))


def cluster(
  fake: Float[np.ndarray, 'n d'],
  real: Float[np.ndarray, 'm d'],
  clusters: int = CLUSTERS,
  seed: int = 0,
) -> tuple[Int[np.ndarray, ' n'], Int[np.ndarray, ' m']]:
  """The cluster of each row, by mini-batch k-means of both sets (scikit-learn)."""
  from sklearn.cluster import MiniBatchKMeans

  kmeans = MiniBatchKMeans(n_clusters=clusters, n_init=10, random_state=seed)
  with without_convergence_warnings():
    labels = kmeans.fit(np.concatenate([fake, real])).labels_
  return labels[: len(fake)], labels[len(fake) :]


def mean_curve(curves: list[Curve]) -> Curve:
  """Precision and recall averaged over curves of the same slopes."""
  precision, recall = np.mean(np.array(curves), 0)
  return Curve(precision, recall)


def prd(
  fake: Float[np.ndarray, 'n d'],
  real: Float[np.ndarray, 'm d'],
  clusters: int = CLUSTERS,
  runs: int = RUNS,
  angles: int = ANGLES,
) -> Curve:
  """The curve of two sets of feature vectors, averaged over clusterings.

  Both sets are cut to the size of the smaller one: the original takes sets of one size.
  """
  n = min(len(fake), len(real))
  labels = (cluster(fake[:n], real[:n], clusters, seed) for seed in range(runs))
  return mean_curve([curve_of_labels(*pair, clusters, angles) for pair in labels])
