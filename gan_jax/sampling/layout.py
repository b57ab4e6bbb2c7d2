"""Arranges images with captions into a figure."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from gan_jax.sampling.animation import opaque

MIN_TILE = 96  # pixels; smaller images are enlarged, so that captions fit
GAP = 4  # pixels between images
FONT_SIZE = 14
LINE = 20  # pixels of a line of a caption
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def to_rgb(images: UInt8[np.ndarray, 'n h w c']) -> UInt8[np.ndarray, 'n h w 3']:
  """Grey as RGB; transparent images over white."""
  if images.shape[-1] == 1:
    return images.repeat(3, -1)
  return opaque(images)


def enlarge(
  images: UInt8[np.ndarray, '*n h w 3'], factor: int
) -> UInt8[np.ndarray, '*n h w 3']:
  """Repeats each pixel `factor` times in both directions."""
  return images.repeat(factor, -3).repeat(factor, -2)


def enlargement(side: int) -> int:
  """The whole factor that brings `side` pixels to at least MIN_TILE."""
  return max(1, -(-MIN_TILE // side))


def table(
  images: UInt8[np.ndarray, 'n h w 3'],
  cells: Int[np.ndarray, 'rows columns'],
  columns: Sequence[str] = (),
  rows: Sequence[str] = (),
  gaps: Sequence[int] = (),
) -> Image.Image:
  """Image number cells[y, x] in row y and column x, with captions beside and above.

  Args:
    cells: a negative number leaves the place white.
    columns: one caption per column, or none.
    rows: one caption per row, or none; lines are separated by newlines.
    gaps: columns before which the gap is wide.
  """
  tiles = enlarge(images, enlargement(min(images.shape[1:3])))
  _, h, w, _ = tiles.shape
  left = GAP + (max(map(_width, rows)) + 2 * GAP if rows else 0)
  top = GAP + (LINE if columns else 0)
  x_of = [
    left + x * (w + GAP) + 4 * GAP * sum(gap <= x for gap in gaps)
    for x in range(cells.shape[1])
  ]
  y_of = [top + y * (h + GAP) for y in range(cells.shape[0])]
  figure = Image.new('RGB', (x_of[-1] + w + GAP, y_of[-1] + h + GAP), WHITE)
  for (y, x), number in np.ndenumerate(cells):
    if number >= 0:
      figure.paste(Image.fromarray(tiles[number]), (x_of[x], y_of[y]))
  for x, caption in zip(x_of, columns, strict=False):
    write(figure, caption, (x + w // 2, top - LINE // 2 - 2), 'mm')
  for y, caption in zip(y_of, rows, strict=False):
    write(figure, caption, (left - 2 * GAP, y + h // 2), 'rm')
  return figure


def write(
  figure: Image.Image, text: str, place: tuple[int, int], anchor: str = 'lm'
) -> None:
  """Writes black text; `anchor` is Pillow's, such as 'mm' for the middle."""
  draw = ImageDraw.Draw(figure)
  draw.text(place, text, BLACK, _font(), anchor, align='right')


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(FONT_SIZE)


def _width(text: str) -> int:
  return max(round(_font().getlength(line)) for line in text.split('\n'))
