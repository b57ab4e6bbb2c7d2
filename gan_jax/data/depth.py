"""Images of more than 8 bits per value, and the range of values that becomes 0..255.

Cameras store 10 to 14 bits in 16, and programs store 0..255 as 32-bit integers or 0..1
as floating-point numbers. Scaled by the full range of their type, such images would be
nearly black. The range is therefore that of the values in use. All images of a set
share it: a range of each image would make dark images as bright as the others.
"""

import io
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from gan_jax import UserError

INT16, INT32, FLOAT = '16-bit', '32-bit', 'floating-point'  # kinds of values
Range = tuple[float, float]  # the values that become 0 and 255
Ranges = Mapping[str, Range]  # kind of values -> range; else each image has its own
Span = tuple[str, float, float]  # kind of values, lowest and highest of an image
FULL_RANGES: Ranges = {INT16: (0, 2**16 - 1), INT32: (0, 2**31 - 1), FLOAT: (0, 1)}
AUTO = 'auto'
SETTINGS = (
  "'auto' (of the set), 'image' (of each image), 'full' (of the type) or LOW,HIGH"
)
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_NATIVE = 'L' if sys.byteorder == 'little' else 'B'


def value_kind(image: Image.Image) -> str:
  """Kind of the values of an opened image that is not loaded; '' for up to 8 bits."""
  mode = image.mode
  if mode == 'F':
    return FLOAT
  if mode.startswith('I'):
    return INT32 if mode == 'I' and _bits(image) > 16 else INT16
  if image.format in ('PNG', 'TIFF') and mode in ('RGB', 'RGBA') and _bits(image) == 16:
    return INT16  # pillow would read the high bytes only
  return ''


def fixed_ranges(setting: str, key: str) -> Ranges | None:
  """The ranges that a setting names; None for 'auto', whose ranges the images decide.

  Args:
    setting: 'auto', 'image', 'full', or two numbers: '0,4095'.
    key: the config key or flag, for the error message.

  Raises:
    UserError: none of these, or LOW is not below HIGH.
  """
  if setting == AUTO:
    return None
  if setting in ('image', 'full'):
    return FULL_RANGES if setting == 'full' else {}
  try:
    low, high = map(float, re.split(r'\s*,\s*', setting.strip(' ()')))
  except ValueError:
    low, high = math.nan, math.nan
  if not (low < high and math.isfinite(low) and math.isfinite(high)):
    raise UserError(
      f'{key}={setting}: {SETTINGS} are allowed, two numbers with LOW below HIGH.'
    )
  return dict.fromkeys(FULL_RANGES, (low, high))


def value_span(image: Image.Image) -> Span | None:
  """Decodes an opened image; None if its values have up to 8 bits.

  Raises:
    ValueError: values are not finite; and what pillow raises for corrupted content.
  """
  if not (kind := value_kind(image)):
    return None
  values, _ = _read_values(image)
  return kind, float(values.min()), float(values.max())


def enclosing_ranges(spans: Iterable[Span | None]) -> Ranges:
  """The range of each kind of values that contains the spans of all images."""
  found: dict[str, tuple[float, float]] = {}
  for span in spans:
    if span:
      kind, low, high = span
      earlier = found.get(kind, (low, high))
      found[kind] = min(low, earlier[0]), max(high, earlier[1])
  return {kind: _enclosing_range(kind, *found[kind]) for kind in sorted(found)}


def describe_ranges(ranges: Ranges) -> str:
  """'16-bit values 0 to 4095 become 0 to 255'; '' without ranges."""
  return ', '.join(
    f'{kind} values {low:g} to {high:g} become 0 to 255'
    for kind, (low, high) in ranges.items()
  )


def to_8_bits(image: Image.Image, ranges: Ranges) -> Image.Image:
  """Decodes an opened image of more than 8 bits to L, LA, RGB or RGBA.

  Values below or above the range become 0 or 255. Without a range for its kind the
  image is scaled by that of its own values.

  Raises:
    ValueError: values are not finite; and what pillow raises for corrupted content.
  """
  kind = value_kind(image)
  white_is_zero = image.format == 'TIFF' and _tag(image, _PHOTOMETRIC, 1) == 0
  values, alpha = _read_values(image)
  low, high = ranges.get(kind) or _enclosing_range(
    kind, float(values.min()), float(values.max())
  )
  pixels = _scale(values, low, high)
  if white_is_zero:
    pixels = 255 - pixels
  if alpha is not None:
    pixels = np.dstack([pixels, _scale(alpha, 0, 2**16 - 1)])
  return Image.fromarray(pixels)


def _enclosing_range(kind: str, low: float, high: float) -> Range:
  """The range of the fewest bits that contains low..high.

  The upper end is a power of two, less one for values above 2: values of 12 bits give
  0..4095 even if 4095 itself does not occur, and values up to 1 give 0..1. More than
  half of the range is used. Negative values have no such convention, except -1..1.
  """
  if low < 0:
    return (-1, 1) if -1 <= low < -0.5 and high <= 1 else (low, max(high, low + 1))
  if high == 0:
    return FULL_RANGES[kind]
  if kind == FLOAT and high <= 2:
    return 0, 2.0 ** math.ceil(math.log2(high))
  return 0, 2.0 ** math.ceil(math.log2(high + 1)) - 1


