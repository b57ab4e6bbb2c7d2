"""Memorization: generated images that are nearly copies of training images.

A generated image counts as memorized if it is nearer to its nearest training image than
that image is to its own nearest other training image. Distances are Euclidean, between
pixels or features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from gan_jax.evaluation.metrics.neighbors import BLOCK_SIZE, nearest_neighbors

SHOWN = 3  # nearest training images that are kept for each generated image
MIN_IMAGES = 4  # two in each half of the real images


class Memorization(NamedTuple):
  """The nearest training images of each generated image."""

  nearest: Int[np.ndarray, 'n k']  # indices of training images, nearest first
  # Distance to the nearest training image over that image's distance to its own nearest
  # one that differs from it; below 1: memorized.
  ratio: Float[np.ndarray, ' n']
  real_share: float  # share of one half of the real images, with the other as training

  @property
  def share(self) -> float:
    """Share of the generated images that are memorized, in [0, 1]."""
    return float((self.ratio < 1).mean())


def measure_memorization(
  real: Sequence[Num[np.ndarray, 'm d']],
  fake: Sequence[Num[np.ndarray, 'n d']],
  block_size: int = BLOCK_SIZE,
) -> Memorization:
  """Nearest training images by pixels or features.

  Copies of an image within the training data are not its neighbors: otherwise nothing
  could be nearer to it, and nothing would count as memorized.

  Args:
    real: training images, at least MIN_IMAGES, and possibly their mirror images.
    fake: generated images, and their mirror images if `real` has them. What is nearest
      in one of the two ways counts.
    block_size: points per block of distances; changes memory, not results.
  """
  images = real[0]
  _, real_ratio = _nearest(images[::2], [x[1::2] for x in real], block_size)
  nearest, ratio = _nearest(images, fake, block_size)
  return Memorization(nearest, ratio, float((real_ratio < 1).mean()))


def _nearest(
  real: np.ndarray, queries: Sequence[np.ndarray], block_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """`nearest` and `ratio` of a Memorization; an array of queries per orientation."""
  k = min(SHOWN, len(real))
  all_rows, all_ratios = [], []
  for query in queries:
    found = nearest_neighbors(query, real, k, block_size=block_size)
    which, inverse = np.unique(found.rows[:, 0], return_inverse=True)
    own = nearest_neighbors(real[which], real, block_size=block_size, skip_equal=True)
    all_rows.append(found.rows)
    all_ratios.append(np.sqrt(found.square[:, 0] / own.square[inverse, 0]))
  rows, ratios = np.stack(all_rows), np.stack(all_ratios)
  smallest = ratios.argmin(0), np.arange(ratios.shape[1])
  return rows[smallest], ratios[smallest]


def most_suspicious(results: list[Memorization], n: int) -> Int[np.ndarray, ' n']:
  """Indices of the n generated images of smallest ratios, of all results in turn."""
  ranked = np.stack([np.argsort(x.ratio, kind='stable') for x in results], 1)
  return np.array(list(dict.fromkeys(ranked.ravel().tolist()))[:n], np.int64)
