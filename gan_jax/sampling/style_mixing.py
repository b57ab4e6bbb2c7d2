"""Style mixing of a StyleGAN: ranges of layers, and mixed styles."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.models.base import StyleBased
from gan_jax.runtime.errors import did_you_mean
from gan_jax.sampling.options import parse_ranges


def style_ranges(gan: StyleBased, res: int = 0) -> dict[str, range]:
  """The layers of the 'coarse', 'middle' and 'fine' styles that a resolution has.

  In the StyleGAN paper (section 3.1) these are the resolutions 4-8, 16-32 and 64-1024.
  A smaller model divides its resolutions in the same proportion, with at least one
  resolution each, from the coarse ones on.

  Args:
    res: an earlier resolution of a growing GAN; 0: the final one.
  """
  resolutions, last = gan.layers(gan.res) // 2, gan.layers(res or gan.res)
  step = max(1, round(resolutions * 2 / 9))
  ends = [min(end, last) for end in (0, 2 * step, 4 * step, last)]
  names = ('coarse', 'middle', 'fine')
  return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}


def parse_mix_layers(
  text: str | None, gan: StyleBased, res: int = 0, name: str = 'mix_layers'
) -> list[list[int]]:
  """'coarse+middle,2-3' -> the layers of each band of a mixing grid.

  Args:
    text: None: a band for each of the coarse, middle and fine styles that there are.
    res: resolution to sample; 0: the final one.
    name: the flag that error messages name.

  Raises:
    UserError: an unknown name, or a layer that the model does not have.
  """
  named, last = style_ranges(gan, res), gan.layers(res or gan.res) - 1
  if text is None:
    return [list(layers) for layers in named.values() if layers]
  bands = []
  for band in text.split(','):
    layers: list[int] = []
    for part in map(str.strip, band.split('+')):
      if part in named and not named[part]:
        raise UserError(
          f'--{name}={text}: a model of {res or gan.res} pixels has no {part} styles.'
        )
      if part not in named and not re.fullmatch('[0-9]+(-[0-9]+)?', part):
        raise UserError(
          f'--{name}={text}: give numbers of layers, such as 0-3, or '
          f'{", ".join(named)}{did_you_mean(part, named)}.'
        )
      layers += named.get(part) or parse_ranges(part, name)
    if max(layers) > last:
      raise UserError(f'--{name}={text}: layers are 0-{last}.')
    bands.append(layers)
  return bands


def mix_styles(
  rows: Float[np.ndarray, 'r layers dim_w'],
  columns: Float[np.ndarray, 'c layers dim_w'],
  bands: Sequence[Sequence[int]],
) -> Float[np.ndarray, 'n layers dim_w']:
  """The styles of each row with those of each column in some layers.

  StyleGAN paper, figure 3.

  Args:
    bands: the layers that come from the columns, one entry for each band of rows.

  Returns:
    [len(bands) * r * c, layers, dim_w], band by band, each row by row.
  """
  repeated = np.repeat(rows[:, None], len(columns), 1)
  mixed = []
  for layers in bands:
    band = repeated.copy()
    band[:, :, list(layers)] = columns[None][:, :, list(layers)]
    mixed.append(band)
  return np.stack(mixed).reshape(-1, *rows.shape[1:])
