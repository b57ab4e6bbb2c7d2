"""Decoding of one image: checks of its header, pixel conversion, orientation, crop."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gan_jax.data.depth import Ranges, Span, to_8_bits, value_kind, value_span
from gan_jax.data.formats import readable_formats, unidentified_content
from gan_jax.data.jxl_header import jxl_size
from gan_jax.runtime.image_size import Size, as_size

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
_TURNED = (5, 6, 7, 8)  # orientations that exchange rows and columns
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
  pixels: UInt8[np.ndarray, 'h w c'], image: Image.Image
) -> UInt8[np.ndarray, 'h2 w2 c']:
  """Rotates and flips `pixels` as the EXIF data of `image` require.

  Raises:
    UnusableImageError: corrupted EXIF data.
  """
  transform = _ORIENTATION_TRANSFORMS.get(_orientation(image))
  return np.ascontiguousarray(transform(pixels)) if transform else pixels


def oriented(size: tuple[int, int], image: Image.Image) -> tuple[int, int]:
  """Height and width, or width and height, as `apply_orientation` leaves them.

  Raises:
    UnusableImageError: corrupted EXIF data.
  """
  return size[::-1] if _orientation(image) in _TURNED else size


def header_size(image: Image.Image) -> tuple[int, int]:
  """(width, height) of an opened image as it is shown; no pixel is decoded.

  EXIF data that a PNG has after its pixels count for nothing.

  Raises:
    UnusableImageError: corrupted EXIF data.
  """
  if image.format == 'TIFF':  # whose size is that of the image as it is shown
    return image.size
  decodes = image.format == 'PNG' and 'exif' not in image.info  # to find EXIF data
  return image.size if decodes else oriented(image.size, image)


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION_TAG, 1)
  except _PIL_ERRORS as error:
    raise _undecodable(error) from error


def center_crop_resize(
  image: Image.Image,
  res: int | Size,
  original_size: tuple[int, int] | None = None,
  scale: float = 1,
) -> UInt8[np.ndarray, 'h w c']:
  """Resizes the largest centered part of an image that has the shape of the result.

  Args:
    image: a decoded image.
    res: height and width of the result in pixels; a number: of a square.
    original_size: (width, height) before the JPEG decoder downsampled the image by
      `scale`; by default the size of `image`. The decoder rounds odd sides up, so
      that the center of `image` alone would be off by a fraction of a pixel.
    scale: original width / width of `image`.
  """
  width, height = original_size or image.size
  h, w = as_size(res)
  if width * h >= height * w:
    part: tuple[float, float] = height * w / h, height
  else:
    part = width, width * h / w
  left, top = ((n - p) // 2 / scale for n, p in zip((width, height), part, strict=True))
  columns, rows = (n / scale for n in part)
  # An integer factor averages entire pixels, exactly and without ringing. Any other
  # factor needs Lanczos to be sharp without aliasing. Bicubic upsamples smoothly.
  if columns % w == 0 == rows % h:
    method = Image.Resampling.BOX
  else:
    method = Image.Resampling.LANCZOS if rows > h else Image.Resampling.BICUBIC
  if (columns, rows, image.size) != (w, h, (w, h)):
    box = (left, top, left + columns, top + rows)
    image = image.resize((w, h), method, box=box)
  return np.asarray(image).reshape(h, w, -1)


def pad(
  image: Image.Image, background: tuple[int, int, int], size: tuple[int, int]
) -> Image.Image:
  """Centers an image on a canvas of the RGB color `background`.

  Args:
    size: width and height of the canvas, not below those of the image.
  """
  color = Image.new('RGB', (1, 1), background).convert(image.mode).getpixel((0, 0))
  canvas = Image.new(image.mode, size, color)
  corner = (size[0] - image.width) // 2, (size[1] - image.height) // 2
  canvas.paste(image, corner)
  return canvas


def area_downsample(
  images: UInt8[np.ndarray, 'n h w c'], factor: int
) -> UInt8[np.ndarray, 'n h/factor w/factor c']:
  """Replaces each block of factor x factor pixels by its mean, rounded once."""
  n, h, w, c = images.shape
  blocks = images.reshape(n, h // factor, factor, w // factor, factor, c)
  return np.rint(blocks.mean((2, 4), dtype=np.float64)).astype(np.uint8)
