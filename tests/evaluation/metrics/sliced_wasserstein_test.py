"""Sliced Wasserstein distance: parts of a stream, memory, and errors."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics.sliced_wasserstein import (
  PatchStatistics,
  level_sizes,
  sliced_wasserstein_distances,
)


def test_parts_of_a_stream_give_the_distance_of_all_images(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real, fake = rng.integers(0, 256, (2, 12, 32, 32, 1), np.uint8)

  def collected(images, *boundaries):
    parts = []
    for first, last in zip(boundaries[:-1], boundaries[1:], strict=True):
      part = PatchStatistics(max_images=10, first=first)
      for i in range(first, last, 3):
        part.update(images[i : min(i + 3, last)])
      parts.append(part)
    for part in parts[1:]:
      parts[0].merge(part)
    return PatchStatistics.restore(parts[0].arrays())

  real_statistics = collected(real, 0, 12)
  distances = sliced_wasserstein_distances(real_statistics, collected(fake, 0, 12))
  in_parts = sliced_wasserstein_distances(
    collected(real, 0, 5, 12), collected(fake, 0, 12)
  )
  np.testing.assert_allclose(in_parts, distances)
  assert len(distances) == 3 and min(distances) > 1
  same = sliced_wasserstein_distances(real_statistics, collected(real, 0, 12))
  assert same == [0, 0, 0]
  with pytest.raises(UserError, match='10 real and 5 generated'):
    sliced_wasserstein_distances(real_statistics, collected(fake, 0, 5))


def test_memory_does_not_grow_with_the_stream(rng_seed):
  rng = np.random.default_rng(rng_seed)
  images = rng.integers(0, 256, (24, 32, 32, 3), np.uint8)

  def size(times):
    statistics = PatchStatistics(max_images=16)
    for _ in range(times):
      statistics.update(images)
    assert statistics.n == 16
    return sum(x.nbytes for x in statistics.arrays().values())

  assert size(1) == size(20)


def test_a_resolution_without_a_pyramid_is_an_error():
  with pytest.raises(UserError, match='24 pixels'):
    level_sizes((24, 24))
