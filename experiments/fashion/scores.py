"""Scores of generated clothes, and the same scores of real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from classifier import CLASSES, DIM, load_classifier, make_classify

from gan_jax import data
from gan_jax.data.decode import area_downsample
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.metrics.frechet import frechet_distance
from gan_jax.evaluation.metrics.memorization import measure_memorization
from gan_jax.evaluation.metrics.neighbors import neighbor_radii, neighbor_scores

N = 10_000  # generated images, equally many of each class
HELD_OUT = 10_000  # training images that are the floor of the Frechet distance
NEIGHBORS = 3  # of recall, as in gan_jax.evaluate
N_RECALL, N_COPIES = 5_000, 2_000  # images for recall, and for memorization

Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Images(NamedTuple):
  """Images uint8 [n, 32, 32, 1] with their classes [n]."""

  images: np.ndarray
  labels: np.ndarray


def read_images(folder: Path, split: str = 'train') -> Images:
  """All images of a prepared set, in its order."""
  dataset = data.load_dataset(str(folder), split=split, res=32, channels=1)
  examples = [dataset.examples[i] for i in range(len(dataset.examples))]
  return Images(
    np.stack([image for image, _ in examples]),
    np.array([label for _, label in examples], np.int32),
  )


def statistics(features: np.ndarray) -> FeatureStatistics:
  result = FeatureStatistics(DIM)
  result.update(features)
  return result


def distance_to_nearest(features: np.ndarray, labels: np.ndarray) -> float:
  """Mean distance to the nearest other image of the same class."""
  per_class = np.bincount(labels, minlength=CLASSES).min()
  rows = [np.flatnonzero(labels == c)[:per_class] for c in range(CLASSES)]
  return float(np.mean([np.sqrt(neighbor_radii(features[r], 1)) for r in rows]))


class Judge:
  """Scores sets of images against real ones, in the classifier's features.

  Attributes:
    real: the scores of real images.
  """

  def __init__(self, train: Images, test: Images, weights: Path):
    """
    Args:
      weights: file of the classifier, which is trained if it does not exist.
    """
    self._classify: Classify = make_classify(load_classifier(*train, weights))
    rows, _ = self._classify(train.images)
    held_out = slice(len(rows) - HELD_OUT, None)
    self._reference = statistics(rows[: len(rows) - HELD_OUT])
    self._test, classes = self._classify(test.images)
    self._nearest = distance_to_nearest(self._test, test.labels)
    self.real = {
      'accuracy': float((classes == test.labels).mean()),
      'fd': frechet_distance(self._reference, statistics(rows[held_out])),
      'diversity': 1.0,
      'recall': self._recall(rows[held_out]),
    }

  def _recall(self, features: np.ndarray) -> float:
    """Share of the test images that are within the manifold of these features."""
    scores = neighbor_scores(self._test[:N_RECALL], features[:N_RECALL], NEIGHBORS)
    return scores.recall

  def score(self, generated: Images, train: np.ndarray) -> dict[str, float]:
    """Scores of generated images; `train` are the images of the run."""
    features, classes = self._classify(generated.images)
    pixels = lambda x: area_downsample(x, 2).reshape(len(x), -1).astype(np.float32)
    drawn = generated.images[:N_COPIES]
    copies = measure_memorization([pixels(train)], [pixels(drawn)])
    return {
      'accuracy': float((classes == generated.labels).mean()),
      'fd': frechet_distance(self._reference, statistics(features)),
      'diversity': distance_to_nearest(features, generated.labels) / self._nearest,
      'recall': self._recall(features),
      'memorized': copies.share,
      'memorized_real': copies.real_share,
    }
