"""What is to be drawn: a request, as a command line says it, and what it means.

A request and its flags are two forms of one thing: `gan_jax.sample` reads one from its
command line, and `gan_jax.explore` writes a command line for each picture it shows.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gan_jax import UserError
from gan_jax.models.base import StyleBased
from gan_jax.sampling.samplers import labels_from_seeds, latents, run_in_batches


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
  """The flags of gan_jax.sample that decide what pictures show, and its defaults."""

  seeds: str = '0-63'
  num: int = 0  # instead: seeds 0 to num - 1
  classes: str = ''  # taken in turn; none: each seed's own
  grid: bool = False
  truncation: float = float('inf')
  psi: float = 1.0
  truncated_layers: int | None = None
  noise: str = 'own'
  noise_seed: int | None = None
  noise_strength: float = 1.0
  mix: str = ''
  mix_layers: str = 'coarse,middle,fine'
  res: int = 0
  standing: int = 16
  interpolate: str | None = None
  frames: int = 8
  only: int | None = None
  columns: int = 8
  batch: int = 64

  def __post_init__(self):
    for name in ('truncation', 'columns', 'batch', 'frames'):
      if not getattr(self, name) > 0:
        raise UserError(f'--{name}={getattr(self, name)}: it must be above 0.')

  @property
  def flags(self) -> list[str]:
    """The command line that asks for this: what differs from the defaults."""
    flags = []
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is True:
        flags.append(f'--{field.name}')
      elif value != field.default:
        flags.append(f'--{field.name}={value}')
    return flags


class LatentSpec(Protocol):
  """What planning has to know of a generator."""

  @property
  def dim_z(self) -> int: ...

  @property
  def n_classes(self) -> int: ...


def parse_ranges(text: str, what: str) -> list[int]:
  """'0-3,8' -> [0, 1, 2, 3, 8].

  Raises:
    UserError: anything else.
  """
  numbers: list[int] = []
  for part in text.split(','):
    first, _, last = part.partition('-')
    if not first.isdigit() or (last and not last.isdigit()):
      raise UserError(f'--{what}={text}: give numbers such as 0-63 or 1,5,9-12.')
    numbers += range(int(first), int(last or first) + 1)
  if not numbers or max(numbers) >= 2**32:
    raise UserError(f'--{what}={text}: numbers go up to {2**32 - 1}, low to high.')
  return numbers


class ImagePlan(NamedTuple):
  """What the arguments ask for, a row for each picture."""

  z: np.ndarray  # [n, dim_z]
  classes: np.ndarray  # weights [n, n_classes]
  seeds: np.ndarray  # uint32 [n]
  columns: int  # of a sheet


def plan_images(request: SamplingOptions, gan: LatentSpec, text: str) -> ImagePlan:
  """The pictures of the seeds in `text`, or those between them.

  Raises:
    UserError: classes that the model does not have, too few seeds.
  """
  if request.num:
    seeds = list(range(request.num))
  else:
    seeds = parse_ranges(text, 'seeds')
  asked = parse_ranges(request.classes, 'classes') if request.classes else []
  if asked and not gan.n_classes:
    raise UserError('--classes: this model knows no classes.')
  if asked and max(asked) >= gan.n_classes:
    raise UserError(f'--classes={request.classes}: classes are 0-{gan.n_classes - 1}.')
  if request.grid and not gan.n_classes:
    raise UserError('--grid: this model knows no classes.')
  one_hot = np.eye(max(gan.n_classes, 1), dtype=np.float32)
  drawn = np.array(seeds, np.uint32)
  batch = min(request.batch, len(drawn))  # of which there is a program already
  draw = lambda seeds: latents(seeds, gan.dim_z, request.truncation)
  z = np.concatenate(list(run_in_batches(draw, [drawn], batch)))
  if request.grid:
    rows = asked or list(range(gan.n_classes))
    tiled, columns = np.tile(drawn, len(rows)), len(seeds)
    return ImagePlan(
      np.tile(z, (len(rows), 1)), one_hot[np.repeat(rows, columns)], tiled, columns
    )
  if asked:
    classes = one_hot[np.resize(asked, len(seeds))]
  else:
    own = lambda seeds: labels_from_seeds(seeds, gan.n_classes)
    classes = one_hot[np.concatenate(list(run_in_batches(own, [drawn], batch)))]
  if not request.interpolate:
    return ImagePlan(z, classes, drawn, request.columns)
  if len(z) < 2:
    raise UserError('--interpolate needs at least two seeds.')
  # One noise for all, so that nothing but the asked for changes.
  noise = np.repeat(drawn[:1], (len(z) - 1) * request.frames)
  if request.interpolate == 'w':  # whose ends are taken when they are mapped
    return ImagePlan(z, classes, noise, request.frames)
  classes = interpolate(classes, request.frames)
  if request.interpolate == 'z':
    z = interpolate(z, request.frames)
  else:
    z = np.repeat(z[:1], len(classes), 0)
  return ImagePlan(z, classes, noise, request.frames)


def interpolate(x: np.ndarray, frames: int) -> np.ndarray:
  """[n, ...] -> [(n - 1) * frames, ...]: straight lines from each to the next."""
  t = np.linspace(0, 1, frames, dtype=np.float32)
  t = t.reshape(-1, *[1] * (x.ndim - 1))
  pairs = zip(x[:-1], x[1:], strict=True)
  return np.concatenate([(1 - t) * a + t * b for a, b in pairs])


def style_ranges(gan: StyleBased) -> dict[str, range]:
  """Layers of the coarse, middle and fine styles.

  The paper's (section 3.1) are 4-8, 16-32 and 64-1024 pixels; of fewer resolutions
  the same share, and at least one each.
  """
  sizes = gan.layers(gan.res) // 2
  step = max(1, round(sizes * 2 / 9))
  ends = [0, 2 * step, 4 * step, 2 * sizes]
  names = ('coarse', 'middle', 'fine')
  return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}


def mix_styles(
  rows: np.ndarray, columns: np.ndarray, layers: Sequence[Sequence[int]]
) -> np.ndarray:
  """Each row's styles with those of each column's in some layers (paper, figure 3).

  Args:
    rows: [r, layers, dim_w]; columns [c, layers, dim_w].
    layers: those of each band of the sheet.

  Returns:
    [len(layers) * r * c, layers, dim_w], band by band and row by row.
  """
  mixed = np.repeat(rows[:, None], len(columns), 1)
  bands = []
  for band in layers:
    taken = mixed.copy()
    taken[:, :, list(band)] = columns[None][:, :, list(band)]
    bands.append(taken)
  return np.stack(bands).reshape(-1, *rows.shape[1:])


def mix_ranges(text: str, gan: StyleBased) -> list[list[int]]:
  """'coarse+middle,2-3' -> the layers of each band.

  Raises:
    UserError: names or layers that are not there.
  """
  named, last = style_ranges(gan), gan.layers(gan.res) - 1
  ranges = []
  for band in text.split(','):
    layers: list[int] = []
    for part in band.split('+'):
      layers += named.get(part) or parse_ranges(part, 'mix_layers')
    if max(layers) > last:
      raise UserError(f'--mix_layers={text}: layers are 0-{last}.')
    ranges.append(layers)
  return ranges


def add_mixing_margins(
  pictures: Iterator[np.ndarray], n_rows: int, columns: int
) -> Iterator[np.ndarray]:
  """The sources of a mixing sheet put above and to the left of its mixtures."""
  drawn = np.concatenate(list(pictures))
  rows, tops = drawn[:n_rows], drawn[n_rows : n_rows + columns - 1]
  mixed = drawn[n_rows + columns - 1 :].reshape(-1, columns - 1, *drawn.shape[1:])
  yield np.full_like(drawn[:1], 255)
  yield tops
  for i, line in enumerate(mixed):
    yield np.concatenate([rows[i % n_rows][None], line])


def noise_seeds(request: SamplingOptions, plan: ImagePlan) -> np.ndarray:
  """Seeds of the noise beside z, uint32 [n]."""
  if request.noise_seed is None:
    return plan.seeds
  return np.full(len(plan.seeds), request.noise_seed, np.uint32)
