"""Arrays from untrusted .npz, .npy and .safetensors files.

A size that a file claims is compared with the bytes that are present before any memory
is allocated. Arrays are read-only views of those bytes where possible.

.safetensors files are parsed here instead of by the `safetensors` package: the format
is a JSON header and raw bytes, the package is installed only with the export extra, and
one set of limits and error sentences then holds for every format.
"""

import json
import math
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

AGAIN = 'so fetch it again and compare its size'  # of an incomplete file
MAX_ZIP_MEMBERS = 20_000
MAX_EXPANSION = 20  # unpacked size / file size; 16 MiB are allowed beyond that
MAX_HEADER_BYTES = 16 << 20  # of a .safetensors file
_END_OF_ZIP = 22 + (1 << 16)  # bytes of the last record of a zip file with its comment

RawBytes = bytes | memoryview


class UnsafeFileError(Exception):
  """What is wrong with a file, as a predicate; `weights` puts the path in front."""


class ZipArchive:
  """A zip file in memory. Members that are stored uncompressed are views of it.

  Attributes:
    members: zipfile.ZipInfo by name.

  Raises:
    UnsafeFileError: too many members, or more unpacked bytes than `max_unpacked_bytes`.
  """

  def __init__(self, data: memoryview):
    self._data = data
    if sum(1 for _ in re.finditer(b'PK\x01\x02', data)) > MAX_ZIP_MEMBERS:
      raise UnsafeFileError(f'has more than {MAX_ZIP_MEMBERS} zip members')
    if b'PK\x05\x06' not in bytes(data[-_END_OF_ZIP:]):
      raise UnsafeFileError(
        f'ends early: the list of members at the end of a zip file is missing, {AGAIN}'
      )
    with zipfile.ZipFile(_MemoryFile(data)) as z:
      self.members = {info.filename: info for info in z.infolist()}
    unpacked = sum(info.file_size for info in self.members.values())
    if unpacked > max_unpacked_bytes(data):
      raise UnsafeFileError(f'would unpack to more than {MAX_EXPANSION} times its size')

  def read(self, name: str) -> memoryview:
    """The bytes of a member, whose length and checksum are verified."""
    if name not in self.members:
      raise UnsafeFileError(f'has no zip member {name[:80]!r}')
    info = self.members[name]
    start = info.header_offset
    if self._data[start : start + 4] != b'PK\x03\x04' or info.flag_bits & 1:
      raise UnsafeFileError(f'has a corrupted or encrypted zip member {name[:80]!r}')
    name_and_extra_lengths = struct.unpack_from('<HH', self._data, start + 26)
    start += 30 + sum(name_and_extra_lengths)
    raw = self._data[start : start + info.compress_size]
    if info.compress_type == zipfile.ZIP_DEFLATED:
      raw = memoryview(zlib.decompressobj(-15).decompress(raw, info.file_size or 1))
    elif info.compress_type != zipfile.ZIP_STORED:
      raise UnsafeFileError(
        f'uses a compression other than deflate for the zip member {name[:80]!r}'
      )
    if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
      raise UnsafeFileError(
        f'is corrupted: the checksum of the zip member {name[:80]!r} does not match'
      )
    return raw


class _MemoryFile:
  """A memoryview as a seekable file, without a copy of the bytes."""

  def __init__(self, data: memoryview):
    self._data, self._position = data, 0

  def seek(self, offset: int, whence: int = 0) -> int:
    position = offset + (0, self._position, len(self._data))[whence]
    if position < 0:
      raise OSError('seek before the start of the file')
    self._position = position
    return position

  def tell(self) -> int:
    return self._position

  def seekable(self) -> bool:
    return True

  def read(self, n: int = -1) -> bytes:
    end = len(self._data) if n is None or n < 0 else self._position + n
    chunk = bytes(self._data[self._position : end])
    self._position += len(chunk)
    return chunk


def max_unpacked_bytes(data: memoryview) -> int:
  """The most bytes that the contents of a file may unpack to."""
  return MAX_EXPANSION * len(data) + (16 << 20)


