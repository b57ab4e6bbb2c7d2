"""Style mixing of a StyleGAN: layer ranges, mixed styles, and the grid around them."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from gan_jax import UserError
from gan_jax.models.base import StyleBased
from gan_jax.sampling.options import parse_ranges


def style_ranges(gan: StyleBased) -> dict[str, range]:
  """The layers of the 'coarse', 'middle' and 'fine' styles.

  In the StyleGAN paper (section 3.1) these are the resolutions 4-8, 16-32 and 64-1024.
  A smaller model divides its resolutions in the same proportion, with at least one
  resolution each.
  """
  resolutions = gan.layers(gan.res) // 2
  step = max(1, round(resolutions * 2 / 9))
  ends = [0, 2 * step, 4 * step, 2 * resolutions]
  names = ('coarse', 'middle', 'fine')
  return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}


def parse_mix_layers(text: str, gan: StyleBased) -> list[list[int]]:
  """'coarse+middle,2-3' -> the layers of each band of a mixing grid.

  Raises:
    UserError: an unknown name, or a layer that the model does not have.
  """
  named, last = style_ranges(gan), gan.layers(gan.res) - 1
  bands = []
  for band in text.split(','):
    layers: list[int] = []
    for part in band.split('+'):
      if part in named and not named[part]:
        raise UserError(
          f'--mix_layers={text}: a model of {gan.res} pixels has no {part} styles.'
        )
      layers += named.get(part) or parse_ranges(part, 'mix_layers')
    if max(layers) > last:
      raise UserError(f'--mix_layers={text}: layers are 0-{last}.')
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


def add_source_margins(
  images: Iterator[np.ndarray], n_rows: int, columns: int
) -> Iterator[UInt8[np.ndarray, 'n h w c']]:
  """Yields a mixing grid row by row, its sources in the first row and column.

  Args:
    images: batches of the row sources, the column sources and the mixtures.
    n_rows: number of row sources.
    columns: of the grid, with the column of the row sources.
  """
  all_images = np.concatenate(list(images))
  row_sources = all_images[:n_rows]
  column_sources = all_images[n_rows : n_rows + columns - 1]
  mixed = all_images[n_rows + columns - 1 :]
  yield np.full_like(all_images[:1], 255)  # the corner
  yield column_sources
  for i, row in enumerate(mixed.reshape(-1, columns - 1, *mixed.shape[1:])):
    yield np.concatenate([row_sources[i % n_rows][None], row])
