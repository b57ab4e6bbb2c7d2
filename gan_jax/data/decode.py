"""One picture: is it safe, and what are its pixels."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}  # PIL's, by number of channels
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')  # of PIL, no others
MAX_PIXELS = 2**26  # 8192 x 8192; below PIL's own limit, above any published data set
_ORIENTATION = 0x0112  # EXIF
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: x[::-1].swapaxes(0, 1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
_DAMAGED = (  # what PIL raises
  *(OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError),
  Image.DecompressionBombError,
)


class UnreadableImage(Exception):
  """Why one picture cannot be used, as the end of a sentence that begins with it."""


def open_image(content: bytes) -> Image.Image:
  """The picture's header, checked before a pixel is decoded.

  Raises:
    Refused: it is no picture of a known format, or too large.
  """
  try:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise UnreadableImage(f'claims more than {MAX_PIXELS:,} pixels') from error
  except UnidentifiedImageError as error:
    raise UnreadableImage(f'is no picture ({", ".join(FORMATS)} are read)') from error
  except (OSError, SyntaxError, ValueError, OverflowError, EOFError) as error:
    raise UnreadableImage(f'cannot be decoded ({error})') from error
  if image.width * image.height > MAX_PIXELS:
    raise UnreadableImage(
      f'claims {image.width} x {image.height} pixels, above {MAX_PIXELS:,} in all'
    )
  return image


def decode(
  image: Image.Image, channels: int, background: tuple[int, int, int] = (255, 255, 255)
) -> Image.Image:
  """Decodes into 8-bit grey, RGB or RGBA, not yet turned as EXIF says.

  Args:
    channels: 1, 3 or 4.
    background: RGB, 0 to 255, behind transparent pixels where channels < 4.

  Raises:
    Refused: its data are damaged, cut short, or not of 8 or 16 bits.
  """
  try:
    image.load()
    if image.mode.startswith('I'):
      image = _from_16_bits(image)
    if image.mode == 'F':
      raise UnreadableImage('has floating-point pixels; 8 or 16 bits are read')
    if 'A' in image.mode or 'transparency' in image.info:
      image = image.convert('RGBA')
      if channels != 4:
        behind = Image.new('RGBA', image.size, (*background, 255))
        image = Image.alpha_composite(behind, image).convert('RGB')
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)
  except _DAMAGED as error:
    raise UnreadableImage(f'cannot be decoded ({error})') from error


def apply_orientation(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
  """Square pixels [h, h, c] of a decoded picture, turned as its EXIF says.

  Raises:
    Refused: its EXIF is damaged.
  """
  try:
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
  except _DAMAGED as error:
    raise UnreadableImage(f'cannot be decoded ({error})') from error
  return np.ascontiguousarray(turn(pixels)) if turn else pixels


def _from_16_bits(image: Image.Image) -> Image.Image:
  values = np.asarray(image).astype(np.int64)
  if values.min() < 0 or values.max() > 65535:
    raise UnreadableImage('has 32-bit pixels; 8 or 16 bits are read')
  return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def crop(
  image: Image.Image,
  res: int,
  whole: tuple[int, int] | None = None,
  scale: float = 1,
) -> np.ndarray:
  """Centre square of a picture, resized, as uint8 [res, res, channels].

  Args:
    whole, scale: width and height before the decoder made it smaller by that factor. It
      rounds odd sides up, and the square would be beside the middle.
  """
  width, height = whole or image.size
  square = min(width, height)
  left, top = (width - square) // 2 / scale, (height - square) // 2 / scale
  side = square / scale
  # A whole factor averages whole pixels, exactly and without ringing; any other factor
  # needs Lanczos to stay sharp without aliasing; bicubic enlarges smoothly.
  if side % res == 0:
    method = Image.Resampling.BOX
  else:
    method = Image.Resampling.LANCZOS if side > res else Image.Resampling.BICUBIC
  if (side, image.size) != (res, (res, res)):
    box = (left, top, left + side, top + side)
    image = image.resize((res, res), method, box=box)
  return np.asarray(image).reshape(res, res, -1)


def pad(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
  """The picture in the middle of a square of a colour."""
  side = max(image.size)
  colour = Image.new('RGB', (1, 1), background).convert(image.mode).getpixel((0, 0))
  page = Image.new(image.mode, (side, side), colour)
  page.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
  return page


def area_downsample(images: np.ndarray, factor: int) -> np.ndarray:
  """uint8 [n, h, w, c] -> uint8 [n, h / factor, w / factor, c], rounded once."""
  n, h, w, c = images.shape
  boxes = images.reshape(n, h // factor, factor, w // factor, factor, c)
  return np.rint(boxes.mean((2, 4), dtype=np.float64)).astype(np.uint8)
