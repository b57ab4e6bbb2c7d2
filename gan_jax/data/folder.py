"""Images of a folder or a zip file: which files are usable, and their labels."""

import contextlib
import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num

from gan_jax import UserError
from gan_jax.data.classes import (
  describe_classes,
  label_vectors,
  labels_from_folders,
  number_classes,
)
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.formats import (
  format_of_content,
  readable_suffixes,
  unreadable_format,
)
from gan_jax.data.layout import find_data_folders, is_image
from gan_jax.data.listing import FileList, list_folder, list_zip, sort_key
from gan_jax.data.names import escape_unprintable, suffix_of
from gan_jax.data.own_folders import leave_out_own_folders
from gan_jax.data.table_labels import (
  find_label_table,
  labels_from_table,
  name_unread_tables,
)
from gan_jax.runtime.urls import is_url

MAX_BYTES = 2**28  # of one encoded image
_N_PEEKED = 1000  # files without the suffix of an image whose first bytes are read


Label = int | Float[np.ndarray, ' n']  # a class, or a label vector


class MissingDataError(UserError):
  """There is no dataset of that name or at that path."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource:
  """Encoded images by index, in an order that is the same on every machine.

  Attributes:
    kind: 'folder', 'zip' or 'tensorflow-datasets'.
    n_images: number of images, including those that turn out to be corrupted.
    read: index -> (encoded image, label in 0..n_classes-1); raises UnusableImageError.
    display_name: index -> name of the image in messages.
    class_names: empty if there are no labels; every label is 0 then.
    labels: empty for tensorflow-datasets, whose labels are known only by reading. One
      integer per image, or one vector float32 [n_classes].
    refused: name -> reason, of image files that are never opened.
    n_other_files: number of other files: not images, or in `ignored`.
    fingerprint: hexadecimal digest of the names, sizes, labels, and modification times
      or checksums of all images.
    ignored: name -> reason, of files and folders that are no image data, such as
      thumbnails, other splits and the folders of runs.
    labels_from: where the labels come from and how classes are ordered, in words.
    file_sizes: bytes of each image, without reading it; empty if unknown.
  """

  kind: str
  n_images: int
  read: Callable[[int], tuple[bytes, Label]]
  display_name: Callable[[int], str]
  class_names: tuple[str, ...]
  labels: Num[np.ndarray, 'n_images ...']
  refused: Mapping[str, str]
  n_other_files: int
  fingerprint: str
  ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels_from: str = ''
  file_sizes: Sequence[int] = ()

  @property
  def has_vectors(self) -> bool:
    """Whether labels are vectors instead of classes."""
    return self.labels.ndim == 2

  def label(self, i: int) -> Label:
    """The label of image i."""
    return self.labels[i] if self.has_vectors else int(self.labels[i])


def is_path(name: str) -> bool:
  """Whether a dataset's name is a path or URL: /a, ./a, ../a, ~/a, a.zip, gs://a/b."""
  return (
    name.startswith(('/', './', '../', '~'))
    or name.lower().endswith('.zip')
    or is_url(name)
  )


def open_folder_or_zip(path: str | Path, split: str = 'train') -> ImageSource:
  """Opens the images of a folder or a zip file.

  Labels come from a table at the top level (labels.csv, labels.jsonl, dataset.json of
  NVIDIA's tools, metadata.csv or metadata.jsonl of Hugging Face's); without one the
  sub-folders are the classes. A single folder that contains everything else is
  skipped. Of train/, val/ and test/ around the data, the one that `split` names is
  read.

  Raises:
    MissingDataError: no such file, or an empty folder.
    UserError: no images, no such split, or ambiguous labels.
  """
  path = Path(os.path.expanduser(path))
  if path.is_dir():
    return _make_source(list_folder(path), split)
  if not path.is_file():
    raise MissingDataError(f'{path}: there is no such folder or zip file.')
  if not zipfile.is_zipfile(path):
    raise UserError(f'{path} is neither a folder nor a readable zip file: unpack it.')
  return _make_source(list_zip(path), split)


