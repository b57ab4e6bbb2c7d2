"""Images of a folder or a zip file: which files are usable, and their labels."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from gan_jax import UserError
from gan_jax.data.decode import UnusableImageError

SUFFIXES = {
  *('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff'),
  '.webp',
}
LABEL_TABLES = ('labels.csv', 'labels.jsonl')
MAX_BYTES = 2**28  # of one encoded image
MAX_CLASSES = 100_000
_IGNORED_PREFIXES = ('.', '__MACOSX', 'Thumbs.db')  # files of operating systems


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource:
  """Encoded images by index, in an order that is the same on every machine.

  Attributes:
    kind: 'folder', 'zip' or 'tensorflow-datasets'.
    n_images: number of images, including those that turn out to be corrupted.
    read: index -> (encoded image, label in 0..n_classes-1); raises UnusableImageError.
    display_name: index -> name of the image in messages.
    class_names: empty if there are no labels; every label is 0 then.
    labels: empty for tensorflow-datasets, whose labels are known only by reading.
    refused: name -> reason, of image files that are never opened.
    n_other_files: number of files that are not image files.
    fingerprint: hexadecimal digest that changes with names, sizes and labels.
  """

  kind: str
  n_images: int
  read: Callable[[int], tuple[bytes, int]]
  display_name: Callable[[int], str]
  class_names: tuple[str, ...]
  labels: Int[np.ndarray, ' n_images']
  refused: Mapping[str, str]
  n_other_files: int
  fingerprint: str


@dataclasses.dataclass(frozen=True, eq=False)
class _FileList:
  """The files of a folder or zip.

  Attributes:
    files: name -> (bytes, modification time in ns or CRC-32). Enters the fingerprint.
    refused: name -> reason, of entries that are never opened.
    read: name -> content; raises UnusableImageError.
  """

  kind: str
  path: str
  files: Mapping[str, tuple[int, int]]
  refused: dict[str, str]
  read: Callable[[str], bytes]


def is_path(name: str) -> bool:
  """Whether a dataset's name is a path: /a, ./a, ../a, ~/a or a.zip."""
  return name.startswith(('/', './', '../', '~')) or name.lower().endswith('.zip')


def open_folder_or_zip(path: str | Path) -> ImageSource:
  """Opens the images of a folder or a zip file.

  Labels come from labels.csv (columns 'file' and 'label') or labels.jsonl (the same
  keys) at the top level; without such a table the sub-folders are the classes, in
  alphabetical order. A single folder that contains everything else is skipped.

  Raises:
    UserError: no such file, no images, or ambiguous labels.
  """
  path = Path(path).expanduser()
  if path.is_dir():
    return _make_source(_list_folder(path))
  if not path.is_file():
    raise UserError(f'{path}: there is no such folder or zip file.')
  if not zipfile.is_zipfile(path):
    raise UserError(f'{path} is neither a folder nor a readable zip file.')
  return _make_source(_list_zip(path))


def _list_folder(root: Path) -> _FileList:
  refused: dict[str, str] = {}
  files: dict[str, tuple[int, int]] = {}
  for name, entry in _walk_files(root, ''):
    if entry.is_symlink():
      refused[name] = 'is a symbolic link'
    elif not entry.is_file():
      refused[name] = 'is not a regular file'
    else:
      status = entry.stat(follow_symlinks=False)
      files[name] = status.st_size, status.st_mtime_ns

  def open_without_links(path: str, flags: int) -> int:
    # A link that replaced a file since the folder was listed is not followed.
    return os.open(path, flags | os.O_NOFOLLOW)

  def read(name: str) -> bytes:
    _check_bytes(files[name][0])
    try:
      with open(root / name, 'rb', opener=open_without_links) as file:
        return file.read(MAX_BYTES)
    except OSError as error:
      raise UnusableImageError(f'cannot be read ({error.strerror})') from error

  return _FileList('folder', str(root), files, refused, read)


