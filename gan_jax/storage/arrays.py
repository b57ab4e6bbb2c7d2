"""Arrays in zip, .npy and .safetensors files that are not trusted.

Nothing that a file claims about sizes is believed before it fits the bytes that are
there. Arrays are views of those bytes where they can be.
"""

import json
import math
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

MEMBERS = 20_000  # of a zip file
EXPANSION = 20  # how much larger than its file (and 16 MB) all that is in it may be
HEADER = 16 << 20  # bytes of a safetensors header


class UnsafeFileError(Exception):
  """What is wrong with a file; `files` puts its name in front."""


class Archive:
  """A zip file in memory; members that are stored are views of it."""

  def __init__(self, data: memoryview):
    self._data = data
    if sum(1 for _ in re.finditer(b'PK\x01\x02', data)) > MEMBERS:
      raise UnsafeFileError(f'has more than {MEMBERS} members')
    with zipfile.ZipFile(_Stream(data)) as z:
      self.names = {info.filename: info for info in z.infolist()}
    if sum(i.file_size for i in self.names.values()) > size_limit(data):
      raise UnsafeFileError(f'would unpack to more than {EXPANSION} times its size')

  def read(self, name: str) -> memoryview:
    """A member's bytes, if they are as many and have the checksum it claims."""
    if name not in self.names:
      raise UnsafeFileError(f'has no member {name[:80]!r}')
    info = self.names[name]
    start = info.header_offset
    if self._data[start : start + 4] != b'PK\x03\x04' or info.flag_bits & 1:
      raise UnsafeFileError(f'has a damaged or encrypted member {name[:80]!r}')
    lengths = struct.unpack_from('<HH', self._data, start + 26)
    start += 30 + sum(lengths)
    raw = self._data[start : start + info.compress_size]
    if info.compress_type == zipfile.ZIP_DEFLATED:
      raw = memoryview(zlib.decompressobj(-15).decompress(raw, info.file_size or 1))
    elif info.compress_type != zipfile.ZIP_STORED:
      raise UnsafeFileError(f'is compressed in a way that is not known ({name[:80]!r})')
    if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
      raise UnsafeFileError(f'is damaged: the checksum of {name[:80]!r} is wrong')
    return raw


class _Stream:
  """A memoryview as the seekable file that zipfile wants, without a copy."""

  def __init__(self, data: memoryview):
    self._data, self._at = data, 0

  def seek(self, offset: int, whence: int = 0) -> int:
    at = offset + (0, self._at, len(self._data))[whence]
    if at < 0:
      raise OSError('a position before the start')
    self._at = at
    return at

  def tell(self) -> int:
    return self._at

  def seekable(self) -> bool:
    return True

  def read(self, n: int = -1) -> bytes:
    end = len(self._data) if n is None or n < 0 else self._at + n
    part = bytes(self._data[self._at : end])
    self._at += len(part)
    return part


def size_limit(data: memoryview) -> int:
  """Bytes that all within a file may come to."""
  return EXPANSION * len(data) + (16 << 20)


def read_npy(raw: memoryview) -> np.ndarray:
  """The array of an .npy file."""
  stream = _Stream(raw)
  version = np.lib.format.read_magic(stream)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in readers:
    raise UnsafeFileError(f'holds an array in version {version} of the .npy format')
  shape, fortran, dtype = readers[version](stream)
  return make_array(raw[stream.tell() :], dtype, shape, fortran)


def make_array(
  raw: Any, dtype: np.dtype, shape: tuple[int, ...], fortran: bool = False
) -> np.ndarray:
  """An array over bytes that have to be exactly as many as it needs."""
  if dtype.hasobject or dtype.kind not in 'biuf':
    raise UnsafeFileError(f'holds an array of {dtype}, which is no number')
  if math.prod(checked_shape(shape)) * dtype.itemsize != len(raw):
    raise UnsafeFileError(f'claims an array of shape {shape} in {len(raw)} bytes')
  return np.frombuffer(raw, dtype).reshape(shape, order='F' if fortran else 'C')


def checked_shape(value: Any) -> tuple[int, ...]:
  """A claimed shape, if it is one."""
  if not isinstance(value, tuple | list) or len(value) > 32:
    raise UnsafeFileError('holds an array of no possible shape')
  if not all(type(n) is int and 0 <= n < 2**63 for n in value):
    raise UnsafeFileError('holds an array of no possible shape')
  return tuple(value)


_SAFETENSORS = {
  'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': 'bf16', 'I64': '<i8',
  'I32': '<i4', 'I16': '<i2', 'I8': 'i1', 'U64': '<u8', 'U32': '<u4',
  'U16': '<u2', 'U8': 'u1', 'BOOL': '?',
}  # fmt: skip


def read_safetensors(data: memoryview) -> dict[str, np.ndarray]:
  """Arrays by name; bfloat16 becomes float32."""
  (size,) = struct.unpack_from('<Q', data)
  if size > min(HEADER, len(data) - 8):
    raise UnsafeFileError(f'claims a header of {size} bytes')
  header = json.loads(bytes(data[8 : 8 + size]))
  header.pop('__metadata__', None)
  body, arrays, end = data[8 + size :], {}, 0
  for name, entry in sorted(header.items(), key=lambda e: e[1]['data_offsets']):
    start, stop = entry['data_offsets']
    if entry['dtype'] not in _SAFETENSORS or start != end or stop > len(body):
      raise UnsafeFileError(f'has no possible place or type for {name[:80]!r}')
    raw, end = body[start:stop], stop
    arrays[name] = _typed(raw, _SAFETENSORS[entry['dtype']], tuple(entry['shape']))
  return arrays


def _typed(raw: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
  if dtype != 'bf16':
    return make_array(raw, np.dtype(dtype), shape)
  return bfloat16_to_float32(make_array(raw, np.dtype('<u2'), shape))


def bfloat16_to_float32(half: np.ndarray) -> np.ndarray:
  """bfloat16, read as integers, as float32."""
  return np.left_shift(half, 16, dtype='<u4').view('<f4')
