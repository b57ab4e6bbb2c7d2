"""One source image becomes pixels of the full resolution, and a PNG."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import ImageOps

from gan_jax.data import decode
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.raw_png import encode_raw_png
from gan_jax.data.summary import to_pil
from gan_jax.prepare.options import PrepareOptions


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


def fit_image(
  content: bytes, options: PrepareOptions
) -> tuple[str, UInt8[np.ndarray, 'res res channels']]:
  """Decodes an image, makes it square and resizes it.

  Returns:
    (PIL mode of the encoded image, pixels).

  Raises:
    UnusableImageError: it cannot be decoded, or its size does not suit `options`.
  """
  encoded = decode.open_image(content, options.max_pixels)
  mode = encoded.mode
  image = decode.decode_pixels(
    encoded, options.channels, options.background, options.range
  )
  if problem := size_problem(*image.size, options):
    raise UnusableImageError(problem)
  if options.fit == 'pad':
    image = decode.pad_to_square(image, options.background)
  if options.border and min(image.size) < options.res:
    square = ImageOps.fit(image, (min(image.size),) * 2)
    image = decode.pad_to_square(square, options.background, options.res)
  pixels = decode.center_crop_resize(image, options.res)
  return mode, decode.apply_orientation(pixels, encoded)


def encode_png(image: UInt8[np.ndarray, 'h w c'], level: int) -> bytes:
  """Encodes a PNG with zlib level 0..9; 0 is a raw PNG, which decodes fastest."""
  if level == 0:
    return encode_raw_png(image)
  file = io.BytesIO()
  to_pil(image).save(file, 'PNG', compress_level=level)
  return file.getvalue()
