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
from gan_jax.runtime.image_size import format_size, same_shape, smaller

Box = tuple[int, int, int, int]  # top, left, bottom, right; pixels
Pair = tuple[int, int]


class FittedImage(NamedTuple):
  """An image of a prepared set.

  Attributes:
    mode: PIL mode of the encoded image.
    content: where the image is, within padding and borders.
  """

  mode: str
  pixels: UInt8[np.ndarray, 'h w channels']
  content: Box


def size_problem(width: int, height: int, options: PrepareOptions) -> str:
  """Why images of this size are refused, as a predicate; '' if they are not."""
  size, square = options.size, options.size[0] == options.size[1]
  if not same_shape((height, width), size) and not options.fit:
    shape = 'square' if square else f'of the shape of {format_size(size)}'
    return f'is {width} x {height}, not {shape} (use --crop or --pad)'
  if options.fit == 'pad':
    too_small = width < size[1] and height < size[0]
  else:
    too_small = smaller((height, width), size)
  if too_small and not (options.upscale or options.border):
    least = f'{size[0]}' if square else format_size(size)
    return (
      f'is {width} x {height}, smaller than {least} (use --upscale, --border or '
      'a lower --res)'
    )
  return ''


def fit_image(content: bytes, options: PrepareOptions) -> FittedImage:
  """Decodes an image, crops or pads it to its shape and resizes it.

  Raises:
    UnusableImageError: it cannot be decoded, or its size does not suit `options`.
  """
  encoded = decode.open_image(content, options.max_pixels)
  image = decode.decode_pixels(
    encoded, options.channels, options.background, options.range
  )
  if problem := size_problem(*decode.oriented(image.size, encoded), options):
    raise UnusableImageError(problem)
  height, width = decode.oriented(options.size, encoded)  # before it is rotated
  content_size, offset = image.size, (0, 0)  # of what is not padding
  if options.fit == 'pad':
    canvas = _enclosing_canvas(image.size, width, height)
    offset = _offset(canvas, image.size)
    image = decode.pad(image, options.background, canvas)
  if options.border and (image.width < width or image.height < height):
    part = image.size
    if options.fit != 'pad':
      part = _centered_part(image.size, width, height)
      image = ImageOps.fit(image, part)
    content_size = min(content_size[0], part[0]), min(content_size[1], part[1])
    canvas = max(part[0], width), max(part[1], height)
    x, y = _offset(canvas, part)
    offset = offset[0] + x, offset[1] + y
    image = decode.pad(image, options.background, canvas)
  pixels = decode.center_crop_resize(image, (height, width))
  part = _centered_part(image.size, width, height)
  box = _resized(content_size, offset, part, (width, height))
  if box[:2] != (0, 0):  # rotated like the pixels
    mask = np.zeros((height, width, 1), np.uint8)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    rows, columns, _ = np.nonzero(decode.apply_orientation(mask, encoded))
    first = int(rows.min()), int(columns.min())
    box = (*first, int(rows.max()) + 1, int(columns.max()) + 1)
  pixels = decode.apply_orientation(pixels, encoded)
  return FittedImage(encoded.mode, pixels, box)


# Sizes in the functions below are width and height, as in PIL.


def _enclosing_canvas(size: Pair, width: int, height: int) -> Pair:
  """The smallest canvas of the shape width x height that holds an image of a size."""
  if size[0] * height >= size[1] * width:
    return size[0], -(-size[0] * height // width)
  return -(-size[1] * width // height), size[1]


def _centered_part(size: Pair, width: int, height: int) -> Pair:
  """The largest part of the shape width x height of an image of a size."""
  if size[0] * height >= size[1] * width:
    return max(size[1] * width // height, 1), size[1]
  return size[0], max(size[0] * height // width, 1)


def _offset(canvas: Pair, size: Pair) -> Pair:
  """x and y at which `decode.pad` puts an image on a canvas."""
  return (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2


def _resized(size: Pair, offset: Pair, part: Pair, res: Pair) -> Box:
  """Where an image of this size and offset is when a part around it is resized.

  A pixel at the edge belongs to it if at least half of the pixel does. An image that is
  larger than the part is cropped to it.
  """

  def interval(length: int, first: int, side: int, res: int) -> tuple[int, int]:
    last = min(first + length, side)
    start = min(math.ceil(first * res / side - 0.5), res - 1)
    return start, max(math.floor(last * res / side + 0.5), start + 1)

  (left, right), (top, bottom) = map(interval, size, offset, part, res)
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
