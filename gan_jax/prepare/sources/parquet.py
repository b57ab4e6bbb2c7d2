"""Parquet files of Hugging Face: encoded images in a column, or names of image files.

The features that `datasets` stores in the schema say which column holds the images and
what the classes are called. `metadata.parquet` of an image folder has the column
'file_name' instead.
"""

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from gan_jax import UserError
from gan_jax.data.dataset import import_optional
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.folder import MAX_BYTES, ImageSource
from gan_jax.data.names import escape_unprintable
from gan_jax.prepare.sources.arrays import (
  check_count,
  check_labels,
  fingerprint,
)

_SPLITS = ('train', 'test', 'validation', 'val', 'valid', 'dev')
_NAMES, _LABELS = 'file_name', ('label', 'labels')


def open_parquet(files: list[Path], split: str) -> ImageSource:
  """Opens the images of a split.

  Raises:
    UserError: no such split, no column of images, ambiguous labels, or corrupted files.
  """
  arrow = import_optional('pyarrow', 'pyarrow', str(files[0]))
  import_optional('pyarrow.parquet', 'pyarrow', str(files[0]))
  files = _files_of_split(files, split)
  try:
    return _open(arrow, files)
  except (arrow.ArrowException, OSError) as error:
    raise UserError(
      f'{files[0].parent}: a Parquet file cannot be read ({error}).'
    ) from error


def _open(arrow: Any, files: list[Path]) -> ImageSource:
  schema = arrow.parquet.read_schema(files[0])
  features = _features(schema)
  column = _image_column(schema, features, files[0])
  tables = [arrow.parquet.ParquetFile(file) for file in files]
  counts = [table.metadata.num_rows for table in tables]
  check_count(files[0].name, sum(counts))
  label_column = _label_column(schema, features, files[0])
  labels, class_names = _read_labels(tables, label_column, features, files[0])
  images: _NamedFiles | _EncodedImages
  if column == _NAMES:
    images = _NamedFiles(
      [
        (file.parent.resolve(), str(name))
        for file, table in zip(files, tables)
        for name in _read_column([table], column)
      ]
    )
  else:
    images = _EncodedImages(arrow, files, column)
  return ImageSource(
    kind='Parquet',
    n_images=sum(counts),
    read=lambda i: (images.read(i), int(labels[i])),
    display_name=images.display_name,
    class_names=class_names,
    labels=labels,
    refused={},
    n_other_files=0,
    fingerprint=fingerprint(files, labels),
    labels_from=f"the column '{escape_unprintable(label_column)}'",
  )


def _files_of_split(files: list[Path], split: str) -> list[Path]:
  """The files whose name or folder names the split; all if none names any split."""
  if len(files) == 1:
    return files
  root = os.path.commonpath([file.parent for file in files])

  def split_of(file: Path) -> str:
    for part in reversed(file.relative_to(root).with_suffix('').parts):
      for word in re.split(r'[^a-z0-9]+', part.lower()):
        if word in {*_SPLITS, split.lower()}:
          return word
    return ''

  splits = {file: split_of(file) for file in files}
  found = sorted(set(splits.values()))
  chosen = [file for file in files if splits[file] == split.lower()]
  if chosen or found == [''] and split == 'train':
    return chosen or files
  names = ', '.join(name for name in found if name) or 'only train'
  raise UserError(
    f'{files[0].parent} has no Parquet files of the split {split!r} (splits: {names}): '
    'choose another --split, or give one file as SRC.'
  )


def _features(schema: Any) -> dict[str, dict[str, Any]]:
  """Column -> what `datasets` says about it; empty without such metadata."""
  try:
    metadata = json.loads((schema.metadata or {}).get(b'huggingface', b'{}'))
    features = metadata['info']['features']
    return {k: v for k, v in features.items() if isinstance(v, dict)}
  except (ValueError, KeyError, TypeError, AttributeError):
    return {}


def _image_column(schema: Any, features: dict[str, Any], path: Path) -> str:
  columns = [k for k in schema.names if features.get(k, {}).get('_type') == 'Image']
  columns = columns or [k for k in ('image', 'img', _NAMES) if k in schema.names]
  if len(columns) == 1 or columns[:1] == ['image']:
    return columns[0]
  raise UserError(
    f"{path} has the columns {', '.join(schema.names)}: one column of images, 'image', "
    f"or of names of image files, '{_NAMES}', is needed."
  )


