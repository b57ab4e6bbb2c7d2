"""Directions from weights and from latents, against their definitions."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.directions import finding


def aligned(a, b):
  """Largest distance of rows of length 1 that may differ by their sign."""
  return np.abs(1 - np.abs((a * b).sum(1))).max()


def test_the_first_direction_changes_normalized_outputs_most(rng_seed):
  rng = np.random.default_rng(rng_seed)
  kernels = [rng.normal(size=(6, n)) * 10.0**n for n in (3, 5)]
  kernels[0][:, 1] = 0  # an output that is not used
  found = finding.factorize(kernels)
  unit = np.concatenate([np.delete(kernels[0], 1, 1), kernels[1]], 1)
  unit /= np.linalg.norm(unit, axis=0)
  changes = np.square(found.vectors @ unit).sum(1)
  np.testing.assert_allclose(changes, found.values, rtol=1e-9)
  assert (np.diff(changes) <= 1e-9).all()
  np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), atol=1e-9)
  others = rng.normal(size=(200, 6))
  others /= np.linalg.norm(others, axis=1, keepdims=True)
  assert np.square(others @ unit).sum(1).max() <= changes[0]


def test_components_of_features_are_those_of_ganspace(rng_seed):
  """PCA of the features themselves, then the regression of z on the coordinates."""
  rng = np.random.default_rng(rng_seed)
  z, kernel = rng.normal(size=(500, 6)), rng.normal(size=(6, 40))
  kernel[4:] = 0  # entries that the layer does not take
  features = z @ kernel
  features -= features.mean(0)
  _, singular, components = np.linalg.svd(features, full_matrices=False)
  coordinates = features @ components[:4].T
  centered = z - z.mean(0)
  regression = np.linalg.lstsq(coordinates, centered, rcond=None)[0][:, :4]
  deviations = coordinates.std(0, ddof=1)
  want = regression * deviations[:, None]
  found = finding.feature_components(z, kernel)
  assert (found.vectors[:, 4:] == 0).all() and found.vectors.shape == (4, 6)
  np.testing.assert_allclose(found.scales, np.linalg.norm(want, axis=1), rtol=1e-6)
  unit = want / np.linalg.norm(want, axis=1, keepdims=True)
  assert aligned(found.vectors[:, :4], unit) < 1e-6
  np.testing.assert_allclose(found.values, np.square(singular[:4]) / 499, rtol=1e-6)


def test_principal_components_have_their_deviations(rng_seed):
  rng = np.random.default_rng(rng_seed)
  basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
  x = rng.normal(size=(20_000, 3)) * [5, 2, 1] @ basis + 7
  found = finding.principal_components(x)
  np.testing.assert_allclose(found.scales, [5, 2, 1], rtol=0.05)
  assert aligned(found.vectors, basis) < 0.01


def test_between_the_centers_of_two_sets():
  first, second = np.zeros((3, 2)), np.array([[3.0, 0], [3, 8]])
  found = finding.between_centers(first, second)
  np.testing.assert_allclose(found.vectors * found.scales[:, None], [[3, 4]])
  with pytest.raises(UserError, match='the same mean'):
    finding.between_centers(first, first)


def test_a_boundary_leads_to_the_second_set(rng_seed):
  pytest.importorskip('sklearn')
  rng = np.random.default_rng(rng_seed)
  shift = np.array([0, 40.0, 0])
  first = rng.normal(size=(300, 3)) * [9, 1, 1]
  second = rng.normal(size=(100, 3)) * [9, 1, 1] + shift
  found, accuracy = finding.boundary(first, second)
  assert accuracy == 1 and found.vectors[0, 1] > 0.99
  np.testing.assert_allclose(found.scales, 40, atol=2)
