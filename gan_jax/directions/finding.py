"""Directions from weights or from latents: vectors of length 1, and their scales.

SeFa (Shen and Zhou 2021, arXiv:2007.06600), GANSpace (Härkönen et al. 2020,
arXiv:2004.02546), linear boundaries (InterFaceGAN, Shen et al. 2020, arXiv:2005.09635).
"""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax import UserError


class Found(NamedTuple):
  """k directions, the strongest first."""

  vectors: Float[np.ndarray, 'k d']  # of length 1
  scales: Float[np.ndarray, ' k']  # lengths of a step of strength 1
  values: Float[np.ndarray, ' k']  # eigenvalues or variances


def factorize(kernels: Sequence[Float[np.ndarray, 'd outputs']]) -> Found:
  """Directions that change the outputs of linear layers most, in closed form: SeFa.

  Each output's weights are scaled to length 1, as in the original code, so neither
  the scale of a layer nor biases matter. The scale of all directions is 1.

  Args:
    kernels: of the chosen layers; their outputs are joined.
  """
  weights = np.concatenate([np.asarray(x, np.float64) for x in kernels], 1)
  norms = np.linalg.norm(weights, axis=0)
  weights = weights[:, norms > 0] / norms[norms > 0]
  values, vectors = np.linalg.eigh(weights @ weights.T)
  return Found(vectors.T[::-1], np.ones(len(values)), values[::-1])


def principal_components(x: Float[np.ndarray, 'n d']) -> Found:
  """PCA; the scale of a direction is the standard deviation along it."""
  values, vectors = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False))
  values = np.maximum(values[::-1], 0)
  return Found(vectors.T[::-1], np.sqrt(values), values)


def feature_components(
  z: Float[np.ndarray, 'n d'], kernel: Float[np.ndarray, 'd outputs']
) -> Found:
  """The changes of z that go with the principal components of a layer's features.

  GANSpace, section 2.2: PCA of the features z @ kernel, and for each component the
  linear regression of z on the coordinates along it. Strength 1 is a standard deviation
  of the coordinate. Here both are computed from the covariance of z, without the
  features themselves, which may have 100 times more entries than z. Entries of z that
  the layer does not take stay as they are.
  """
  kernel = np.asarray(kernel, np.float64)
  used = np.flatnonzero(np.abs(kernel).sum(1))
  factor = np.linalg.cholesky(np.cov(z[:, used].astype(np.float64), rowvar=False))
  left, singular, _ = np.linalg.svd(factor.T @ kernel[used], full_matrices=False)
  changes = np.zeros((len(singular), len(kernel)))
  changes[:, used] = (factor @ left).T
  lengths = np.linalg.norm(changes, axis=1)
  return Found(changes / lengths[:, None], lengths, np.square(singular))


def between_centers(
  first: Float[np.ndarray, 'n d'], second: Float[np.ndarray, 'm d']
) -> Found:
  """From the mean of one set to that of the other, which strength 1 reaches.

  Raises:
    UserError: both are at the same place.
  """
  change = second.mean(0, dtype=np.float64) - first.mean(0, dtype=np.float64)
  length = np.linalg.norm(change)
  if not length:
    raise UserError('both sets of latents have the same mean: no direction leads on.')
  return Found(change[None] / length, np.array([length]), np.array([length**2]))


class Boundary(NamedTuple):
  """A linear boundary between two sets of latents."""

  found: Found  # the normal, towards the second set
  accuracy: float  # share of the latents that are on the right side


def boundary(
  first: Float[np.ndarray, 'n d'], second: Float[np.ndarray, 'm d'], seed: int = 0
) -> Boundary:
  """The normal of the plane of a linear support vector machine.

  Strength 1 is the distance of both means along the normal.

  Raises:
    UserError: scikit-learn is not installed.
  """
  if importlib.util.find_spec('sklearn') is None:
    raise UserError(
      "--method=boundary needs scikit-learn: pip install 'gan_jax[scores]'."
    )
  from sklearn.svm import LinearSVC

  x = np.concatenate([first, second]).astype(np.float64)
  y = np.repeat([0, 1], [len(first), len(second)])
  center, spread = x.mean(0), x.std() or 1.0  # of one size, so that it converges
  svm = LinearSVC(class_weight='balanced', max_iter=10_000, random_state=seed)
  svm.fit((x - center) / spread, y)
  normal = svm.coef_[0] / np.linalg.norm(svm.coef_[0])
  distance = float((second.mean(0) - first.mean(0)) @ normal)
  accuracy = float(svm.score((x - center) / spread, y))
  scales = np.array([abs(distance)])
  return Boundary(Found(normal[None], scales, np.square(scales)), accuracy)
