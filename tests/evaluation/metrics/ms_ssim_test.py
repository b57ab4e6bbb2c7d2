"""MS-SSIM of pairs: identity, streams, and errors."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics.ms_ssim import PairSimilarity, ms_ssim


def test_parts_of_a_stream_give_the_mean_of_its_pairs(rng_seed):
  rng = np.random.default_rng(rng_seed)
  images = rng.integers(0, 256, (7, 32, 64, 1), np.uint8)
  np.testing.assert_allclose(ms_ssim(images, images), 1, atol=1e-9)
  similarity = PairSimilarity(max_images=7)
  for part in np.array_split(images, 3):
    similarity.update(part)
  expected = ms_ssim(images[:6:2], images[1:6:2]).mean()
  assert similarity.result() == pytest.approx(expected, abs=1e-12)
  assert similarity.pairs == 3


def test_memory_does_not_grow_with_the_stream(rng_seed):
  rng = np.random.default_rng(rng_seed)
  images = rng.integers(0, 256, (24, 32, 32, 3), np.uint8)

  def size(times):
    similarity = PairSimilarity(max_images=16)
    for _ in range(times):
      similarity.update(images)
    assert similarity.pairs == 8
    return sum(x.nbytes for x in similarity.arrays().values())

  assert size(1) == size(20)


def test_sides_that_are_no_multiple_of_32_are_an_error():
  with pytest.raises(UserError, match='images of 64 x 48 pixels'):
    ms_ssim(np.zeros((1, 48, 64, 3)), np.zeros((1, 48, 64, 3)))
