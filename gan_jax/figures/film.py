"""The film of a training run, from its sample grids."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gan_jax import UserError
from gan_jax.figures.source import Figure, Source
from gan_jax.sampling.image_io import GAP
from gan_jax.sampling.layout import LINE, WHITE, enlarge, enlargement, to_rgb, write

MAX_SIDE = 1080  # pixels of a frame; fewer rows and columns are shown beyond that


def film(source: Source) -> Figure:
  """The sample grids of a run one after the other; its latents never change.

  Images of the earlier resolutions of a growing GAN are enlarged.

  Raises:
    UserError: the run has fewer than two sample grids.
  """
  grids = sorted(
    (int(path.stem), path)
    for path in (source.folder / 'samples').glob('*.png')
    if re.fullmatch('[0-9]{1,15}', path.stem)
  )
  if len(grids) < 2:
    raise UserError(
      f'a film takes two sample grids, and {source.folder}/samples has {len(grids)}: '
      'train the run further; imported weights have none.'
    )
  log, size = source.config.log, source.generator.gan.size()
  steps = size[0] + GAP, size[1] + GAP
  asked = zip((log.grid_rows, log.grid_columns), steps, strict=True)
  rows, columns = (min(n, max(1, MAX_SIDE // step)) for n, step in asked)
  longest = max(rows * steps[0], columns * steps[1])
  height = size[0] * max(1, min(enlargement(min(size)), MAX_SIDE // longest))
  pages = []
  for images, path in grids:
    tiles = read_grid(path, log.grid_rows, log.grid_columns)
    if tiles is not None:
      tiles = enlarge(tiles[:rows, :columns], height // tiles.shape[2])
      pages.append(_page(tiles, f'{images:,} images'))
  if len(pages) < 2:
    raise UserError(
      f'the sample grids in {source.folder}/samples are not of {log.grid_rows} '
      f'x {log.grid_columns} images, as config.json says.'
    )
  described = f'sample grids of {source.folder.name} at images {grids[0][0]} to '
  return Figure(None, f'{described}{grids[-1][0]}', np.stack(pages))


def read_grid(
  path: Path, rows: int, columns: int
) -> UInt8[np.ndarray, 'rows columns h w 3'] | None:
  """The images of a sample grid; None if it has another form."""
  grid = np.asarray(Image.open(path))
  grid = to_rgb(grid.reshape(1, *grid.shape[:2], -1))[0]
  h, w = (grid.shape[0] - GAP) // rows, (grid.shape[1] - GAP) // columns
  if min(h, w) <= GAP or grid.shape[:2] != (rows * h + GAP, columns * w + GAP):
    return None
  tiles = grid[GAP:, GAP:].reshape(rows, h, columns, w, 3).swapaxes(1, 2)
  return tiles[:, :, : h - GAP, : w - GAP]


def _page(
  tiles: UInt8[np.ndarray, 'rows columns h w 3'], caption: str
) -> UInt8[np.ndarray, 'h w 3']:
  """A frame: the images in rows and columns, and a line below."""
  rows, columns, h, w = tiles.shape[:4]
  before = [(0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)]
  padded = np.pad(tiles, before, constant_values=255).swapaxes(1, 2)
  grid = padded.reshape(rows * (h + GAP), columns * (w + GAP), 3)
  page = Image.new('RGB', (grid.shape[1] + GAP, grid.shape[0] + GAP + LINE), WHITE)
  page.paste(Image.fromarray(grid), (0, 0))
  write(page, caption, (page.width // 2, page.height - LINE // 2), 'mm')
  return np.asarray(page)