def _label_column(schema: Any, features: dict[str, Any], path: Path) -> str:
  """The column of classes; '' without labels."""
  for name in _LABELS:
    if name in schema.names:
      return name
  columns = [
    k for k in schema.names if features.get(k, {}).get('_type') == 'ClassLabel'
  ]
  if len(columns) > 1:
    raise UserError(
      f'{path} has several columns of classes, {", ".join(columns)}: rename one to '
      f"'{_LABELS[0]}'."
    )
  return columns[0] if columns else ''


def _read_column(tables: list[Any], column: str) -> list[Any]:
  return [value for t in tables for value in t.read([column])[column].to_pylist()]


def _read_labels(
  tables: list[Any], column: str, features: dict[str, Any], path: Path
) -> tuple[Int[np.ndarray, ' n'], tuple[str, ...]]:
  """Class numbers and names.

  Raises:
    UserError: an image has no label, or labels are neither integers nor strings.
  """
  if not column:
    return np.zeros(sum(t.metadata.num_rows for t in tables), np.int32), ()
  values = _read_column(tables, column)
  kinds = {type(value) for value in values}
  if kinds == {str}:
    names = sorted(set(values))
    numbers = {name: i for i, name in enumerate(names)}
    labels = np.array([numbers[value] for value in values])
    return labels.astype(np.int32), tuple(map(escape_unprintable, names))
  if kinds != {int}:
    found = ', '.join(sorted(kind.__name__ for kind in kinds))
    raise UserError(
      f"{path}: the column '{column}' holds values of the types {found}: a class "
      'number or a name is needed for each image.'
    )
  labels = np.array(values)
  check_labels(path.name, labels, len(values))
  names = features.get(column, {}).get('names') or []
  if len(names) <= labels.max():
    names = list(range(labels.max() + 1))
  return labels.astype(np.int32), tuple(escape_unprintable(str(n)) for n in names)


class _NamedFiles:
  """Image files that a column names.

  Attributes:
    names: (folder of the table, path relative to it) of each image.
  """

  def __init__(self, names: list[tuple[Path, str]]):
    self.names = names

  def display_name(self, i: int) -> str:
    return escape_unprintable(self.names[i][1])

  def read(self, i: int) -> bytes:
    folder, name = self.names[i]
    try:
      path = (folder / name).resolve()
      if not path.is_relative_to(folder):
        raise UnusableImageError('is a path that leads out of the folder')
      if not path.is_file():
        raise UnusableImageError('is listed, but does not exist')
      if (n_bytes := path.stat().st_size) > MAX_BYTES:
        raise UnusableImageError(f'has {n_bytes:,} bytes, more than {MAX_BYTES:,}')
      return path.read_bytes()
    except (OSError, ValueError) as error:
      raise UnusableImageError(f'cannot be read ({error})') from error


class _EncodedImages:
  """A column of encoded images: binary, or a struct of 'bytes' and 'path'.

  Each thread keeps the row group that it read last: images are read in order.
  """

  def __init__(self, arrow: Any, files: list[Path], column: str):
    self._arrow, self._files, self._column = arrow, files, column
    self._groups: list[tuple[Path, int]] = []  # (file, row group)
    sizes = []
    for file in files:
      metadata = arrow.parquet.ParquetFile(file).metadata
      for group in range(metadata.num_row_groups):
        self._groups.append((file, group))
        sizes.append(metadata.row_group(group).num_rows)
    self._starts = np.cumsum([0, *sizes])
    self._local = threading.local()

  def display_name(self, i: int) -> str:
    group = int(np.searchsorted(self._starts, i, 'right')) - 1
    file = self._groups[group][0]
    return f'{escape_unprintable(file.name)}[{i}]'

  def read(self, i: int) -> bytes:
    group = int(np.searchsorted(self._starts, i, 'right')) - 1
    if getattr(self._local, 'group', None) != group:
      self._local.rows = self._read_group(group)
      self._local.group = group
    value = self._local.rows[i - int(self._starts[group])].as_py()
    if isinstance(value, dict):
      value = value.get('bytes')
    if not isinstance(value, bytes):
      raise UnusableImageError('has no encoded bytes in the file')
    if len(value) > MAX_BYTES:
      raise UnusableImageError(f'has {len(value):,} bytes, more than {MAX_BYTES:,}')
    return value

  def _read_group(self, group: int) -> Any:
    file, index = self._groups[group]
    try:
      table = self._arrow.parquet.ParquetFile(file).read_row_group(
        index, columns=[self._column]
      )
    except (self._arrow.ArrowException, OSError) as error:
      raise UnusableImageError(f'cannot be read ({error})') from error
    return table[self._column]
