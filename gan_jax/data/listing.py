"""The files of a folder or a zip: listed once, read by name, none of them opened."""

import dataclasses
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from gan_jax import UserError
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.formats import readable_suffixes, unreadable_format
from gan_jax.data.names import (
  compose,
  escape_unprintable,
  path_form,
  suffix_of,
  system_reason,
)

_UTF8_FLAG = 0x800  # of a zip entry whose name is UTF-8
_UNICODE_PATH = 0x7075  # extra field of a zip entry: its name in UTF-8

Identity = tuple[int, int]  # device and inode of a folder


def _read_nothing(name: str, limit: int) -> bytes:
  raise FileNotFoundError(name)


@dataclasses.dataclass(eq=False)
class FileList:
  """The files of a folder or zip.

  Each file is in `files`, in `refused`, or counted by `n_ignored`.

  Attributes:
    kind: 'folder' or 'zip'.
    path: of the folder or zip.
    files: name -> (bytes, modification time in ns or CRC-32). Names are relative and
      in the form of `path_form`. Enters the fingerprint.
    refused: name -> reason, of files that could be images but are not opened.
    ignored: name -> reason, of files and folders that are no image data; names of
      folders end with '/'.
    n_ignored: number of files in `ignored` and in its folders.
    read: (name, limit) -> at most `limit` bytes of a file; raises UnusableImageError.
  """

  kind: str
  path: str
  files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
  refused: dict[str, str] = dataclasses.field(default_factory=dict)
  ignored: dict[str, str] = dataclasses.field(default_factory=dict)
  n_ignored: int = 0
  read: Callable[[str, int], bytes] = _read_nothing

  def refuse(self, name: str, reason: str) -> None:
    """Adds a file to `refused`; a further one of that name gets a number."""
    name = shown = escape_unprintable(name)
    number = 1
    while shown in self.refused:
      number += 1
      shown = f'{name} ({number})'
    self.refused[shown] = reason

  def ignore(self, name: str, reason: str, n_files: int) -> None:
    """Adds a file, or `n_files` files of a folder, to `ignored`."""
    self.n_ignored += n_files
    if n_files:
      self.ignored[escape_unprintable(name)] = reason

  def ignore_listed(self, names: list[str], folder: str, reason: str) -> None:
    """Moves listed files of a folder to `ignored`."""
    for name in names:
      del self.files[name]
    self.ignore(folder, reason, len(names))


def list_folder(root: Path) -> FileList:
  """Lists a folder; symbolic links that lead to files and folders are followed.

  Raises:
    UserError: the folder cannot be read.
  """
  listing = FileList('folder', str(root))
  found: dict[str, str] = {}  # name -> path, where the two differ
  try:
    status = os.stat(root)
    os.scandir(root).close()
  except OSError as error:
    raise UserError(f'{root} cannot be read ({error.strerror}).') from error
  _walk(listing, found, str(root), '', ((status.st_dev, status.st_ino),))

  def read(name: str, limit: int) -> bytes:
    try:
      with open(found.get(name) or root / name, 'rb') as file:
        return file.read(limit)
    except OSError as error:
      raise UnusableImageError(f'cannot be read ({error.strerror})') from error

  listing.read = read
  return listing


def _walk(
  listing: FileList,
  found: dict[str, str],
  folder: str,
  prefix: str,
  above: tuple[Identity, ...],
) -> None:
  """Lists the files of a folder and of its sub-folders.

  Args:
    listing: gets the files.
    found: gets the paths that differ from the names.
    folder: the path of the folder.
    prefix: its name in the listing, '' or ending with '/'.
    above: the folder and those that contain it: a link to one of them is a loop.
  """
  try:
    with os.scandir(folder) as entries:
      sorted_entries = sorted(entries, key=lambda e: e.name)
  except OSError as error:
    listing.refuse(prefix, f'cannot be read ({error.strerror})')
    return
  for entry in sorted_entries:
    name = prefix + entry.name
    if reason := system_reason(entry.name):
      is_folder = entry.is_dir(follow_symlinks=False)
      n_files = _count_files(entry.path) if is_folder else 1
      listing.ignore(f'{name}/' if is_folder else name, reason, n_files)
      continue
    try:
      status = entry.stat()
    except OSError as error:
      _leave_out(listing, name, _why_unreadable(entry, error))
      continue
    if stat.S_ISDIR(status.st_mode):
      identity = status.st_dev, status.st_ino
      if identity in above:
        listing.ignored[escape_unprintable(f'{name}/')] = (
          'is a symbolic link to a folder that contains it'
        )
      else:
        _walk(listing, found, entry.path, f'{name}/', (*above, identity))
    elif not stat.S_ISREG(status.st_mode):
      _leave_out(listing, name, 'is not a regular file')
    else:
      _add(listing, found, name, entry.path, (status.st_size, status.st_mtime_ns))