def _walk_files(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
  """Yields (path relative to the root, entry) of all files, sorted within folders."""
  with os.scandir(folder) as entries:
    for entry in sorted(entries, key=lambda e: e.name):
      if entry.name.startswith(_IGNORED_PREFIXES):
        continue
      if entry.is_dir(follow_symlinks=False):
        yield from _walk_files(folder / entry.name, f'{prefix}{entry.name}/')
      else:
        yield f'{prefix}{entry.name}', entry


def _check_bytes(n_bytes: int) -> None:
  if n_bytes > MAX_BYTES:
    raise UnusableImageError(f'has {n_bytes:,} bytes, more than {MAX_BYTES:,}')


def _list_zip(path: Path) -> _FileList:
  try:
    archive = zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is not a readable zip file ({error}).') from error
  refused: dict[str, str] = {}
  # The first of several entries with one name, unlike ZipFile.getinfo.
  entries: dict[str, zipfile.ZipInfo] = {}
  for entry in archive.infolist():
    name = entry.filename
    if reason := _unsafe_zip_entry(entry):
      refused[escape_unprintable(name)] = reason
    elif entry.is_dir() or _is_ignored(name):
      continue
    elif name in entries:
      refused[escape_unprintable(name)] = 'is in the zip twice; the first one is used'
    elif entry.flag_bits & 1:
      refused[escape_unprintable(name)] = 'is encrypted'
    else:
      entries[name] = entry
  files = {name: (entry.file_size, entry.CRC) for name, entry in entries.items()}

  def read(name: str) -> bytes:
    _check_bytes(files[name][0])
    try:
      with archive.open(entries[name]) as file:  # reads no more than it declares
        return file.read()
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
      raise UnusableImageError(f'cannot be read from the zip ({error})') from error
    except (zipfile.BadZipFile, zlib.error) as error:
      raise UnusableImageError(f'is corrupted in the zip ({error})') from error

  return _FileList('zip', str(path), files, refused, read)


def _unsafe_zip_entry(entry: zipfile.ZipInfo) -> str:
  """Why an entry of a zip could be an attack; '' if it is safe."""
  parts = _zip_path(entry.filename)
  if entry.filename.startswith(('/', '\\')) or parts[0].endswith(':'):
    return 'is an absolute path'
  if '..' in parts:
    return 'is a path that leads out of the zip'
  if stat.S_ISLNK(entry.external_attr >> 16):
    return 'is a symbolic link'
  return ''


def _is_ignored(zip_name: str) -> bool:
  return any(part.startswith(_IGNORED_PREFIXES) for part in _zip_path(zip_name))


def _zip_path(name: str) -> list[str]:
  return name.replace('\\', '/').split('/')


def _make_source(listing: _FileList) -> ImageSource:
  """Separates images from other files, and gives each image its label.

  Raises:
    UserError: no images, or ambiguous labels.
  """
  images = sorted(n for n in listing.files if Path(n).suffix.lower() in SUFFIXES)
  tables = [n for n in listing.files if Path(n).name in LABEL_TABLES]
  prefix = _common_folder([*images, *tables])
  tables = [n for n in tables if n.removeprefix(prefix) in LABEL_TABLES]
  n_other_files = len(listing.files) - len(images) - len(tables)
  if len(tables) > 1:
    raise UserError(f'{listing.path} has both {" and ".join(LABEL_TABLES)}: keep one.')
  if tables:
    labels_as_written = _labels_from_table(listing, images, tables[0], prefix)
    images = list(labels_as_written)
  else:
    labels_as_written = _labels_from_folders(listing.path, images, prefix)
  if not images:
    reasons = f' ({list_refused(listing.refused)})' if listing.refused else ''
    raise UserError(
      f'{listing.path} has no images{reasons}; image files end with '
      f'{", ".join(sorted(SUFFIXES))}.'
    )
  class_names, numbers = _number_classes(labels_as_written, from_table=bool(tables))
  labels = np.array(
    [numbers[labels_as_written[n]] if labels_as_written else 0 for n in images],
    np.int32,
  )
  return ImageSource(
    kind=listing.kind,
    n_images=len(images),
    read=lambda i: (listing.read(images[i]), int(labels[i])),
    display_name=lambda i: escape_unprintable(images[i]),
    class_names=tuple(map(escape_unprintable, class_names)),
    labels=labels,
    refused=listing.refused,
    n_other_files=n_other_files,
    fingerprint=_fingerprint(listing, images, labels),
  )


def _fingerprint(
  listing: _FileList, images: Sequence[str], labels: Int[np.ndarray, ' n']
) -> str:
  digest = hashlib.sha256()
  for name, label in zip(images, labels):
    line = f'{escape_unprintable(name)}\0{listing.files[name]}\0{label}\n'
    digest.update(line.encode())
  return digest.hexdigest()


def _labels_from_table(
  listing: _FileList, images: Sequence[str], table: str, prefix: str
) -> dict[str, str]:
  """Image -> label as the table writes it, for images that have one.

  The names in the table are relative to `prefix`. Images without a label and labels
  without an image are added to `listing.refused`.
  """
  try:
    label_of = _read_table(table, listing.read(table))
  except UnusableImageError as error:
    raise UserError(f'{listing.path}: {table} {error}.') from error
  existing = {n.removeprefix(prefix) for n in images}
  for name in label_of:
    if name not in existing:
      reason = f'is listed in {table}, but does not exist'
      listing.refused.setdefault(escape_unprintable(name), reason)
  labels = {}
  for name in images:
    if (label := label_of.get(name.removeprefix(prefix))) is not None:
      labels[name] = label
    else:
      listing.refused[escape_unprintable(name)] = f'has no label in {table}'
  return labels


def _labels_from_folders(
  path: str, images: Sequence[str], prefix: str
) -> dict[str, str]:
  """Image -> sub-folder of `prefix` that holds it; empty if there are no sub-folders.

  Raises:
    UserError: some images are in sub-folders and others are not.
  """
  parts = {n: n.removeprefix(prefix).split('/') for n in images}
  top_level = [n for n in images if len(parts[n]) == 1]
  if top_level and len(top_level) < len(images):
    raise UserError(
      f'{path} has images beside its sub-folders '
      f'({escape_unprintable(top_level[0])} and {len(top_level) - 1} more): '
      'sub-folders are classes, so move these images into one, or write '
      f'{LABEL_TABLES[0]}.'
    )
  return {} if top_level else {n: parts[n][0] for n in images}


def _common_folder(names: Sequence[str]) -> str:
  """'faces/' if that folder contains all files and is not itself a class, else ''."""
  tops = {n.split('/')[0] for n in names}
  depths = {n.count('/') for n in names}
  has_table = any(n.count('/') == 1 and Path(n).name in LABEL_TABLES for n in names)
  if len(tops) == 1 and 0 not in depths and (has_table or min(depths) > 1):
    return f'{tops.pop()}/'
  return ''


def _read_table(name: str, content: bytes) -> dict[str, str]:
  """File -> label, both as written in a labels.csv or labels.jsonl."""
  label_of: dict[str, str] = {}
  try:
    text = content.decode('utf-8-sig')
    if name.endswith('.csv'):
      rows = list(csv.DictReader(io.StringIO(text), strict=True))
    else:
      rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
      has_keys = isinstance(row, dict) and {'file', 'label'} <= row.keys()
      if not has_keys or not isinstance(row['file'], str):
        raise UserError(f"{name}: entry {number} has no 'file' and 'label'.")
      if row['label'] in (None, ''):
        raise UserError(f'{name}: entry {number} ({row["file"]}) has an empty label.')
      if label_of.setdefault(row['file'], str(row['label'])) != str(row['label']):
        raise UserError(f'{name}: {row["file"]} has two labels.')
  except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
    raise UserError(f'{name} cannot be read ({error}).') from error
  return label_of


def _number_classes(
  labels: Mapping[str, str], *, from_table: bool
) -> tuple[tuple[str, ...], dict[str, int]]:
  """Class names, and class number of each label.

  Integers in a table are class numbers. Sub-folders are always names; if all of them
  are integers, they are sorted as such.

  Args:
    labels: image -> label as written.
    from_table: the labels come from a table, not from sub-folders.
  """
  written = sorted(set(labels.values()))
  all_integers = all(w.removeprefix('-').isdecimal() for w in written)
  if not written or not all_integers or not from_table:
    if all_integers:
      written.sort(key=int)
    return tuple(written), {w: i for i, w in enumerate(written)}
  values = {w: int(w) for w in written}
  for file, label in labels.items():
    if not 0 <= values[label] < MAX_CLASSES:
      raise UserError(
        f'The label of {escape_unprintable(file)} is {label}: 0 to '
        f'{MAX_CLASSES - 1} are allowed, or names.'
      )
  return tuple(map(str, range(max(values.values()) + 1))), values


def escape_unprintable(name: str) -> str:
  """Escapes control characters and invalid Unicode of a file's name for a terminal."""
  text = name.encode('utf-8', 'backslashreplace').decode()
  return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def list_refused(refused: Mapping[str, str], limit: int = 3) -> str:
  """The first `limit` names with their reasons: 'a.png is a symbolic link, ...'."""
  shown = [f'{name} {reason}' for name, reason in list(refused.items())[:limit]]
  if len(refused) > limit:
    shown.append(f'and {len(refused) - limit} more')
  return ', '.join(shown)
