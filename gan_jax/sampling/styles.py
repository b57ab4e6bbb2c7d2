"""Styles of a StyleGAN's planned images: mapped or given, then mixed and moved.

Truncation, the mapping network and the synthesis network stay with the generator.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.sampling.directions import Step, move_styles
from gan_jax.sampling.latents import Latents
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.planning import ImagePlan
from gan_jax.sampling.style_mixing import mix_styles


class Styles(NamedTuple):
  """What the synthesis network is given for n images."""

  ws: Float[np.ndarray, 'n layers dim_w']
  classes: Float[np.ndarray, 'n classes']
  latents: Latents  # that this was made of


class Mapped(NamedTuple):
  """How z and w become one truncated w per layer."""

  of_z: Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # z, class weights, psi
  of_w: Callable[[np.ndarray, float], np.ndarray]  # w or w_plus, psi
  psi: float  # of seeds


def make_styles(
  options: SamplingOptions,
  plan: ImagePlan,
  z: Float[np.ndarray, 'k dim_z'],
  classes: Float[np.ndarray, 'k classes'],
  given: Latents | None,
  mapped: Mapped,
  steps: Sequence[Step],
  psi: float,
) -> Styles:
  """ws and class weights of all images: truncated, then interpolated, mixed, moved.

  Args:
    given: the latents that the sources of the plan may name.
    psi: of the given latents, or of the seeds if there are none.
  """
  if given is not None and given.space != 'z':
    latents = Latents(given.space, given.values[plan.sources[0].numbers], psi=psi)
    ws = mapped.of_w(latents.values, psi)
    if len(z) > plan.n_rows:  # the columns of a style mixing grid
      others = z[plan.n_rows :], classes[plan.n_rows :]
      ws = np.concatenate([ws, mapped.of_z(*others, mapped.psi)])
  else:
    if options.interpolate in ('z', 'class'):
      z, classes = plan.frames_of(z), plan.frames_of(classes)
    latents = Latents('z', z, psi=psi)
    ws = mapped.of_z(z, classes, psi)
  if options.interpolate == 'w':
    ws, classes = plan.frames_of(ws), plan.frames_of(classes)
  elif options.mix:
    rows, columns = ws[: plan.n_rows], ws[plan.n_rows :]
    of_rows = np.repeat(classes[: plan.n_rows], len(columns), 0)
    ws = np.concatenate([ws, mix_styles(rows, columns, plan.bands)])
    classes = np.concatenate([classes, *[of_rows] * len(plan.bands)])
  if steps or options.mix or options.interpolate == 'w':
    ws = move_styles(ws, steps)
    latents = Latents('w_plus', ws, psi=1.0)
  return Styles(ws, classes, latents)
