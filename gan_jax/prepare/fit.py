"""One source image becomes pixels of the full resolution, and a PNG."""

import io
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ImageOps

from gan_jax.data import decode
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.raw_png import encode_raw_png
from gan_jax.data.summary import to_pil
from gan_jax.prepare.options import PrepareOptions

Box = tuple[int, int, int, int]  # top, left, bottom, right; pixels


class FittedImage(NamedTuple):
  """An image of a prepared set.

  Attributes:
    mode: PIL mode of the encoded image.
    content: where the image is, within padding and borders.
  """

  mode: str
  pixels: UInt8[np.ndarray, 'res res channels']
  content: Box


def size_problem(width: int, height: int, options: PrepareOptions) -> str:
  """Why images of this size are refused, as a predicate; '' if they are not."""
  if width != height and not options.fit:
    return f'is {width} x {height}, not square (use --crop or --pad)'
  side = max(width, height) if options.fit == 'pad' else min(width, height)
  if side < options.res and not (options.upscale or options.border):
    return (
      f'is {width} x {height}, smaller than {options.res} (use --upscale, --border or '
      'a lower --res)'
    )
  return ''


def fit_image(content: bytes, options: PrepareOptions) -> FittedImage:
  """Decodes an image, makes it square and resizes it.

  Raises:
    UnusableImageError: it cannot be decoded, or its size does not suit `options`.
  """
  encoded = decode.open_image(content, options.max_pixels)
  image = decode.decode_pixels(
    encoded, options.channels, options.background, options.range
  )
  if problem := size_problem(*image.size, options):
    raise UnusableImageError(problem)
  content_size, offset = image.size, (0, 0)  # of what is not padding
  if options.fit == 'pad':
    offset = _offset(max(image.size), *image.size)
    image = decode.pad_to_square(image, options.background)
  if options.border and min(image.size) < options.res:
    side = min(image.size)
    image = ImageOps.fit(image, (side, side))
    content_size = min(content_size[0], side), min(content_size[1], side)
    x, y = _offset(options.res, side, side)
    offset = offset[0] + x, offset[1] + y
    image = decode.pad_to_square(image, options.background, options.res)
  pixels = decode.center_crop_resize(image, options.res)
  box = _resized(content_size, offset, min(image.size), options.res)
  if box[:2] != (0, 0):  # rotated like the pixels
    mask = np.zeros((options.res, options.res, 1), np.uint8)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    rows, columns, _ = np.nonzero(decode.apply_orientation(mask, encoded))
    first = int(rows.min()), int(columns.min())
    box = (*first, int(rows.max()) + 1, int(columns.max()) + 1)
  pixels = decode.apply_orientation(pixels, encoded)
  return FittedImage(encoded.mode, pixels, box)


def _offset(side: int, width: int, height: int) -> tuple[int, int]:
  """x and y at which `decode.pad_to_square` puts an image on a square."""
  return (side - width) // 2, (side - height) // 2


def _resized(
  size: tuple[int, int], offset: tuple[int, int], side: int, res: int
) -> Box:
  """Where an image of this size and offset is when its square of `side` is resized.

  A pixel at the edge belongs to it if at least half of the pixel does. An image that is
  larger than the square is cropped to it.
  """

  def interval(length: int, first: int) -> tuple[int, int]:
    last = min(first + length, side)
    start = min(math.ceil(first * res / side - 0.5), res - 1)
    return start, max(math.floor(last * res / side + 0.5), start + 1)

  (left, right), (top, bottom) = map(interval, size, offset)
  return top, left, bottom, right


def enclosing(boxes: Iterable[Box]) -> Box:
  """The smallest box that holds all of them."""
  tops, lefts, bottoms, rights = zip(*boxes, strict=True)
  return min(tops), min(lefts), max(bottoms), max(rights)


def encode_png(image: UInt8[np.ndarray, 'h w c'], level: int) -> bytes:
  """Encodes a PNG with zlib level 0..9; 0 is a raw PNG, which decodes fastest."""
  if level == 0:
    return encode_raw_png(image)
  file = io.BytesIO()
  to_pil(image).save(file, 'PNG', compress_level=level)
  return file.getvalue()
