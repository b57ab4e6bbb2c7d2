"""Precision and recall for distributions."""

import numpy as np
import pytest

from gan_jax.evaluation.metrics import prd


@pytest.mark.parametrize(
  'fake, real, f8, f1_8',
  [
    ([0.25] * 4, [0.25] * 4, 1, 1),
    ([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], 0, 0),
    # Half of the data is missing: recall of at most 1/2 at full precision.
    ([1, 0], [0.5, 0.5], 65 / 2 / (64 + 0.5) * 1, 0.98484848),
  ],
)
def test_f_scores_of_histograms(fake, real, f8, f1_8):
  scores = prd.f_scores(prd.prd_curve(np.array(fake), np.array(real)))
  np.testing.assert_allclose(scores, (f8, f1_8), rtol=2e-3)


def test_scores_tell_what_is_missing_from_what_is_wrong(rng_seed):
  rng = np.random.default_rng(rng_seed)
  centers = rng.normal(0, 50, (10, 4))
  draw = lambda which: (centers[which] + rng.normal(0, 0.1, (200, 4))).astype('f')
  real = draw(np.arange(200) % 10)
  scores = {
    name: prd.f_scores(prd.prd(draw(which), real, clusters=10, runs=1))
    for name, which in (
      ('all', np.arange(200) % 10),
      ('half', np.arange(200) % 5),
    )
  }
  outside = draw(np.arange(200) % 10)
  outside[:100] += 1000
  scores['wrong'] = prd.f_scores(prd.prd(outside, real, clusters=20, runs=1))
  assert min(scores['all']) > 0.99
  assert scores['half'].f8 < 0.6 < 0.95 < scores['half'].f1_8
  assert scores['wrong'].f1_8 < 0.6 < 0.95 < scores['wrong'].f8


def test_sets_are_cut_to_one_size_and_runs_repeat(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real, fake = rng.normal(0, 1, (2, 60, 3)).astype('f')
  short = prd.prd(fake[:40], real, clusters=4, runs=2, angles=11)
  again = prd.prd(fake, real[:40], clusters=4, runs=2, angles=11)
  np.testing.assert_array_equal(short, again)
  assert short.precision.shape == (11,)
