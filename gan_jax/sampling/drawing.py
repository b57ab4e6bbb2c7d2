"""z and class weights of planned images: from seeds of JAX or NumPy, or from a file."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, UInt32

from gan_jax.models.base import SamplingDefaults
from gan_jax.sampling import directions
from gan_jax.sampling.latents import Latents
from gan_jax.sampling.options import NUMPY, SamplingOptions
from gan_jax.sampling.planning import DRAWN, ImagePlan, Sources
from gan_jax.sampling.samplers import labels_from_seeds, latents, run_in_batches


class Job(NamedTuple):
  """Everything that decides planned images, besides the weights."""

  options: SamplingOptions
  plan: ImagePlan
  z: Float[np.ndarray, 'k dim_z']
  classes: Float[np.ndarray, 'k classes']
  given: Latents | None  # what the plan's sources may name
  steps: Sequence[directions.Step]
  psi: float
  res: int
  alpha: ArrayLike


class Drawn(NamedTuple):
  """How n planned images are computed."""

  draw: Callable[..., ArrayLike]  # of batches of `rows`
  rows: list[np.ndarray]  # [n, ...] each
  classes: Float[np.ndarray, 'n classes']
  latents: Latents  # of the images, without what does not depend on the family


def resolve_truncation(
  options: SamplingOptions, defaults: SamplingDefaults, latents: Latents | None = None
) -> tuple[float, float]:
  """psi, and the threshold for z, of the options, of the latents or by default.

  NumPy's seeds have the threshold that the original code draws them with.
  """
  psi, truncation = options.psi, options.truncation
  if latents is not None:
    given = 1.0 if latents.psi is None and latents.space != 'z' else latents.psi
    psi = given if psi is None else psi
    truncation = latents.truncation if truncation is None else truncation
  elif truncation is None and (options.seeds or '').startswith(NUMPY):
    truncation = defaults.scaled_truncation
  return defaults.resolve(psi, truncation)


def draw_latents(
  plan: ImagePlan,
  batch: int,
  truncation: float,
  dim_z: int,
  n_classes: int,
  given: Latents | None = None,
) -> tuple[Float[np.ndarray, 'k dim_z'], Float[np.ndarray, 'k classes']]:
  """z and class weights of the plan's latents; class weights [k, 1] without classes.

  Args:
    given: the file that sources name; z of its rows is zero if it holds w.
  """

  def z_of(sources: Sources) -> np.ndarray:
    if sources.origin == 'numpy':
      return numpy_latents(sources.numbers, dim_z, truncation)
    if sources.origin == 'file':
      assert given is not None
      if given.space != 'z':
        return np.zeros((len(sources.numbers), dim_z), np.float32)
      return given.values[sources.numbers]
    seeds = np.array(sources.numbers, np.uint32)
    draw = lambda seeds: latents(seeds, dim_z, truncation)
    return np.concatenate(list(run_in_batches(draw, [seeds], size)))

  seeds = plan.noise_seeds
  size = min(batch, len(seeds))  # as in the sampler, so that z has its shape
  z = np.concatenate([z_of(sources) for sources in plan.sources])
  labels = np.array(plan.labels or [DRAWN] * len(seeds))
  weights = np.eye(max(n_classes, 1), dtype=np.float32)
  chosen = (weights if plan.table is None else plan.table)[labels]
  if (labels == DRAWN).any():
    draw = lambda seeds: labels_from_seeds(seeds, n_classes)
    drawn = np.concatenate(list(run_in_batches(draw, [seeds], size)))
    chosen = np.where((labels == DRAWN)[:, None], weights[drawn], chosen)
  return z, chosen


def numpy_latents(
  seeds: Sequence[int], dim_z: int, truncation: float = math.inf
) -> Float[np.ndarray, 'n dim_z']:
  """z of each seed as the original codes draw it for their figures.

  Without truncation `RandomState(seed).randn(1, dim_z)`, as in StyleGAN's
  generate_figures.py; else SciPy's truncated normal with this random state, as in
  `truncated_z_sample` of BigGAN's demonstration, whose truncation is psi here.
  """
  from scipy.stats import truncnorm

  rows = []
  for seed in seeds:
    state = np.random.RandomState(seed)
    if math.isinf(truncation):
      rows.append(state.randn(1, dim_z))
    else:
      rows.append(
        truncnorm.rvs(-truncation, truncation, size=(1, dim_z), random_state=state)
      )
  return np.concatenate(rows).astype(np.float32)


def noise_seeds(options: SamplingOptions, plan: ImagePlan) -> UInt32[np.ndarray, ' n']:
  """The seeds of the noise besides z."""
  if options.noise_seed is None:
    return plan.seeds
  return np.full(len(plan.noise_of), options.noise_seed, np.uint32)