def _scale(values: np.ndarray, low: float, high: float) -> UInt8[np.ndarray, '...']:
  if values.dtype == np.uint16:  # by a table: large images need no more memory
    return _scale(np.arange(2**16, dtype=np.float64), low, high)[values]
  scaled = (values.astype(np.float64) - low) * 255 / (high - low)
  return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _read_values(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
  """(values [h, w] or [h, w, 3], alpha uint16 [h, w] or None) of an opened image."""
  rawmode = _rawmode(image)
  transparent = image.info.get('transparency') if image.format == 'PNG' else None
  if rawmode == 'LA;16B':
    # pillow has no mode for it: two values of 16 bits are read as one of 32.
    pairs = np.asarray(_reopened(image, lambda _: 'I;32B', 'I')).view(np.uint32)
    return (pairs >> 16).astype(np.uint16), (pairs & 0xFFFF).astype(np.uint16)
  if image.mode in ('RGB', 'RGBA'):
    values = _read_two_bytes(image)
    if values.shape[-1] == 4:
      values, alpha = values[..., :3], values[..., 3]
      if rawmode.startswith('RGBa'):
        values = _unpremultiply(values, alpha)
      return values, alpha
  else:
    values = np.asarray(image)
    if not np.isfinite(values).all():
      raise ValueError('it has values that are not finite')
    if values.dtype.kind == 'u':
      values = values.astype(np.uint16)  # in the byte order of the machine
  if transparent is None:
    return values, None
  pixels = values.reshape(*values.shape[:2], -1)
  return values, np.where((pixels == transparent).all(-1), 0, 2**16 - 1).astype(
    np.uint16
  )


def _read_two_bytes(image: Image.Image) -> np.ndarray:
  """The uint16 [h, w, 3 or 4] values of an image that pillow reads as 8-bit RGB(A).

  pillow takes one byte of each value, which one depends on the raw mode: the image is
  decoded twice.
  """
  order = 'B' if image.format == 'PNG' or _byte_order(image) == b'MM' else 'L'
  other = {'B': 'L', 'L': 'B'}

  def high(rawmode: str) -> str:
    rawmode = rawmode.replace('RGBa', 'RGBA')
    # A plane of a TIFF, whose raw mode pillow takes for one of 8 bits.
    return f'{rawmode};16{order}' if len(rawmode) == 1 else rawmode

  def low(rawmode: str) -> str:
    rawmode = high(rawmode)
    written = rawmode[-1] if rawmode[-1] in other else _NATIVE  # libtiff: 'N'
    return rawmode[:-1] + other[written]

  high_bytes = np.asarray(_reopened(image, high)).astype(np.uint16)
  return high_bytes << 8 | np.asarray(_reopened(image, low))


def _reopened(
  image: Image.Image, change: Callable[[str], str], mode: str = ''
) -> Image.Image:
  """A second reader of an opened image, with other raw modes and another mode."""
  assert isinstance(image, ImageFile.ImageFile) and isinstance(image.fp, io.BytesIO)
  again = Image.open(io.BytesIO(image.fp.getvalue()), formats=[image.format or ''])
  tiles = []
  for tile in again.tile:
    if isinstance(tile.args, tuple):
      args: str | tuple = (change(tile.args[0]), *tile.args[1:])
    else:
      args = change(tile.args or '')
    tiles.append(tile._replace(args=args))
  again.tile = tiles
  if mode:
    again._mode = mode
  return again


def _unpremultiply(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  colors = values.astype(np.float64) * (2**16 - 1) / np.maximum(alpha, 1)[..., None]
  return np.minimum(np.rint(colors), 2**16 - 1).astype(np.uint16)


def _bits(image: Image.Image) -> int:
  """Bits per value of a PNG, a TIFF or an integer image."""
  if image.format == 'TIFF':
    bits = _tag(image, _BITS_PER_SAMPLE, 1)
    return max(bits) if isinstance(bits, tuple) else bits
  if image.format == 'PPM':
    return 16  # pillow scales all integers to 16 bits
  return 16 if ';16' in _rawmode(image) else 32 if image.mode == 'I' else 8


def _tag(image: Image.Image, tag: int, default: int) -> int | tuple[int, ...]:
  return image.tag_v2.get(tag, default)  # type: ignore[attr-defined]


def _byte_order(image: Image.Image) -> bytes:
  return image.tag_v2.prefix  # type: ignore[attr-defined]


def _rawmode(image: Image.Image) -> str:
  """pillow's name for the bytes of an image that is not loaded."""
  tiles = getattr(image, 'tile', None)
  args = tiles[0].args if tiles else ''
  if isinstance(args, tuple):
    args = str(args[0])
  return args or ''
