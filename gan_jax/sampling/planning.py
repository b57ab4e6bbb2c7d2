"""From sampling options to a plan: which latents and classes, and where they lie."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, UInt8, UInt32

from gan_jax import UserError
from gan_jax.models.base import Phase, StyleBased
from gan_jax.sampling import style_mixing
from gan_jax.sampling.class_names import parse_classes
from gan_jax.sampling.label_vectors import read_label_vectors
from gan_jax.sampling.latents import Latents, class_weights
from gan_jax.sampling.options import (
  DEFAULT_COLUMNS,
  DEFAULT_FRAMES,
  DEFAULT_SEEDS,
  LAYOUTS,
  MAX_NUMBERS,
  SamplingOptions,
  Seeds,
  parse_seeds,
)

BLANK = -1  # a cell of an image grid without an image
DRAWN = -1  # a label that is drawn from the seed


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
  latents: Latents  # of which the same options make the same images
  psi: float = 1.0
  truncation: float = math.inf  # threshold of z

  @property
  def description(self) -> str:
    """What the metadata of an output file says of these images."""
    return f'psi={self.psi:g} truncation={self.truncation:g}'


class Sources(NamedTuple):
  """What k latents are made of.

  Attributes:
    numbers: seeds, or rows of a file of latents.
    origin: what they are: seeds of jax.random, seeds of NumPy, or rows.
    noise_seeds: seeds of the noise besides z that goes with each.
  """

  numbers: list[int]
  origin: Literal['seed', 'numpy', 'file']
  noise_seeds: list[int]

  def first(self, n: int) -> 'Sources':
    return Sources(self.numbers[:n], self.origin, self.noise_seeds[:n])


@dataclasses.dataclass(frozen=True)
class ImagePlan:
  """The latents to draw, and the n images that are made of them.

  The images are those of the latents; or `frames` steps from each latent to the next;
  or, of a style mixing grid, those of the rows and of the columns, then the mixtures.

  Attributes:
    sources: of the latents; of a style mixing grid those of the rows and of the
      columns.
    labels: of the latents, rows of `table`; DRAWN or None: from the seeds.
    noise_of: the latent whose noise each image has.
    cells: of the image grid: the number of an image, or BLANK.
    frames: steps from one latent to the next; 0: no interpolation.
    closed: the path leads back to the first latent.
    bands: layers that the columns of a style mixing grid give, one entry per band.
    only: the image to sample instead of all n.
    table: label vectors float32 [m, n_classes]; None: labels are classes.
  """

  sources: tuple[Sources, ...]
  labels: list[int] | None
  noise_of: Int[np.ndarray, ' n']
  cells: Int[np.ndarray, 'rows columns']
  frames: int = 0
  closed: bool = False
  bands: tuple[list[int], ...] = ()
  only: int | None = None
  table: Float[np.ndarray, 'm classes'] | None = None

  @property
  def latent_seeds(self) -> list[int]:
    """Seeds, or rows of a file, of all latents."""
    return [number for source in self.sources for number in source.numbers]

  @property
  def n_rows(self) -> int:
    """Number of latents of the first sources."""
    return len(self.sources[0].numbers)

  @property
  def noise_seeds(self) -> UInt32[np.ndarray, ' k']:
    """Seeds of the noise of all latents."""
    return np.concatenate([np.array(x.noise_seeds, np.uint32) for x in self.sources])

  @property
  def seeds(self) -> UInt32[np.ndarray, ' n']:
    """Seeds of the noise of all images."""
    return self.noise_seeds[self.noise_of]

  def noise_of_file(self, x: Float[np.ndarray, 'm h w 1']) -> np.ndarray:
    """Noise [n, h, w, 1] of the images, from that of the rows of a file of latents.

    Between two latents the noise and its root mean square are interpolated. Images of
    other sources have the noise of the first row.
    """
    rows, *others = (np.array(source.numbers) for source in self.sources)
    if not self.frames:
      padding = [np.full_like(numbers, rows[0]) for numbers in others]
      return x[np.concatenate([rows, *padding])[self.noise_of]]
    size = lambda x: np.sqrt(np.square(x).mean((1, 2, 3), keepdims=True))
    mixed, wanted = self.frames_of(x[rows]), self.frames_of(size(x[rows]))
    return mixed * (wanted / np.maximum(size(mixed), 1e-12))

  def frames_of(self, x: Float[np.ndarray, 'k ...']) -> Float[np.ndarray, 'n ...']:
    """Values of the images from those of the latents."""
    return interpolate(x, self.frames, self.closed) if self.frames else x

  def selected(self, x: np.ndarray) -> np.ndarray:
    """The row of the image `only`, or all rows."""
    return x if self.only is None else x[self.only : self.only + 1]


def plan_images(
  options: SamplingOptions, spec: GeneratorSpec, latents: Latents | None = None
) -> ImagePlan:
  """Checks the options against the generator; computes nothing on a device.

  Args:
    latents: of the images, in place of seeds.

  Raises:
    UserError: the model has no such classes or layers, or there are too few seeds.
  """
  sources = _requested_sources(options, latents)
  labels = column_labels = _requested_labels(options, spec)
  table, by_class = None, options.grid or options.interpolate == 'class'
  if latents is not None and latents.space != 'z':
    _check_mapped(options, latents)
  if options.labels:
    table = read_label_vectors(options.labels, spec.n_classes)
    labels = column_labels = list(range(len(table)))
  elif latents and latents.labels is not None and not (labels or by_class):
    table = class_weights(latents.labels, spec.n_classes)
    labels, column_labels = list(range(len(table))), [DRAWN]
  n = len(sources.numbers)
  if not by_class:
    _check_turns(options, labels, n)
  if options.interpolate:
    plan = _plan_interpolation(options, spec, sources, labels)
  elif options.mix:
    plan = _plan_mixing(options, spec, sources, labels, column_labels)
  elif options.grid:
    rows = labels or list(range(spec.n_classes))
    _check_count(options, len(rows) * n)
    repeated = Sources(
      sources.numbers * len(rows), sources.origin, sources.noise_seeds * len(rows)
    )
    plan = _plan_rows(repeated, np.repeat(rows, n), n)
  else:
    columns = options.columns or DEFAULT_COLUMNS
    plan = _plan_rows(sources, np.resize(labels, n) if labels else None, columns)
  plan = dataclasses.replace(plan, table=table)
  return plan if options.only is None else _with_only(plan, options)


def _requested_sources(options: SamplingOptions, latents: Latents | None) -> Sources:
  """The rows of the latents, or seeds."""
  if latents is not None:
    rows = list(range(len(latents)))
    seeds = rows if latents.seeds is None else latents.seeds.tolist()
    return Sources(rows, 'file', seeds)
  if options.num is not None:
    return seed_sources(Seeds(list(range(options.num)), False))
  if options.seeds is None and options.interpolate == 'class':
    return seed_sources(Seeds([0], False))
  text = DEFAULT_SEEDS if options.seeds is None else options.seeds
  return seed_sources(parse_seeds(text, 'seeds'))


def seed_sources(seeds: Seeds) -> Sources:
  """The sources of latents that are drawn from seeds."""
  return Sources(seeds.numbers, 'numpy' if seeds.numpy else 'seed', seeds.numbers)


def _check_mapped(options: SamplingOptions, latents: Latents) -> None:
  """
  Raises:
    UserError: an option needs z, which w is already mapped from.
  """
  for name in options.changed(('classes', 'labels', 'grid')):
    raise UserError(
      f'--{name}: the latents hold {latents.space}, which has its class in it: leave '
      'it out, or give latents with z.'
    )
  if options.interpolate in ('z', 'class'):
    raise UserError(
      f'--interpolate={options.interpolate}: the latents hold {latents.space}; '
      '--interpolate=w goes from one to the next.'
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


def _check_turns(options: SamplingOptions, labels: list[int], n: int) -> None:
  """
  Raises:
    UserError: there are more classes than n seeds to assign them to.
  """
  n = max(n, len(parse_seeds(options.mix, 'mix').numbers) if options.mix else 0)
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


def _plan_rows(sources: Sources, labels: np.ndarray | None, columns: int) -> ImagePlan:
  """One image per latent, row by row."""
  n = len(sources.numbers)
  return ImagePlan(
    (sources,),
    None if labels is None else labels.tolist(),
    np.arange(n),
    row_major(n, columns),
  )


def _plan_interpolation(
  options: SamplingOptions, spec: GeneratorSpec, sources: Sources, labels: list[int]
) -> ImagePlan:
  """The path through the latents, or through the classes at one latent.

  Every latent on the path is shown once. A path that ends where it began is closed, as
  one with --loop: its last image is the one before the first latent.
  """
  seeds = sources.numbers
  if options.interpolate == 'class':
    if len(seeds) > 1:
      raise UserError(
        f'--interpolate=class goes from class to class at one seed, not {len(seeds)}: '
        'give one seed, and the classes as --classes=A,B,C.'
      )
    labels = labels or list(range(spec.n_classes))
    seeds = seeds * len(labels)
    sources = Sources(seeds, sources.origin, sources.noise_seeds * len(labels))
  elif labels:
    labels = np.resize(labels, len(seeds)).tolist()
  stations = list(zip(seeds, labels or seeds, strict=True))
  if len(set(stations)) < 2:
    kind = 'classes' if options.interpolate == 'class' else 'seeds'
    kind = 'latents' if kind == 'seeds' and sources.origin == 'file' else kind
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
    sources=(sources.first(n),),
    labels=labels[:n] or None,
    # One noise for all images, so that only what is interpolated changes.
    noise_of=np.zeros(n_images, np.int64),
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
  options: SamplingOptions,
  spec: GeneratorSpec,
  rows: Sources,
  row_labels: list[int],
  column_labels: list[int],
) -> ImagePlan:
  """The sources in the first column and row, and a mixture for each pair and band."""
  if spec.style is None:
    raise UserError('--mix is for a StyleGAN, which this model is not.')
  columns = seed_sources(parse_seeds(options.mix, 'mix'))
  bands = style_mixing.parse_mix_layers(options.mix_layers, spec.style, spec.res)
  r, c, b = len(rows.numbers), len(columns.numbers), len(bands)
  _check_count(options, r + c + b * r * c)
  cells = np.full((1 + b * r, 1 + c), BLANK)
  cells[0, 1:] = r + np.arange(c)
  cells[1:, 0] = np.tile(np.arange(r), b)
  cells[1:, 1:] = r + c + np.arange(b * r * c).reshape(b * r, c)
  labels = None
  if row_labels:
    turns = ((row_labels, r), (column_labels, c))
    labels = np.concatenate([np.resize(x, n) for x, n in turns]).tolist()
  mixtures = np.tile(np.repeat(np.arange(r), c), b)
  return ImagePlan(
    sources=(rows, columns),
    labels=labels,
    noise_of=np.concatenate([np.arange(r + c), mixtures]),
    cells=cells,
    bands=tuple(bands),
  )


def _with_only(plan: ImagePlan, options: SamplingOptions) -> ImagePlan:
  """
  Raises:
    UserError: there is no such image, or the images are a style mixing grid.
  """
  n = len(plan.noise_of)
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
