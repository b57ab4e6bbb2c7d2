"""Pictures of a folder or a zip: which ones there are, and of which label."""

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

from gan_jax import UserError
from gan_jax.data.decode import UnreadableImage

SUFFIXES = {
  *('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff'),
  '.webp',
}
LABELS = ('labels.csv', 'labels.jsonl')
MAX_BYTES = 2**28  # of one encoded picture
MAX_CLASSES = 100_000
_LEFTOVERS = ('.', '__MACOSX', 'Thumbs.db')  # what systems leave in folders and zips


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource:
  """Encoded pictures by index, in an order that is the same everywhere.

  Attributes:
    kind: 'folder', 'zip' or 'tensorflow-datasets'.
    n: number of pictures, damaged ones included.
    read: index -> (encoded picture, label 0..n_classes-1); raises Refused.
    title: index -> what to call the picture in a message.
    class_names: empty if there are no labels; then every label is 0.
    labels: int32 [n]; of a kind whose labels only reading tells, [0].
    refused: what claims to be a picture and is never opened -> why.
    others: number of files that do not claim to be pictures.
    state: hexadecimal digest of names, sizes and labels; another one, another source.
  """

  kind: str
  n: int
  read: Callable[[int], tuple[bytes, int]]
  title: Callable[[int], str]
  class_names: tuple[str, ...]
  labels: np.ndarray
  refused: Mapping[str, str]
  others: int
  state: str


def is_path(name: str) -> bool:
  """Whether a data set's name means a file or folder: /a, ./a, ../a, ~/a or a.zip."""
  return name.startswith(('/', './', '../', '~')) or name.lower().endswith('.zip')


def open_source(path: str | Path) -> ImageSource:
  """The pictures of a folder or a zip file.

  Labels are those of labels.csv (columns file, label) or labels.jsonl (the same keys)
  beside them, else their sub-folders, in alphabetical order. One folder around all the
  others is looked through.

  Raises:
    UserError: there is no such file, it holds no pictures, or its labels are unclear.
  """
  path = Path(path).expanduser()
  if path.is_dir():
    return _folder(path)
  if not path.is_file():
    raise UserError(f'{path}: there is no such folder or zip file.')
  if not zipfile.is_zipfile(path):
    raise UserError(f'{path} is neither a folder nor a readable zip file.')
  return _zip(path)


def _folder(root: Path) -> ImageSource:
  refused: dict[str, str] = {}
  found: dict[str, tuple[int, int]] = {}
  for name, entry in _walk(root, ''):
    if entry.is_symlink():
      refused[name] = 'is a symbolic link'
    elif not entry.is_file():
      refused[name] = 'is no regular file'
    else:
      about = entry.stat(follow_symlinks=False)
      found[name] = about.st_size, about.st_mtime_ns

  def read(name: str) -> bytes:
    if found[name][0] > MAX_BYTES:
      raise UnreadableImage(f'has {found[name][0]:,} bytes, above {MAX_BYTES:,}')
    try:
      # A link put there since the folder was listed is not followed.
      with open(
        root / name, 'rb', opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW)
      ) as file:
        return file.read(MAX_BYTES)
    except OSError as error:
      raise UnreadableImage(f'cannot be read ({error.strerror})') from error

  return _labelled('folder', str(root), found, refused, read)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry]]:
  with os.scandir(folder) as entries:
    for entry in sorted(entries, key=lambda e: e.name):
      if entry.name.startswith(_LEFTOVERS):
        continue
      if entry.is_dir(follow_symlinks=False):
        yield from _walk(folder / entry.name, f'{prefix}{entry.name}/')
      else:
        yield f'{prefix}{entry.name}', entry


def _zip(path: Path) -> ImageSource:
  try:
    archive = zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is no readable zip file ({error}).') from error
  refused: dict[str, str] = {}
  found: dict[str, tuple[int, int]] = {}
  for entry in archive.infolist():
    name = entry.filename
    parts = name.replace('\\', '/').split('/')
    if name.startswith(('/', '\\')) or parts[0].endswith(':'):
      refused[printable(name)] = 'is an absolute path'
    elif '..' in parts:
      refused[printable(name)] = 'leads out of the zip'
    elif stat.S_ISLNK(entry.external_attr >> 16):
      refused[printable(name)] = 'is a symbolic link'
    elif entry.is_dir() or any(part.startswith(_LEFTOVERS) for part in parts):
      continue
    elif name in found:
      refused[printable(name)] = 'is in the zip twice; the first is taken'
    elif entry.flag_bits & 1:
      refused[printable(name)] = 'is encrypted'
    else:
      found[name] = entry.file_size, entry.CRC

  # The first of two entries of one name, where ZipFile.getinfo has the last.
  entries: dict[str, zipfile.ZipInfo] = {}
  for entry in archive.infolist():
    entries.setdefault(entry.filename, entry)

  def read(name: str) -> bytes:
    if found[name][0] > MAX_BYTES:
      raise UnreadableImage(f'has {found[name][0]:,} bytes, above {MAX_BYTES:,}')
    try:
      with archive.open(entries[name]) as file:  # reads no more than it declares
        return file.read()
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
      raise UnreadableImage(f'cannot be read from the zip ({error})') from error
    except (zipfile.BadZipFile, zlib.error) as error:
      raise UnreadableImage(f'is damaged in the zip ({error})') from error

  return _labelled('zip', str(path), found, refused, read)


