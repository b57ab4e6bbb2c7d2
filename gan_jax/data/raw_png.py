"""PNGs that only wrap their pixels, read and written at about the speed of memory.

Any reader of PNG reads them. Of one that was compressed or filtered nothing is said
here; pictures.py reads those.
"""

import struct
import zlib

import numpy as np

from gan_jax.data.decode import UnreadableImage

_START = b'\x89PNG\r\n\x1a\n'
_COLOUR_TYPE = {1: 0, 3: 2, 4: 6}  # by number of channels
_STORED = b'\x78\x01'  # what zlib data of level 0 begin with


def encode_png(image: np.ndarray) -> bytes:
  """uint8 [h, w, 1, 3 or 4] as a PNG, about 0.1% larger than its pixels."""
  h, w, c = image.shape
  rows = np.zeros((h, 1 + w * c), np.uint8)  # a row begins with its filter: 0 is none
  rows[:, 1:] = image.reshape(h, w * c)
  body = zlib.compress(rows.tobytes(), 0)
  return _head(image.shape, len(body)) + body + _tail(body)


def decode_png(content: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
  """A wrapped picture as a view uint8 [h, w, c], or None if it is another picture.

  Raises:
    Refused: it is damaged.
  """
  h, w, c = shape
  size = int.from_bytes(content[33:37])
  head = _head(shape, size)
  if not content.startswith(head + _STORED):
    return None
  try:
    # zlib's own checksum is verified; PNG's would say the same once more.
    rows = zlib.decompress(content[len(head) : len(head) + size], bufsize=size)
  except zlib.error as error:
    raise UnreadableImage(f'cannot be decoded ({error})') from error
  if len(rows) != h * (1 + w * c):
    raise UnreadableImage('cannot be decoded (its pixels are not as many as it claims)')
  table = np.frombuffer(rows, np.uint8).reshape(h, 1 + w * c)
  if table[:, 0].any():
    return None
  return table[:, 1:].reshape(shape)


def _head(shape: tuple[int, ...], size: int) -> bytes:
  """All that stands before the `size` bytes of zlib data."""
  h, w, c = shape
  about = b'IHDR' + struct.pack('>IIBBBBB', w, h, 8, _COLOUR_TYPE[c], 0, 0, 0)
  return _START + _word(13) + about + _word(zlib.crc32(about)) + _word(size) + b'IDAT'


def _tail(body: bytes) -> bytes:
  """All that stands after the zlib data."""
  checksum = zlib.crc32(body, zlib.crc32(b'IDAT'))
  return _word(checksum) + _word(0) + b'IEND' + _word(zlib.crc32(b'IEND'))


def _word(value: int) -> bytes:
  return struct.pack('>I', value)
