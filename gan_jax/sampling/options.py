"""Sampling options: which images `gan_jax.sample` draws, as fields and as flags."""

import dataclasses
from collections.abc import Iterable

from gan_jax import UserError
from gan_jax.runtime.flags import flag, to_flags

MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
  """Everything that decides what the sampled images show.

  `gan_jax.sample` has one flag for each field. `flags` is the way back: the explorer
  shows the command line of each image with it.

  Raises:
    UserError: a value is out of range.
  """

  seeds: str = flag('0-63', 'one image per seed, such as 0-63 or 1,5,9-12')
  num: int = flag(0, 'sample seeds 0 to NUM-1 instead of --seeds')
  classes: str = flag(
    '', 'labels, such as 0-8 or 3,5, assigned in turn; default: drawn from the seed'
  )
  grid: bool = flag(False, 'one row per class and one column per seed')
  truncation: float = flag(
    float('inf'),
    'redraw entries of z beyond +-T; lower: better images, less variety',
    metavar='T',
  )
  psi: float = flag(
    1.0,
    'BigGAN: factor of z, which is then truncated at 2 unless --truncation is given; '
    'StyleGAN: factor of the distance between w and its mean; lower: better images, '
    'less variety',
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
  mix: str = flag(
    '',
    'StyleGAN: style mixing grid of --seeds (rows) with styles of these seeds '
    '(columns)',
    metavar='SEEDS',
  )
  mix_layers: str = flag(
    'coarse,middle,fine',
    'layers whose styles come from the columns, one band of rows for each entry: '
    'coarse, middle, fine, layers such as 0-3, or a sum such as coarse+middle',
    metavar='LAYERS',
  )
  res: int = flag(0, 'an earlier resolution of a growing GAN; default: the present one')
  standing: int = flag(
    16,
    'BigGAN: take batch statistics anew at this truncation, from N batches; 0: use '
    'those of training',
    metavar='N',
  )
  interpolate: str | None = flag(
    None,
    'interpolate from each seed to the next: in z, in w (StyleGAN), or between classes '
    'at the z of the first seed',
    choices=('z', 'w', 'class'),
  )
  frames: int = flag(8, 'images from one seed to the next', metavar='N')
  only: int | None = flag(
    None, 'sample only image N of all these, counted from 0', metavar='N'
  )
  columns: int = flag(8, 'columns of an image grid', metavar='N')
  batch: int = flag(64, 'images per batch', metavar='N')

  def __post_init__(self) -> None:
    for name in ('truncation', 'columns', 'batch', 'frames'):
      value = vars(self)[name]
      if not value > 0:
        raise UserError(f'--{name}={value}: it must be above 0.')
    for name in ('num', 'standing', 'noise_seed'):
      value = vars(self)[name] or 0
      if not 0 <= value <= MAX_SEED:
        raise UserError(f'--{name}={value}: allowed are 0 to {MAX_SEED}.')
    for field in dataclasses.fields(self):
      value, choices = vars(self)[field.name], field.metadata['choices']
      if choices and value not in (field.default, *choices):
        raise UserError(f'--{field.name}={value}: allowed are {", ".join(choices)}.')

  @property
  def flags(self) -> list[str]:
    """The flags of `gan_jax.sample` for these options, without the defaults."""
    return to_flags(self)

  def changed(self, names: Iterable[str]) -> list[str]:
    """Those of `names` whose value is not the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(self)}
    return [name for name in names if vars(self)[name] != defaults[name]]


def parse_ranges(text: str, name: str) -> list[int]:
  """'0-3,8' -> [0, 1, 2, 3, 8].

  Args:
    name: the flag that error messages name.

  Raises:
    UserError: `text` has another form, or a number is above 2**32 - 1.
  """
  numbers: list[int] = []
  for part in text.split(','):
    first, _, last = part.partition('-')
    if not first.isdigit() or (last and not last.isdigit()):
      raise UserError(f'--{name}={text}: give numbers such as 0-63 or 1,5,9-12.')
    numbers += range(int(first), int(last or first) + 1)
  if not numbers or max(numbers) > MAX_SEED:
    raise UserError(f'--{name}={text}: numbers go up to {MAX_SEED}, low to high.')
  return numbers


def format_ranges(numbers: int | Iterable[int]) -> str:
  """[0, 1, 2, 3, 8] -> '0-3,8': the inverse of `parse_ranges`."""
  runs: list[list[int]] = []
  for number in numbers if isinstance(numbers, Iterable) else (numbers,):
    number = int(number)
    if runs and number == runs[-1][1] + 1:
      runs[-1][1] = number
    else:
      runs.append([number, number])
  return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)
