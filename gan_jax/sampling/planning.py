"""From sampling options to images: which latents, which classes, and how they lie."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, UInt8, UInt32

from gan_jax import UserError
from gan_jax.models.base import Phase, StyleBased
from gan_jax.sampling import style_mixing
from gan_jax.sampling.class_names import parse_classes
from gan_jax.sampling.label_vectors import read_label_vectors
from gan_jax.sampling.options import (
  DEFAULT_COLUMNS,
  DEFAULT_FRAMES,
  DEFAULT_SEEDS,
  LAYOUTS,
  MAX_NUMBERS,
  SamplingOptions,
  parse_ranges,
)
from gan_jax.sampling.samplers import labels_from_seeds, latents, run_in_batches

BLANK = -1  # a cell of an image grid without an image


class GeneratorSpec(NamedTuple):
  """What planning needs to know of a generator."""

  n_classes: int = 0
  class_names: tuple[str, ...] = ()
  style: StyleBased | None = None
  res: int = 0  # to sample


class PlannedImages(NamedTuple):
  """Images that are computed while `images` is iterated over."""

  images: Iterator[UInt8[np.ndarray, 'b h w c']]  # batches
  classes: Float[np.ndarray, 'n classes']  # class weights; [n, 1] without classes
  seeds: UInt32[np.ndarray, ' n']
  cells: Int[np.ndarray, 'rows columns']  # of the image grid, see `ImagePlan`
  psi: float = 1.0
  truncation: float = math.inf  # threshold of z

  @property
  def description(self) -> str:
    """What the metadata of an output file says of these images."""
    return f'psi={self.psi:g} truncation={self.truncation:g}'


@dataclasses.dataclass(frozen=True)
class ImagePlan:
  """The latents to draw, and the n images that are made of them.

  The images are those of the latents; or `frames` steps from each latent to the next;
  or, of a style mixing grid, those of the rows and of the columns, then the mixtures.

  Attributes:
    latent_seeds: of the latents; in a style mixing grid the rows, then the columns.
    labels: of the latents, rows of `table`; None: each is drawn from its seed.
    seeds: of the images, for the noise besides z.
    cells: of the image grid: the number of an image, or BLANK.
    frames: steps from one latent to the next; 0: no interpolation.
    closed: the path leads back to the first latent.
    bands: layers that the columns of a style mixing grid give, one entry per band.
    n_rows: of the sources of a style mixing grid.
    only: the image to sample instead of all n.
    table: label vectors float32 [m, n_classes] of --labels; None: labels are classes.
  """

  latent_seeds: list[int]
  labels: list[int] | None
  seeds: UInt32[np.ndarray, ' n']
  cells: Int[np.ndarray, 'rows columns']
  frames: int = 0
  closed: bool = False
  bands: tuple[list[int], ...] = ()
  n_rows: int = 0
  only: int | None = None
  table: Float[np.ndarray, 'm classes'] | None = None

  def frames_of(self, x: Float[np.ndarray, 'k ...']) -> Float[np.ndarray, 'n ...']:
    """Values of the images from those of the latents."""
    return interpolate(x, self.frames, self.closed) if self.frames else x

  def selected(self, x: np.ndarray) -> np.ndarray:
    """The row of the image `only`, or all rows."""
    return x if self.only is None else x[self.only : self.only + 1]


def plan_images(options: SamplingOptions, spec: GeneratorSpec) -> ImagePlan:
  """Checks the options against the generator; computes nothing on a device.

  Raises:
    UserError: the model has no such classes or layers, or there are too few seeds.
  """
  seeds, labels = _requested_seeds(options), _requested_labels(options, spec)
  table = None
  if options.labels:
    table = read_label_vectors(options.labels, spec.n_classes)
    labels = list(range(len(table)))
  if not (options.grid or options.interpolate == 'class'):
    _check_turns(options, labels, seeds)
  if options.interpolate:
    plan = _plan_interpolation(options, spec, seeds, labels)
  elif options.mix:
    plan = _plan_mixing(options, spec, seeds, labels)
  elif options.grid:
    rows = labels or list(range(spec.n_classes))
    _check_count(options, len(rows) * len(seeds))
    plan = _plan_rows(seeds * len(rows), np.repeat(rows, len(seeds)), len(seeds))
  else:
    columns = options.columns or DEFAULT_COLUMNS
    plan = _plan_rows(seeds, np.resize(labels, len(seeds)) if labels else None, columns)
  plan = dataclasses.replace(plan, table=table)
  return plan if options.only is None else _with_only(plan, options)


def _requested_seeds(options: SamplingOptions) -> list[int]:
  if options.num is not None:
    return list(range(options.num))
  if options.seeds is None and options.interpolate == 'class':
    return [0]
  return parse_ranges(
    DEFAULT_SEEDS if options.seeds is None else options.seeds, 'seeds'
  )


def _requested_labels(options: SamplingOptions, spec: GeneratorSpec) -> list[int]:
  """The labels in `options.classes`; none: each seed has its own."""
  if not spec.n_classes:
    for name in options.changed(('classes', 'labels', 'grid')):
      raise UserError(f'--{name}: this model has no classes.')
    if options.interpolate == 'class':
      raise UserError('--interpolate=class: this model has no classes.')
  if not options.classes:
    return []
  return parse_classes(options.classes, spec.n_classes, spec.class_names)


def _check_turns(options: SamplingOptions, labels: list[int], seeds: list[int]) -> None:
  """
  Raises:
    UserError: there are more classes than seeds to assign them to.
  """
  n = max(len(seeds), len(parse_ranges(options.mix, 'mix')) if options.mix else 0)
  name = 'labels' if options.labels else 'classes'
  if len(labels) > n:
    raise UserError(
      f'--{name}={vars(options)[name]}: {len(labels)} {name} are assigned in turn, and '
      f'there are only {n} seeds; give more, or --grid for each of them with each seed.'
    )


def _check_count(options: SamplingOptions, n: int) -> None:
  """
  Raises:
    UserError: n images would not fit in memory.
  """
  if n > MAX_NUMBERS:
    (layout,) = options.changed(LAYOUTS)
    raise UserError(f'--{layout}: that is {n} images, and {MAX_NUMBERS} are allowed.')


def _plan_rows(seeds: list[int], labels: np.ndarray | None, columns: int) -> ImagePlan:
  """One image per latent, row by row."""
  return ImagePlan(
    seeds,
    None if labels is None else labels.tolist(),
    np.array(seeds, np.uint32),
    row_major(len(seeds), columns),
  )


def _plan_interpolation(
  options: SamplingOptions, spec: GeneratorSpec, seeds: list[int], labels: list[int]
) -> ImagePlan:
  """The path through the seeds, or through the classes at one seed.

  Every latent on the path is shown once. A path that ends where it began is closed, as
  one with --loop: its last image is the one before the first latent.
  """
  if options.interpolate == 'class':
    if len(seeds) > 1:
      raise UserError(
        f'--interpolate=class goes from class to class at one seed, not {len(seeds)}: '
        'give one seed, and the classes as --classes=A,B,C.'
      )
    labels = labels or list(range(spec.n_classes))
    seeds = seeds * len(labels)
  elif labels:
    labels = np.resize(labels, len(seeds)).tolist()
  stations = list(zip(seeds, labels or seeds, strict=True))
  if len(set(stations)) < 2:
    kind = 'classes' if options.interpolate == 'class' else 'seeds'
    raise UserError(
      f'--interpolate={options.interpolate} needs at least two {kind} that differ.'
    )
  frames = options.frames or DEFAULT_FRAMES
  n_images = n_frames(stations, frames, options.loop)
  _check_count(options, n_images)
  is_round = stations[0] == stations[-1]
  n = len(stations) - is_round
  # A row from each latent to the next; of two latents one row with both.
  columns = options.columns or (n_images if n_images == frames + 1 else frames)
  return ImagePlan(
    latent_seeds=seeds[:n],
    labels=labels[:n] or None,
    # One noise for all images, so that only what is interpolated changes.
    seeds=np.full(n_images, seeds[0], np.uint32),
    cells=row_major(n_images, columns),
    frames=frames,
    closed=options.loop or is_round,
  )


def n_frames(stations: Sequence[Any], frames: int, loop: bool = False) -> int:
  """The number of images of a path with `frames` steps from each station to the next.

  A path that ends where it began, or is to go back there, has no second image of its
  first station.
  """
  n = len(stations)
  if n > 1 and stations[0] == stations[-1]:
    return (n - 1) * frames
  return n * frames if loop else max(n - 1, 0) * frames + 1


def _plan_mixing(
  options: SamplingOptions, spec: GeneratorSpec, seeds: list[int], labels: list[int]
) -> ImagePlan:
  """The sources in the first column and row, and a mixture for each pair and band."""
  if spec.style is None:
    raise UserError('--mix is for a StyleGAN, which this model is not.')
  columns = parse_ranges(options.mix, 'mix')
  bands = style_mixing.parse_mix_layers(options.mix_layers, spec.style, spec.res)
  r, c, b = len(seeds), len(columns), len(bands)
  _check_count(options, r + c + b * r * c)
  cells = np.full((1 + b * r, 1 + c), BLANK)
  cells[0, 1:] = r + np.arange(c)
  cells[1:, 0] = np.tile(np.arange(r), b)
  cells[1:, 1:] = r + c + np.arange(b * r * c).reshape(b * r, c)
  turns = [np.resize(labels, n).tolist() for n in (r, c)] if labels else []
  return ImagePlan(
    latent_seeds=seeds + columns,
    labels=sum(turns, []) or None,
    seeds=np.array(seeds + columns + list(np.repeat(seeds, c)) * b, np.uint32),
    cells=cells,
    bands=tuple(bands),
    n_rows=r,
  )


def _with_only(plan: ImagePlan, options: SamplingOptions) -> ImagePlan:
  """
  Raises:
    UserError: there is no such image, or the images are a style mixing grid.
  """
  n = len(plan.seeds)
  if options.mix:
    raise UserError(f'--only={options.only}: not possible for a style mixing grid.')
  if not 0 <= (options.only or 0) < n:
    raise UserError(f'--only={options.only}: images are 0-{n - 1}.')
  return dataclasses.replace(plan, only=options.only, cells=row_major(1, 1))


def row_major(n: int, columns: int) -> Int[np.ndarray, 'rows columns']:
  """The cells of an image grid of n images row by row, without empty columns."""
  columns = min(columns, n)
  cells = np.full(-(-n // columns) * columns, BLANK)
  cells[:n] = np.arange(n)
  return cells.reshape(-1, columns)


def resolve_resolution(requested: int, phase: Phase) -> tuple[int, ArrayLike]:
  """The resolution to sample, and how far it has faded in.

  Args:
    requested: 0 for the present resolution of the run.

  Raises:
    UserError: the generator has no such resolution.
  """
  if not requested or requested == phase.res:
    return phase.res, phase.alpha
  if requested > phase.res or requested < 4 or requested & (requested - 1):
    raise UserError(
      f'--res={requested}: this run has come to {phase.res}; allowed are that and, of '
      'a growing GAN, the powers of two from 4 on below it.'
    )
  return requested, 1.0


def draw_latents(
  plan: ImagePlan, batch: int, truncation: float, dim_z: int, n_classes: int
) -> tuple[Float[np.ndarray, 'k dim_z'], Float[np.ndarray, 'k classes']]:
  """z and class weights of the plan's latents; class weights [k, 1] without classes."""
  seeds = np.array(plan.latent_seeds, np.uint32)
  batch = min(batch, len(seeds))  # as in the sampler, so that z has its shape
  draw = lambda seeds: latents(seeds, dim_z, truncation)
  z = np.concatenate(list(run_in_batches(draw, [seeds], batch)))
  if plan.labels is None:
    draw = lambda seeds: labels_from_seeds(seeds, n_classes)
    labels = np.concatenate(list(run_in_batches(draw, [seeds], batch)))
  else:
    labels = np.array(plan.labels)
  if plan.table is not None:
    return z, plan.table[labels]
  return z, np.eye(max(n_classes, 1), dtype=np.float32)[labels]


def interpolate(
  x: Float[np.ndarray, 'n ...'], frames: int, closed: bool = False
) -> Float[np.ndarray, 'm ...']:
  """Linear steps from each row to the next, each row once.

  Returns:
    [(n - 1) * frames + 1, ...]; closed, with the way back to the first row, which is
    not repeated: [n * frames, ...].
  """
  t = (np.arange(frames) / frames).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
  following = np.roll(x, -1, 0)
  steps = [a + t * (b - a) for a, b in zip(x, following, strict=True)]
  if not closed:
    steps[-1] = x[-1:]
  return np.concatenate(steps)


def noise_seeds(options: SamplingOptions, plan: ImagePlan) -> UInt32[np.ndarray, ' n']:
  """The seeds of the noise besides z."""
  if options.noise_seed is None:
    return plan.seeds
  return np.full(len(plan.seeds), options.noise_seed, np.uint32)
