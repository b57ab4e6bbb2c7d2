"""Sampling options: which images `gan_jax.sample` draws, as fields and as flags."""

import dataclasses
import math
import operator
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from gan_jax import UserError
from gan_jax.runtime.flags import flag, to_flags

MAX_SEED = 2**32 - 1
MAX_NUMBERS = 2**24  # in ranges; more is a typing error, and would not fit in memory
DEFAULT_SEEDS, DEFAULT_FRAMES, DEFAULT_COLUMNS = '0-63', 8, 8
LAYOUTS = ('grid', 'mix', 'interpolate')  # at most one of these options
NUMPY = 'numpy:'  # before seeds of numpy.random.RandomState


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
  """Everything that decides what the sampled images show.

  `gan_jax.sample` has one flag for each field. `flags` is the way back: the explorer
  shows the command line of each image with it.

  Options that stay None take the default that their help names.

  Raises:
    UserError: a value is out of range, or two options exclude each other.
  """

  seeds: str | None = flag(
    None,
    'one image per seed, such as 0-63 or 1,5,9-12; numpy:639 or numpy:0-15 draws z as '
    'the original codes do for their figures, with numpy.random.RandomState; '
    f'default: {DEFAULT_SEEDS}',
  )
  num: int | None = flag(None, 'sample seeds 0 to NUM-1 instead of --seeds')
  latents: str = flag(
    '',
    'latents of the images instead of --seeds: a file that --save_latents or '
    'gan_jax.project wrote, or any with z, w or w_plus',
    metavar='FILE.npz',
  )
  classes: str = flag(
    '',
    'labels or names of classes, such as 0-8 or 3,cat, assigned in turn; #3 is a label '
    'where a class is named 3; default: drawn from the seed',
  )
  labels: str = flag(
    '',
    'label vectors, or weights over the classes, instead of --classes: a file .npy or '
    '.csv with one row for each, or numbers such as 0.5,0.2;1,0',
    metavar='ROWS',
  )
  grid: bool = flag(False, 'one row per class and one column per seed')
  truncation: float | None = flag(
    None,
    'redraw entries of z beyond +-T; inf: none; lower: better images, less variety; '
    'default: none, and 2 for a BigGAN with another psi than 1 or published by Hugging '
    'Face',
    metavar='T',
  )
  psi: float | None = flag(
    None,
    'BigGAN: factor of z, which is then truncated at 2 unless --truncation is given; '
    'StyleGAN: factor of the distance between w and its mean; lower: better images, '
    'less variety; default: as the original code samples, 0.7 (model.truncation_psi) '
    'for StyleGAN and 1, which changes nothing, for ProGAN and BigGAN',
  )
  truncated_layers: int | None = flag(
    None,
    'StyleGAN: psi acts on the first N layers; default: that of the model, 8 in the '
    'paper',
    metavar='N',
  )
  noise: str = flag(
    'own',
    'StyleGAN: noise drawn from each seed, the noise stored with the weights, or none',
    choices=('own', 'stored', 'off'),
  )
  noise_seed: int | None = flag(
    None, 'StyleGAN: draw the noise of all images from seed N', metavar='N'
  )
  noise_strength: float = flag(1.0, 'StyleGAN: factor of all noise', metavar='S')
  noise_layers: str | None = flag(
    None,
    'StyleGAN: noise in these layers only: coarse, middle, fine, layers such as 0-3, '
    'or several with commas; default: all',
    metavar='LAYERS',
  )
  mix: str = flag(
    '',
    'StyleGAN: style mixing grid of --seeds (rows) with styles of these seeds '
    '(columns)',
    metavar='SEEDS',
  )
  mix_layers: str | None = flag(
    None,
    'layers whose styles come from the columns of --mix, one band of rows for each '
    'entry: coarse, middle, fine, layers such as 0-3, or a sum such as coarse+middle; '
    'default: coarse,middle,fine, or those of them that the resolution has',
    metavar='LAYERS',
  )
  res: int = flag(0, 'an earlier resolution of a growing GAN; default: the present one')
  padded: bool = flag(
    False,
    'keep the padding and borders of the training images, which are cropped otherwise',
  )
  standing: int = flag(
    16,
    'BigGAN: take batch statistics anew at this truncation, from N batches; 0: use '
    'those of training',
    metavar='N',
  )
  interpolate: str | None = flag(
    None,
    'interpolate from each seed to the next: in z, in w (StyleGAN), or from class to '
    'class (--classes, or all) at the z of the first seed',
    choices=('z', 'w', 'class'),
  )
  frames: int | None = flag(
    None,
    'steps of --interpolate from one seed or class to the next; '
    f'default: {DEFAULT_FRAMES}',
    metavar='N',
  )
  loop: bool = flag(False, 'let --interpolate go on from the last seed to the first')
  direction: str = flag(
    '',
    'move all images along directions that gan_jax.directions found, such as sefa0:1.5 '
    'or sefa0:1.5,pca2:-1; may be given several times',
    metavar='NAME:STRENGTH',
    joined=True,
  )
  directions: str = flag(
    '',
    'file of the directions; default: directions.npz in the workdir',
    metavar='FILE.npz',
  )
  only: int | None = flag(
    None, 'sample only image N of all these, counted from 0', metavar='N'
  )
  columns: int | None = flag(
    None,
    f'columns of an image grid; default: {DEFAULT_COLUMNS}, with --interpolate one row '
    'from each seed to the next',
    metavar='N',
  )
  batch: int = flag(64, 'images per batch', metavar='N')

  def __post_init__(self) -> None:
    for name in ('num', 'truncation', 'columns', 'batch', 'frames'):
      value = vars(self)[name]
      if value is not None and not value > 0:
        raise UserError(f'--{name}={value}: it must be above 0.')
    for name in ('psi', 'noise_strength'):
      value = vars(self)[name]
      if value is not None and not math.isfinite(value):
        raise UserError(f'--{name}={value}: a finite number is needed.')
    limits = dict.fromkeys(('standing', 'noise_seed', 'truncated_layers'), MAX_SEED)
    for name, largest in (limits | {'num': MAX_NUMBERS}).items():
      value = vars(self)[name] or 0
      if not 0 <= value <= largest:
        raise UserError(f'--{name}={value}: allowed are 0 to {largest}.')
    for field in dataclasses.fields(self):
      value, choices = vars(self)[field.name], field.metadata['choices']
      if choices and value not in (field.default, *choices):
        raise UserError(f'--{field.name}={value}: allowed are {", ".join(choices)}.')
    for name in self.changed(('seeds', 'mix')):
      parse_seeds(vars(self)[name], name)
    self._check_combination()

  def _check_combination(self) -> None:
    """
    Raises:
      UserError: options exclude each other, or need another one.
    """
    layouts = [name for name in LAYOUTS if vars(self)[name]]
    excluding = [layouts]
    for group in (('seeds', 'num', 'latents'), ('classes', 'labels')):
      excluding.append(self.changed(group))
    if self.grid or self.mix:  # these have columns of their own
      excluding += [[layouts[0], name] for name in self.changed(['columns'])]
    if self.noise == 'off':
      excluding += [['noise=off', name] for name in self.changed(['noise_layers'])]
    for names in excluding:
      if len(names) > 1:
        raise UserError(f'--{names[0]} and --{names[1]} exclude each other: give one.')
    for name, needed in (
      ('frames', 'interpolate'),
      ('loop', 'interpolate'),
      ('mix_layers', 'mix'),
      ('directions', 'direction'),
    ):
      if self.changed([name]) and not vars(self)[needed]:
        raise UserError(f'--{name} needs --{needed}, which is not given.')

  @property
  def flags(self) -> list[str]:
    """The flags of `gan_jax.sample` for these options, without the defaults."""
    return to_flags(self)

  def changed(self, names: Iterable[str]) -> list[str]:
    """Those of `names` whose value is not the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(self)}
    return [name for name in names if vars(self)[name] != defaults[name]]


class Seeds(NamedTuple):
  """Seeds of the images, and what draws z from them."""

  numbers: list[int]
  numpy: bool  # numpy.random.RandomState; False: jax.random


def parse_seeds(text: str, name: str) -> Seeds:
  """'0-3,8', or 'numpy:0-3,8' for the random numbers of NumPy.

  Raises:
    UserError: as `parse_ranges`.
  """
  if text.startswith(NUMPY):
    return Seeds(parse_ranges(text.removeprefix(NUMPY), name, NUMPY), True)
  return Seeds(parse_ranges(text, name), False)


def parse_ranges(text: str, name: str, prefix: str = '') -> list[int]:
  """'0-3,8' -> [0, 1, 2, 3, 8].

  Args:
    name: the flag that error messages name.
    prefix: what stands before `text` in the value of the flag.

  Raises:
    UserError: `text` has another form, a range descends, a number is above 2**32 - 1,
      or there are too many.
  """
  ranges, given = [], f'--{name}={prefix}{text}'
  for part in text.split(','):
    match = re.fullmatch(r'([0-9]{1,30})(?:-([0-9]{1,30}))?', part.strip())
    if match is None:
      raise UserError(f'{given}: give numbers such as 0-63 or 1,5,9-12.')
    first, last = int(match[1]), int(match[2] or match[1])
    if last > MAX_SEED:
      raise UserError(f'{given}: numbers go up to {MAX_SEED}.')
    if last < first:
      raise UserError(
        f'{given}: {first}-{last} runs from high to low; write {last}-{first}, '
        f'or for this order one by one, {first},{first - 1},...'
      )
    ranges.append(range(first, last + 1))
  if sum(map(len, ranges)) > MAX_NUMBERS:
    raise UserError(f'{given}: that is more than {MAX_NUMBERS} numbers.')
  return [number for numbers in ranges for number in numbers]


def listed(values: Any) -> list[Any]:
  """The values of an array or another iterable, or the one value; text is one value."""
  is_one = isinstance(values, str) or not isinstance(values, Iterable)
  return [values] if is_one or getattr(values, 'ndim', 1) == 0 else list(values)


def format_ranges(numbers: int | Iterable[int], name: str = 'seeds') -> str:
  """[0, 1, 2, 3, 8] -> '0-3,8': the inverse of `parse_ranges`.

  Raises:
    UserError: something is not an integer.
  """
  runs: list[list[int]] = []
  for number in listed(numbers):
    try:
      number = operator.index(number)
    except TypeError as error:
      raise UserError(f'{name}: {number!r} is not an integer.') from error
    if runs and number == runs[-1][1] + 1:
      runs[-1][1] = number
    else:
      runs.append([number, number])
  return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)
