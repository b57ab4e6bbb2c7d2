"""Uncompressed, unfiltered PNGs, encoded and decoded at about memory speed.

They are standard PNGs: any PNG reader decodes them. All other PNGs are decoded by
decode.py.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from gan_jax.data.decode import UnusableImageError

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # number of channels -> PNG color type
_UNCOMPRESSED = b'\x78\x01'  # the first bytes of zlib data of level 0


def encode_raw_png(image: UInt8[np.ndarray, 'h w c']) -> bytes:
  """Encodes an image of 1, 3 or 4 channels; the PNG is about 0.1% larger than it."""
  h, w, c = image.shape
  rows = np.zeros((h, 1 + w * c), np.uint8)  # a row starts with its filter; 0 is none
  rows[:, 1:] = image.reshape(h, w * c)
  body = zlib.compress(rows.tobytes(), 0)
  return _header(image.shape, len(body)) + body + _trailer(body)


def decode_raw_png(
  content: bytes, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, 'h w c'] | None:
  """Decodes a PNG of `encode_raw_png` as a read-only view of its bytes.

  Args:
    content: an encoded image.
    shape: the expected (h, w, c).

  Returns:
    None if `content` is any other image: of another shape, compressed or filtered.

  Raises:
    UnusableImageError: a raw PNG that is corrupted.
  """
  h, w, c = shape
  size = int.from_bytes(content[33:37])
  header = _header(shape, size)
  if not content.startswith(header + _UNCOMPRESSED):
    return None
  try:
    # This verifies zlib's checksum; the checksum of the PNG would be redundant.
    rows = zlib.decompress(content[len(header) : len(header) + size], bufsize=size)
  except zlib.error as error:
    raise UnusableImageError(f'cannot be decoded ({error})') from error
  if len(rows) != h * (1 + w * c):
    raise UnusableImageError(
      'cannot be decoded (the number of pixels differs from its header)'
    )
  table = np.frombuffer(rows, np.uint8).reshape(h, 1 + w * c)
  if table[:, 0].any():
    return None
  return table[:, 1:].reshape(shape)


def _header(shape: tuple[int, ...], size: int) -> bytes:
  """Everything before the `size` bytes of zlib data."""
  h, w, c = shape
  ihdr = b'IHDR' + struct.pack('>IIBBBBB', w, h, 8, _COLOR_TYPES[c], 0, 0, 0)
  checksum = _uint32(zlib.crc32(ihdr))
  return _SIGNATURE + _uint32(13) + ihdr + checksum + _uint32(size) + b'IDAT'


def _trailer(body: bytes) -> bytes:
  """Everything after the zlib data."""
  checksum = zlib.crc32(body, zlib.crc32(b'IDAT'))
  return _uint32(checksum) + _uint32(0) + b'IEND' + _uint32(zlib.crc32(b'IEND'))


def _uint32(value: int) -> bytes:
  return struct.pack('>I', value)