def _labelled(
  kind: str,
  path: str,
  found: Mapping[str, tuple[int, int]],
  refused: dict[str, str],
  read: Callable[[str], bytes],
) -> ImageSource:
  """Sorts files, a name -> (size, mark) table, into pictures with labels and others."""
  names = sorted(n for n in found if Path(n).suffix.lower() in SUFFIXES)
  others = len(found) - len(names)
  tables = [n for n in found if Path(n).name in LABELS]
  prefix = _wrapper([*names, *tables])
  tables = [n for n in tables if n.removeprefix(prefix) in LABELS]
  if len(tables) > 1:
    raise UserError(f'{path} has both {" and ".join(LABELS)}: keep one.')
  by_name: dict[str, str] = {}
  if tables:
    try:
      listed = _read_table(tables[0], read(tables[0]))
    except UnreadableImage as error:
      raise UserError(f'{path}: {tables[0]} {error}.') from error
    there = {n.removeprefix(prefix): n for n in names}
    for name in listed:
      if name not in there:
        refused.setdefault(printable(name), f'is listed in {tables[0]}, but not there')
    for name in there.keys() - listed.keys():
      refused[printable(there[name])] = f'has no label in {tables[0]}'
    names = [n for n in names if n.removeprefix(prefix) in listed]
    by_name = {n: listed[n.removeprefix(prefix)] for n in names}
  else:
    folders = {n: n.removeprefix(prefix).split('/') for n in names}
    loose = [n for n, parts in folders.items() if len(parts) == 1]
    if loose and len(loose) < len(names):
      raise UserError(
        f'{path} has pictures beside its sub-folders ({printable(loose[0])} and '
        f'{len(loose) - 1} more): sub-folders are labels, so move these into one, or '
        f'write {LABELS[0]}.'
      )
    if not loose:
      by_name = {n: parts[0] for n, parts in folders.items()}
  if not names:
    why = f' ({quote_some(refused)})' if refused else ''
    raise UserError(
      f'{path} has no pictures{why}; {", ".join(sorted(SUFFIXES))} are looked for.'
    )
  class_names, numbers = _numbered(by_name, bool(tables))
  class_names = tuple(map(printable, class_names))
  labels = np.array([numbers[by_name[n]] if by_name else 0 for n in names], np.int32)
  digest = hashlib.sha256()
  for name, label in zip(names, labels):
    digest.update(f'{printable(name)}\0{found[name]}\0{label}\n'.encode())
  return ImageSource(
    kind=kind,
    n=len(names),
    read=lambda i: (read(names[i]), int(labels[i])),
    title=lambda i: printable(names[i]),
    class_names=class_names,
    labels=labels,
    refused=refused,
    others=others - len(tables),
    state=digest.hexdigest(),
  )


def _wrapper(names: Sequence[str]) -> str:
  """'faces/' where that folder holds everything and is no label itself, else ''."""
  tops = {n.split('/')[0] for n in names}
  depths = {n.count('/') for n in names}
  has_table = any(n.count('/') == 1 and Path(n).name in LABELS for n in names)
  if len(tops) == 1 and 0 not in depths and (has_table or min(depths) > 1):
    return f'{tops.pop()}/'
  return ''


def _read_table(name: str, content: bytes) -> dict[str, str]:
  """File -> label, both as written, of labels.csv or labels.jsonl."""
  listed: dict[str, str] = {}
  try:
    text = content.decode('utf-8-sig')
    if name.endswith('.csv'):
      rows = list(csv.DictReader(io.StringIO(text), strict=True))
    else:
      rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
      if not isinstance(row, dict) or not {'file', 'label'} <= row.keys():
        raise UserError(f"{name}: entry {number} has no 'file' and 'label'.")
      if row['label'] in (None, ''):
        raise UserError(f'{name}: entry {number} ({row["file"]}) has an empty label.')
      if listed.setdefault(row['file'], str(row['label'])) != str(row['label']):
        raise UserError(f'{name}: {row["file"]} has two labels.')
  except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
    raise UserError(f'{name} cannot be read ({error}).') from error
  return listed


def _numbered(
  by_name: Mapping[str, str], table: bool
) -> tuple[tuple[str, ...], dict[str, int]]:
  """Names of the classes, and label as written -> number.

  Whole numbers in a table are class numbers; sub-folders are only ever names.
  """
  written = sorted(set(by_name.values()))
  if not written or not all(w.removeprefix('-').isdecimal() for w in written):
    return tuple(written), {w: i for i, w in enumerate(written)}
  if not table:
    written.sort(key=int)
    return tuple(written), {w: i for i, w in enumerate(written)}
  values = {w: int(w) for w in written}
  for file, label in by_name.items():
    if not 0 <= values[label] < MAX_CLASSES:
      raise UserError(
        f'the label of {printable(file)} is {label}: 0 to {MAX_CLASSES - 1} are '
        'allowed, or names.'
      )
  return tuple(map(str, range(max(values.values()) + 1))), values


def printable(name: str) -> str:
  """A file's name fit for a terminal: no control characters, no broken Unicode."""
  text = name.encode('utf-8', 'backslashreplace').decode()
  return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quote_some(refused: Mapping[str, str], most: int = 3) -> str:
  """The first few as 'a.png is a symbolic link, and 7 more'."""
  shown = [f'{name} {why}' for name, why in list(refused.items())[:most]]
  if len(refused) > most:
    shown.append(f'and {len(refused) - most} more')
  return ', '.join(shown)
