"""From sampling options to the inputs of a sampler: one row for each image."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt32

from gan_jax import UserError
from gan_jax.sampling.options import SamplingOptions, parse_ranges
from gan_jax.sampling.samplers import labels_from_seeds, latents, run_in_batches


class LatentSpec(Protocol):
  """The properties of a generator that planning needs."""

  @property
  def dim_z(self) -> int: ...

  @property
  def n_classes(self) -> int: ...


class SamplerInputs(NamedTuple):
  """The inputs of n images, and how to lay the images out."""

  z: Float[np.ndarray, 'n dim_z']
  classes: Float[np.ndarray, 'n classes']  # class weights; [n, 1] without classes
  seeds: UInt32[np.ndarray, ' n']  # of the noise besides z
  columns: int  # of the image grid


def plan_inputs(
  options: SamplingOptions, spec: LatentSpec, seeds: str = ''
) -> SamplerInputs:
  """The sampler inputs of the seeds, or of the interpolation between them.

  z and classes of an interpolation in w are those of its ends: w is interpolated after
  the mapping network.

  Args:
    seeds: ranges that replace `options.seeds`.

  Raises:
    UserError: the model has no such classes, or there are too few seeds.
  """
  numbers = _seeds(options, seeds or options.seeds)
  labels = _requested_labels(options, spec)
  one_hot = np.eye(max(spec.n_classes, 1), dtype=np.float32)
  seed_array = np.array(numbers, np.uint32)
  batch = min(options.batch, len(numbers))  # as in the sampler, so that z has its shape
  draw = lambda seeds: latents(seeds, spec.dim_z, options.truncation)
  z = np.concatenate(list(run_in_batches(draw, [seed_array], batch)))
  if options.grid:
    rows, columns = labels or list(range(spec.n_classes)), len(numbers)
    return SamplerInputs(
      np.tile(z, (len(rows), 1)),
      one_hot[np.repeat(rows, columns)],
      np.tile(seed_array, len(rows)),
      columns,
    )
  if labels:
    classes = one_hot[np.resize(labels, len(numbers))]
  else:
    draw = lambda seeds: labels_from_seeds(seeds, spec.n_classes)
    classes = one_hot[np.concatenate(list(run_in_batches(draw, [seed_array], batch)))]
  inputs = SamplerInputs(z, classes, seed_array, options.columns)
  return _interpolated(inputs, options) if options.interpolate else inputs


def _seeds(options: SamplingOptions, text: str) -> list[int]:
  return list(range(options.num)) if options.num else parse_ranges(text, 'seeds')


def _requested_labels(options: SamplingOptions, spec: LatentSpec) -> list[int]:
  """The labels in `options.classes`; none: each seed has its own."""
  labels = parse_ranges(options.classes, 'classes') if options.classes else []
  for name in options.changed(('classes', 'grid')):
    if not spec.n_classes:
      raise UserError(f'--{name}: this model has no classes.')
  if labels and max(labels) >= spec.n_classes:
    raise UserError(f'--classes={options.classes}: classes are 0-{spec.n_classes - 1}.')
  return labels


def _interpolated(inputs: SamplerInputs, options: SamplingOptions) -> SamplerInputs:
  """The frames between neighbouring rows, each pair a row of the image grid."""
  z, classes, seeds, _ = inputs
  frames = options.frames
  if len(z) < 2:
    raise UserError('--interpolate needs at least two seeds.')
  # One noise for all frames, so that only what is interpolated changes.
  seeds = np.repeat(seeds[:1], (len(z) - 1) * frames)
  if options.interpolate == 'w':
    return SamplerInputs(z, classes, seeds, frames)
  classes = interpolate(classes, frames)
  if options.interpolate == 'z':
    z = interpolate(z, frames)
  else:
    z = np.repeat(z[:1], len(classes), 0)
  return SamplerInputs(z, classes, seeds, frames)


def interpolate(
  x: Float[np.ndarray, 'n ...'], frames: int
) -> Float[np.ndarray, 'm ...']:
  """[n, ...] -> [(n - 1) * frames, ...]: linear, ends included, from each row to the
  next."""
  t = np.linspace(0, 1, frames, dtype=np.float32)
  t = t.reshape(-1, *[1] * (x.ndim - 1))
  pairs = zip(x[:-1], x[1:], strict=True)
  return np.concatenate([(1 - t) * a + t * b for a, b in pairs])


def noise_seeds(
  options: SamplingOptions, inputs: SamplerInputs
) -> UInt32[np.ndarray, ' n']:
  """The seeds of the noise besides z."""
  if options.noise_seed is None:
    return inputs.seeds
  return np.full(len(inputs.seeds), options.noise_seed, np.uint32)


def select_image(
  options: SamplingOptions, rows: list[np.ndarray], inputs: SamplerInputs
) -> tuple[list[np.ndarray], SamplerInputs]:
  """Applies `options.only`: the rows of one image, or all of them.

  Args:
    rows: inputs of the jitted sampler, each with one row per image.

  Raises:
    UserError: there is no such image, or the images are a style mixing grid.
  """
  if options.only is None:
    return rows, inputs
  n = len(rows[0])
  if options.mix:
    raise UserError(f'--only={options.only}: not possible for a style mixing grid.')
  if not 0 <= options.only < n:
    raise UserError(f'--only={options.only}: images are 0-{n - 1}.')
  index = slice(options.only, options.only + 1)
  inputs = inputs._replace(
    classes=inputs.classes[index], seeds=inputs.seeds[index], columns=1
  )
  return [x[index] for x in rows], inputs
