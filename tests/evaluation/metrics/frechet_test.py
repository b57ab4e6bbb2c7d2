"""Frechet distances against the textbook formula, over all images and by class."""

import numpy as np
import pytest
from scipy import linalg

from gan_jax import UserError
from gan_jax.evaluation.metrics import frechet


def test_frechet_distance_is_the_textbook_formula(rng_seed, statistics_of):
  rng = np.random.default_rng(rng_seed)
  mix = rng.normal(size=(6, 6))
  a, b = rng.normal(size=(200, 6)), 1 + rng.normal(size=(150, 6)) @ mix
  a, b = a.astype(np.float32), b.astype(np.float32)
  x, y = statistics_of(a), statistics_of(b)
  root = linalg.sqrtm(x.covariance @ y.covariance).real
  shift = x.mean - y.mean
  expected = shift @ shift + np.trace(x.covariance + y.covariance - 2 * root)
  assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
  assert frechet.frechet_distance_of_rows(a, b) == pytest.approx(expected, rel=1e-9)
  assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
  # With fewer rows than dimensions, both implementations agree too.
  few = frechet.frechet_distance(statistics_of(a[:4]), statistics_of(b[:5]))
  few_rows = frechet.frechet_distance_of_rows(a[:4], b[:5])
  assert few_rows == pytest.approx(few, rel=1e-7)


def test_intra_class_distance_sees_swapped_classes(statistics_of):
  rng = np.random.default_rng(0)
  labels = np.arange(120, dtype=np.int32) % 3
  centers = 10 * np.eye(3, 4, dtype=np.float32)
  draw = lambda y: centers[y] + rng.normal(size=(len(y), 4)).astype(np.float32)
  real, right, swapped = (
    statistics_of(draw(y), 120, labels=labels)
    for y in (labels, labels, (labels + 1) % 3)
  )
  # All images together have the same distribution, single classes do not.
  assert frechet.frechet_distance(real, swapped) < 1
  assert frechet.intra_class_frechet(real, right) < 1
  assert frechet.intra_class_frechet(real, swapped) == pytest.approx(200, rel=0.1)
  few = statistics_of(draw(labels[:3]), 3, labels=labels[:3])
  with pytest.raises(UserError, match='class 0 has 40 real and 1 generated'):
    frechet.intra_class_frechet(real, few)


def test_too_few_images_are_an_error():
  with pytest.raises(UserError, match='4 real images .* rank 3 .* at least 65 images'):
    frechet.require_full_rank(4, 64, 'real')
