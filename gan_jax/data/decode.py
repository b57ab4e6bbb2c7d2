"""Decoding of one image: checks of its header, pixel conversion, orientation, crop."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gan_jax.data.depth import Ranges, Span, to_8_bits, value_kind, value_span
from gan_jax.data.formats import readable_formats, unidentified_content
from gan_jax.data.jxl_header import jxl_size

PIL_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}  # number of channels -> PIL mode
MAX_PIXELS = 2**26  # 8192 x 8192: below PIL's limit, above any published dataset
_MORE_PIXELS = 'the flag --max_pixels of gan_jax.prepare allows more'
_ALPHA_MODES = ('LA', 'La', 'PA', 'RGBA', 'RGBa')
_ORIENTATION_TAG = 0x0112  # EXIF
_ORIENTATION_TRANSFORMS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: x[::-1].swapaxes(0, 1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
_PIL_ERRORS = (  # raised by PIL and its plugins for corrupted content
  *(OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError, OverflowError),
  *(RuntimeError, Image.DecompressionBombError),
)


class UnusableImageError(Exception):
  """Says why an image cannot be used: a predicate, whose subject is the image."""


def _undecodable(error: BaseException) -> UnusableImageError:
  first_line = str(error).strip().split('\n')[0]
  return UnusableImageError(f'cannot be decoded ({first_line})')


def open_image(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
  """Reads and checks the header of an encoded image; no pixel is decoded.

  More than twice `PIL.Image.MAX_IMAGE_PIXELS` are refused whatever `max_pixels` is.

  Raises:
    UnusableImageError: not an image of a supported format, or too many pixels.
  """
  if size := jxl_size(content):
    _check_pixels(size, max_pixels)
  try:
    image = Image.open(io.BytesIO(content), formats=readable_formats())
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise UnusableImageError(
      f'declares more than {max_pixels:,} pixels ({_MORE_PIXELS})'
    ) from error
  except UnidentifiedImageError as error:
    raise UnusableImageError(unidentified_content(content)) from error
  except _PIL_ERRORS as error:
    raise _undecodable(error) from error
  _check_pixels(image.size, max_pixels)
  return image


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
  width, height = size
  if width * height > max_pixels:
    raise UnusableImageError(
      f'declares {width} x {height} pixels, more than {max_pixels:,} ({_MORE_PIXELS})'
    )


def decode_pixels(
  image: Image.Image,
  channels: int,
  background: tuple[int, int, int] = (255, 255, 255),
  ranges: Ranges | None = None,
) -> Image.Image:
  """Decodes an opened image to 8-bit grey, RGB or RGBA; EXIF orientation not applied.

  Args:
    image: from `open_image`.
    channels: 1, 3 or 4.
    background: RGB in 0..255, replaces transparency if channels < 4.
    ranges: of values of more than 8 bits; by default each image has its own.

  Raises:
    UnusableImageError: corrupted or truncated data.
  """
  declared = image.size
  try:
    if value_kind(image):
      image = to_8_bits(image, ranges or {})
    else:
      image.load()
    if image.size != declared:  # plugins notice it while they decode
      raise UnusableImageError(
        f'declares {declared[0]} x {declared[1]} pixels and has {image.width} x '
        f'{image.height}'
      )
    if image.mode == 'LAB':
      image = image.convert('RGB')  # the only mode that PIL converts it to
    if image.mode in _ALPHA_MODES or 'transparency' in image.info:
      image = image.convert('RGBA')
      if channels != 4:
        behind = Image.new('RGBA', image.size, (*background, 255))
        image = Image.alpha_composite(behind, image).convert('RGB')
    mode = PIL_MODES[channels]
    return image if image.mode == mode else image.convert(mode)
  except _PIL_ERRORS as error:
    raise _undecodable(error) from error


def read_span(image: Image.Image) -> Span | None:
  """Decodes an opened image to find its lowest and highest value; see `depth`.

  Returns:
    None if its values have up to 8 bits; it is not decoded then.

  Raises:
    UnusableImageError: corrupted or truncated data.
  """
  try:
    return value_span(image)
  except _PIL_ERRORS as error:
    raise _undecodable(error) from error


def apply_orientation(
  pixels: UInt8[np.ndarray, 'side side c'], image: Image.Image
) -> UInt8[np.ndarray, 'side side c']:
  """Rotates and flips square `pixels` as the EXIF data of `image` require.

  Raises:
    UnusableImageError: corrupted EXIF data.
  """
  try:
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
  except _PIL_ERRORS as error:
    raise _undecodable(error) from error
  transform = _ORIENTATION_TRANSFORMS.get(orientation)
  return np.ascontiguousarray(transform(pixels)) if transform else pixels


def center_crop_resize(
  image: Image.Image,
  res: int,
  original_size: tuple[int, int] | None = None,
  scale: float = 1,
) -> UInt8[np.ndarray, 'res res c']:
  """Resizes the largest centered square of an image to res x res pixels.

  Args:
    image: a decoded image.
    res: side of the result, in pixels.
    original_size: (width, height) before the JPEG decoder downsampled the image by
      `scale`; by default the size of `image`. The decoder rounds odd sides up, so
      that the center of `image` alone would be off by a fraction of a pixel.
    scale: original width / width of `image`.
  """
  width, height = original_size or image.size
  square = min(width, height)
  left, top = (width - square) // 2 / scale, (height - square) // 2 / scale
  side = square / scale
  # An integer factor averages entire pixels, exactly and without ringing. Any other
  # factor needs Lanczos to be sharp without aliasing. Bicubic upsamples smoothly.
  if side % res == 0:
    method = Image.Resampling.BOX
  else:
    method = Image.Resampling.LANCZOS if side > res else Image.Resampling.BICUBIC
  if (side, image.size) != (res, (res, res)):
    box = (left, top, left + side, top + side)
    image = image.resize((res, res), method, box=box)
  return np.asarray(image).reshape(res, res, -1)


def pad_to_square(
  image: Image.Image, background: tuple[int, int, int], at_least: int = 0
) -> Image.Image:
  """Centers an image on a square of the RGB color `background`.

  The side is that of the image, or `at_least` if that is larger.
  """
  side = max(*image.size, at_least)
  color = Image.new('RGB', (1, 1), background).convert(image.mode).getpixel((0, 0))
  square = Image.new(image.mode, (side, side), color)
  square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
  return square


def area_downsample(
  images: UInt8[np.ndarray, 'n h w c'], factor: int
) -> UInt8[np.ndarray, 'n h/factor w/factor c']:
  """Replaces each block of factor x factor pixels by its mean, rounded once."""
  n, h, w, c = images.shape
  blocks = images.reshape(n, h // factor, factor, w // factor, factor, c)
  return np.rint(blocks.mean((2, 4), dtype=np.float64)).astype(np.uint8)
