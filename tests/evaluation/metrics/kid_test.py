"""Kernel inception distance: the unbiased estimate, and its error."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import kid


def test_one_subset_of_all_rows_is_the_unbiased_estimate(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real, fake = rng.normal(size=(2, 20, 5)).astype(np.float32)
  mean, std = kid.kernel_distance(real, fake, subsets=3, size=20)
  kernel = lambda x, y: (x.astype(float) @ y.astype(float).T / 5 + 1) ** 3
  within = [
    sum(k[i, j] for i in range(20) for j in range(20) if i != j) / (20 * 19)
    for k in (kernel(real, real), kernel(fake, fake))
  ]
  expected = sum(within) - 2 * kernel(fake, real).mean()
  assert mean == pytest.approx(expected, rel=1e-9, abs=1e-9)
  assert std == pytest.approx(0, abs=1e-9)


def test_a_subset_larger_than_a_set_is_an_error():
  rows = np.ones((4, 3), np.float32)
  with pytest.raises(UserError, match='subsets of 9 images'):
    kid.kernel_distance(rows, rows, size=9)


def test_subsets_are_those_of_the_seed(rng_seed):
  real, fake = np.random.default_rng(rng_seed).normal(size=(2, 30, 4))
  means = [kid.kernel_distance(real, fake, 3, 10, seed)[0] for seed in (2020, 7, 7)]
  assert means[0] == kid.kernel_distance(real, fake, 3, 10)[0]
  assert means[1] == means[2] != means[0]
