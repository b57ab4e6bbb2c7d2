"""Kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401)."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from gan_jax import UserError

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polynomial_kernel(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']
) -> Float[np.ndarray, 'n m']:
  """(x.y / d + 1)^3 in float64."""
  base = x.astype(np.float64) @ y.astype(np.float64).T
  base /= x.shape[1]
  base += 1
  return base * base * base  # faster than ** 3, for which numpy calls pow


def squared_mmd(
  x: Float[np.ndarray, 'n d'],
  y: Float[np.ndarray, 'm d'],
  kernel: Kernel = polynomial_kernel,
) -> float:
  """Unbiased estimate of the squared maximum mean discrepancy; may be negative."""

  def within(x: np.ndarray) -> float:
    k = kernel(x, x)
    return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

  return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def subset_indices(
  n_fake: int, n_real: int, subsets: int, size: int, seed: int = 2020
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields (fake, real) row indices of each subset, drawn as torch-fidelity does."""
  rng = np.random.RandomState(seed)
  for _ in range(subsets):
    fake = rng.choice(n_fake, size, replace=False)
    yield fake, rng.choice(n_real, size, replace=False)


def kernel_distance(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'm d'],
  subsets: int = 100,
  size: int = 1000,
  seed: int = 2020,
) -> tuple[float, float]:
  """Mean and population standard deviation of `squared_mmd` over random subsets.

  The subsets are drawn from `seed`. Not multiplied by 1000.

  Raises:
    UserError: a subset is larger than a set.
  """
  if size > min(len(real), len(fake)):
    raise UserError(
      f'kid: subsets of {size} images cannot be drawn from {len(real)} real and '
      f'{len(fake)} generated ones; take more images or smaller subsets.'
    )
  indices = subset_indices(len(fake), len(real), subsets, size, seed)
  values = [squared_mmd(fake[i], real[j]) for i, j in indices]
  return float(np.mean(values)), float(np.std(values))