def _make_source(listing: FileList, split: str) -> ImageSource:
  """Separates images from other files, and gives each image its label.

  Raises:
    UserError: no images, no such split, or ambiguous labels.
  """
  leave_out_own_folders(listing)
  folders = find_data_folders(listing, split)
  images = sorted(filter(is_image, listing.files), key=sort_key)
  table_name, table = find_label_table(listing, folders) or ('', None)
  others = [n for n in listing.files if not is_image(n) and n != table_name]
  n_refused = _refuse_unread_images(listing, others)
  if not images:
    reasons = f' ({list_refused(listing.refused)})' if listing.refused else ''
    # An empty folder may be the place of a disk that is not mounted.
    raise (UserError if listing.files else MissingDataError)(
      f'{listing.path} has no images{reasons}; image files end with '
      f'{", ".join(sorted(readable_suffixes()))}.'
    )
  label_of: dict[str, str] = {}
  if table is None:
    label_of = labels_from_folders(listing.path, images, folders[-1])
    labels_from = 'sub-folders'
  elif table.labels is not None:
    label_of = labels_from_table(listing, images, table_name, table.labels)
    images = [name for name in images if name in label_of]
    labels_from = f'{table_name} ({table.form})' if table.form else table_name
  if table is None and len(set(label_of.values())) < 2:
    name_unread_tables(listing, folders)
  labels, class_names, described = _label_array(label_of, images, table is not None)

  def read(i: int) -> tuple[bytes, Label]:
    n_bytes = listing.files[images[i]][0]
    if n_bytes > MAX_BYTES:
      raise UnusableImageError(f'has {n_bytes:,} bytes, more than {MAX_BYTES:,}')
    label = labels[i] if labels.ndim == 2 else int(labels[i])
    return listing.read(images[i], MAX_BYTES), label

  return ImageSource(
    kind=listing.kind,
    n_images=len(images),
    read=read,
    display_name=lambda i: escape_unprintable(images[i]),
    class_names=tuple(map(escape_unprintable, class_names)),
    labels=labels,
    refused=listing.refused,
    n_other_files=len(others) - n_refused + listing.n_ignored,
    fingerprint=_fingerprint(listing, images, labels, class_names),
    ignored=listing.ignored,
    labels_from=f'{labels_from}: {described}' if label_of else 'none',
    file_sizes=[listing.files[name][0] for name in images],
  )


def _label_array(
  label_of: Mapping[str, str], images: Sequence[str], from_table: bool
) -> tuple[Num[np.ndarray, 'n ...'], tuple[str, ...], str]:
  """Labels of the images, class names, and both in words.

  Args:
    label_of: image -> label as written; empty if there are none.
    from_table: the labels come from a table, not from sub-folders.

  Raises:
    UserError: they are neither classes nor vectors.
  """
  if vectors := label_vectors(label_of) if from_table else {}:
    labels = np.array([vectors[name] for name in images], np.float32)
    length = labels.shape[1]
    return labels, tuple(map(str, range(length))), f'vectors of {length} numbers'
  class_names, numbers = number_classes(label_of, from_table=from_table)
  classes = [numbers[label_of[name]] if label_of else 0 for name in images]
  return np.array(classes, np.int32), class_names, describe_classes(class_names)


def _refuse_unread_images(listing: FileList, others: Sequence[str]) -> int:
  """Refuses what claims to be an image but is not read; returns how many that are.

  The first bytes of some of the `others` are read, not of all: there may be as many
  other files as images.
  """
  before = len(listing.refused)
  reasons = {suffix: unreadable_format(suffix) for suffix in map(suffix_of, others)}
  unclear = []
  for name in sorted(others, key=sort_key):
    if reason := reasons[suffix_of(name)]:
      listing.refuse(name, reason)
    else:
      unclear.append(name)
  for name in unclear[:_N_PEEKED]:
    with contextlib.suppress(UnusableImageError):
      if image_format := format_of_content(listing.read(name, 32)):
        listing.refuse(name, f'is a {image_format} image without its suffix: rename it')
  return len(listing.refused) - before


def _fingerprint(
  listing: FileList,
  images: Sequence[str],
  labels: Num[np.ndarray, 'n ...'],
  class_names: Sequence[str],
) -> str:
  digest = hashlib.sha256(repr(class_names).encode('utf-8', 'surrogateescape'))
  for name, label in zip(images, labels.tolist()):
    line = f'{escape_unprintable(name)}\0{listing.files[name]}\0{label}\n'
    digest.update(line.encode())
  return digest.hexdigest()


def list_refused(refused: Mapping[str, str], limit: int = 3) -> str:
  """The first `limit` names with their reasons: 'a.png is a symbolic link, ...'."""
  shown = [f'{name} {reason}' for name, reason in list(refused.items())[:limit]]
  if len(refused) > limit:
    shown.append(f'and {len(refused) - limit} more')
  return ', '.join(shown)
