"""Which files of other tools SRC holds, recognised by the first bytes of each."""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from gan_jax import UserError
from gan_jax.data.formats import readable_suffixes

HDF5, IDX, PARQUET, TFRECORD = 'HDF5', 'idx', 'Parquet', 'TFRecord'
_MAX_FILES = 10_000  # looked at in a folder
_TABLE = 'metadata.parquet'
_IDX_TYPES = b'\x08\x09\x0b\x0c\x0d\x0e'


def find_files(path: Path) -> tuple[str, list[Path]]:
  """(kind, files of that kind) of a file, or of a folder without images.

  Returns:
    ('', []) for images, and for what is not recognised.

  Raises:
    UserError: a folder holds files of several kinds.
  """
  if path.is_file():
    kind = file_kind(path)
    return kind, [path] if kind else []
  found: dict[str, list[Path]] = {}
  for file in itertools.islice(_walk(path), _MAX_FILES):
    if file.suffix.lower() in readable_suffixes():
      # Of a folder of images only Hugging Face's tables of their names matter.
      tables = sorted([*path.glob(_TABLE), *path.glob(f'*/{_TABLE}')])
      return (PARQUET, tables) if tables else ('', [])
    if kind := file_kind(file):
      found.setdefault(kind, []).append(file)
  if len(found) > 1:
    examples = ', '.join(f'{kind} ({files[0].name})' for kind, files in found.items())
    raise UserError(
      f'{path} holds files of several kinds, {examples}: give one file as SRC.'
    )
  return found.popitem() if found else ('', [])


def file_kind(path: Path) -> str:
  """HDF5, IDX, PARQUET or TFRECORD; '' for any other content."""
  try:
    with path.open('rb') as file:
      head = file.read(17)
    if head.startswith(b'\x1f\x8b'):
      with gzip.open(path) as compressed:
        return IDX if is_idx(compressed.read(4)) else ''
    n_bytes = path.stat().st_size
  except (OSError, EOFError, zlib.error):
    return ''
  if head.startswith(b'\x89HDF\r\n\x1a\n'):
    return HDF5
  if head.startswith(b'PAR1'):
    return PARQUET
  if is_idx(head):
    return IDX
  return TFRECORD if _is_tfrecord(head, n_bytes) else ''


def _walk(folder: Path) -> Iterator[Path]:
  """Regular files, sorted within folders; hidden ones and links are left out."""
  for root, folders, names in os.walk(folder):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    for name in sorted(names):
      file = Path(root, name)
      if not name.startswith('.') and file.is_file():
        yield file


def is_idx(head: bytes) -> bool:
  """Two zero bytes, the type of the values, and 1 to 4 dimensions."""
  if len(head) < 4:
    return False
  return head[:2] == b'\0\0' and head[2] in _IDX_TYPES and 1 <= head[3] <= 4


def _is_tfrecord(head: bytes, n_bytes: int) -> bool:
  """The length of a record that fits into the file, and the start of a tf.Example."""
  length = int.from_bytes(head[:8], 'little')
  return 0 < length <= n_bytes - 16 and head[12:13] == b'\n'
