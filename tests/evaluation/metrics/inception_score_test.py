"""Inception score of logits whose score is known."""

import numpy as np
import pytest

from gan_jax.evaluation.metrics.inception_score import (
  InceptionScore,
  shuffled_places,
  split_boundaries,
)


def test_scores_known_by_hand():
  # Two certain, equally frequent classes have the score 2; a single class has 1.
  logits = 100 * np.eye(3)[np.arange(8) % 2]
  score = InceptionScore(split_boundaries(8, 2), 3)
  for part in np.array_split(logits, 3):
    score.update(part)
  assert score.result() == pytest.approx((2, 0))
  halves = InceptionScore([0, 8], 3), InceptionScore([0, 8], 3, first=5)
  halves[0].update(logits[:5])
  halves[1].update(logits[5:])
  halves[0].merge(halves[1])
  assert halves[0].result()[0] == pytest.approx(2) and halves[0].position == 8
  single = InceptionScore([0, 8], 3)
  single.update(logits[[0] * 8])
  assert single.result()[0] == pytest.approx(1)


def test_shuffled_splits_are_those_of_shuffled_logits(rng_seed):
  logits = np.random.default_rng(rng_seed).normal(size=(50, 4))
  expected = InceptionScore(split_boundaries(50, 5), 4)
  expected.update(logits[np.random.RandomState(2020).permutation(50)])
  parts = [
    InceptionScore(split_boundaries(50, 5), 4, first, shuffled_places(50, 2020))
    for first in (0, 20)
  ]
  parts[0].update(logits[:7])
  parts[0].update(logits[7:20])
  parts[1].update(logits[20:])
  parts[0].merge(parts[1])
  assert parts[0].result() == pytest.approx(expected.result(), rel=1e-12)


def test_memory_does_not_grow_with_the_stream():
  def size(times):
    score = InceptionScore([0, 1000], 4)
    for _ in range(times):
      score.update(np.zeros((50, 4)))
    return sum(x.nbytes for x in score.arrays().values())

  assert size(1) == size(20)