def read_npy(raw: memoryview) -> np.ndarray:
  """The array of an .npy file of version 1.0 or 2.0."""
  stream = _MemoryFile(raw)
  version = np.lib.format.read_magic(stream)
  header_readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in header_readers:
    raise UnsafeFileError(
      f'holds an array in version {version} of the .npy format; versions (1, 0) and '
      '(2, 0) can be read'
    )
  shape, fortran_order, dtype = header_readers[version](stream)
  return array_from_bytes(raw[stream.tell() :], dtype, shape, fortran_order)


def array_from_bytes(
  raw: RawBytes, dtype: np.dtype, shape: tuple[int, ...], fortran_order: bool = False
) -> np.ndarray:
  """An array over `raw`, which must have exactly the bytes that the shape needs."""
  if dtype.hasobject or dtype.kind not in 'biuf':
    raise UnsafeFileError(
      f"holds an array of dtype '{dtype}': booleans, integers and floats can be read"
    )
  if math.prod(check_shape(shape)) * dtype.itemsize != len(raw):
    raise UnsafeFileError(f'claims an array of shape {shape} in {len(raw)} bytes')
  return np.frombuffer(raw, dtype).reshape(shape, order='F' if fortran_order else 'C')


def check_shape(value: Any) -> tuple[int, ...]:
  """`value` as a shape: at most 32 integers, each from 0 to 2^63 - 1."""
  if not isinstance(value, tuple | list) or len(value) > 32:
    raise UnsafeFileError('holds an array with an invalid shape')
  if not all(type(n) is int and 0 <= n < 2**63 for n in value):
    raise UnsafeFileError('holds an array with an invalid shape')
  return tuple(value)


_SAFETENSORS_DTYPES = {
  'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': 'bf16', 'I64': '<i8',
  'I32': '<i4', 'I16': '<i2', 'I8': 'i1', 'U64': '<u8', 'U32': '<u4',
  'U16': '<u2', 'U8': 'u1', 'BOOL': '?',
}  # fmt: skip


def read_safetensors(data: memoryview) -> dict[str, np.ndarray]:
  """Arrays of a .safetensors file by name; bfloat16 becomes float32."""
  (header_bytes,) = struct.unpack_from('<Q', data)
  limit = min(MAX_HEADER_BYTES, len(data) - 8)
  if limit < header_bytes <= MAX_HEADER_BYTES:
    raise UnsafeFileError(
      f'ends early: {header_bytes - limit} bytes or more are missing, {AGAIN}'
    )
  if header_bytes > limit:
    raise UnsafeFileError(
      f'claims a header of {header_bytes} bytes: at most {limit} are possible'
    )
  header = json.loads(bytes(data[8 : 8 + header_bytes]))
  header.pop('__metadata__', None)
  body = data[8 + header_bytes :]
  arrays: dict[str, np.ndarray] = {}
  previous_end = 0
  for name, entry in sorted(header.items(), key=lambda e: e[1]['data_offsets']):
    start, end = entry['data_offsets']
    if end > len(body):
      raise UnsafeFileError(
        f'ends early: {end - len(body)} bytes or more are missing, {AGAIN}'
      )
    if entry['dtype'] not in _SAFETENSORS_DTYPES or start != previous_end:
      raise UnsafeFileError(f'has an invalid dtype or offset for {name[:80]!r}')
    dtype = _SAFETENSORS_DTYPES[entry['dtype']]
    arrays[name] = _safetensors_array(body[start:end], dtype, tuple(entry['shape']))
    previous_end = end
  return arrays


def _safetensors_array(raw: RawBytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
  if dtype != 'bf16':
    return array_from_bytes(raw, np.dtype(dtype), shape)
  return bfloat16_to_float32(array_from_bytes(raw, np.dtype('<u2'), shape))


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
  """float32 of bfloat16 values that were read as uint16."""
  return np.left_shift(bits, 16, dtype='<u4').view('<f4')