def _add(
  listing: FileList,
  found: dict[str, str],
  name: str,
  path: str,
  state: tuple[int, int],
) -> None:
  known = path_form(name)
  if known in listing.files:
    listing.refuse(name, f'has the same path as {known}, which is used')
    return
  listing.files[known] = state
  if known != name:
    found[known] = path


def _leave_out(listing: FileList, name: str, reason: str) -> None:
  """Refuses a file that could be an image or a folder; ignores it otherwise."""
  suffix = suffix_of(name)
  if not suffix or suffix in readable_suffixes() or unreadable_format(suffix):
    listing.refuse(name, reason)
  else:
    listing.ignore(name, reason, 1)


def _why_unreadable(entry: os.DirEntry[str], error: OSError) -> str:
  if entry.is_symlink():
    return f'is a symbolic link that leads to no file ({error.strerror})'
  return f'cannot be read ({error.strerror})'


def _count_files(folder: str) -> int:
  return sum(len(files) for _, _, files in os.walk(folder))


def list_zip(path: Path) -> FileList:
  """Lists a zip; links in it, and paths that lead out of it, are refused.

  Raises:
    UserError: the zip cannot be read.
  """
  try:
    archive = zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is not a readable zip file ({error}).') from error
  listing = FileList('zip', str(path))
  ignored: dict[str, tuple[str, int]] = {}  # name -> reason, number of files
  # The first of several entries with one name, unlike ZipFile.getinfo.
  entries: dict[str, zipfile.ZipInfo] = {}
  for entry in archive.infolist():
    raw = _entry_name(entry)
    name = path_form(raw)
    if reason := _unsafe_zip_entry(entry, raw):
      listing.refuse(raw, reason)
    elif raw.endswith(('/', '\\')):
      continue
    elif system := _system_part(name):
      part, reason = system
      ignored[part] = reason, ignored.get(part, ('', 0))[1] + 1
    elif name in entries:
      listing.refuse(name, 'is in the zip twice; the first one is used')
    elif entry.flag_bits & 1:
      listing.refuse(name, 'is encrypted')
    else:
      entries[name] = entry
  for part, (reason, n_files) in sorted(ignored.items()):
    listing.ignore(part, reason, n_files)
  listing.files = {name: (e.file_size, e.CRC) for name, e in entries.items()}

  def read(name: str, limit: int) -> bytes:
    try:
      with archive.open(entries[name]) as file:  # reads no more than it declares
        return file.read(limit)
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
      raise UnusableImageError(f'cannot be read from the zip ({error})') from error
    except (zipfile.BadZipFile, zlib.error) as error:
      raise UnusableImageError(f'is corrupted in the zip ({error})') from error

  listing.read = read
  return listing


def _entry_name(entry: zipfile.ZipInfo) -> str:
  """The name of a zip entry.

  Python reads names without the UTF-8 flag as cp437. Many archivers, macOS's among
  them, write UTF-8 without the flag, or the name in UTF-8 in an extra field.
  """
  name = entry.filename
  if name.isascii() or entry.flag_bits & _UTF8_FLAG:
    return name
  try:
    encoded = name.encode('cp437')
    return (_unicode_path(entry.extra, encoded) or encoded).decode()
  except UnicodeError:
    return name


def _unicode_path(extra: bytes, name: bytes) -> bytes:
  """The name in UTF-8 of Info-ZIP's extra field, if it belongs to `name`; else b''."""
  while len(extra) >= 4:
    kind, size = (int.from_bytes(extra[i : i + 2], 'little') for i in (0, 2))
    field, extra = extra[4 : 4 + size], extra[4 + size :]
    checksum = int.from_bytes(field[1:5], 'little')
    if kind == _UNICODE_PATH and checksum == zlib.crc32(name):
      return field[5:]
  return b''


def _unsafe_zip_entry(entry: zipfile.ZipInfo, name: str) -> str:
  """Why an entry of a zip could be an attack; '' if it is safe."""
  parts = name.replace('\\', '/').split('/')
  if name.startswith(('/', '\\')) or parts[0].endswith(':'):
    return 'is an absolute path'
  if '..' in parts:
    return 'is a path that leads out of the zip'
  if stat.S_ISLNK(entry.external_attr >> 16):
    return 'is a symbolic link'
  return ''


def _system_part(name: str) -> tuple[str, str] | None:
  """(name of the file or folder, reason) if a part of `name` is no image data."""
  parts = name.split('/')
  for i, part in enumerate(parts):
    if reason := system_reason(part):
      is_folder = i + 1 < len(parts)
      return '/'.join(parts[: i + 1]) + ('/' if is_folder else ''), reason
  return None


def sort_key(name: str) -> tuple[str, str]:
  """Sorts names alike in folders and zips, whatever their Unicode composition."""
  return compose(name), name
