"""Multi-resolution TFRecords of NVIDIA's ProGAN, StyleGAN and StyleGAN2.

`NAME-r10.tfrecords` holds images of 2**10 pixels, one `tf.Example` each, with the
features 'shape' [c, h, w] and 'data', raw uint8 values. `NAME-rxx.labels` is a NumPy
array of one-hot labels. Only the highest resolution is read. tensorflow-datasets parses
the records; TensorFlow is not needed.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from gan_jax import UserError
from gan_jax.data.dataset import import_optional
from gan_jax.data.decode import MAX_PIXELS, UnusableImageError
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.sources.arrays import MAX_IMAGES, make_array_source

_LEVEL = re.compile(r'(.*)-r(\d\d)\.tfrecords?')
_HEADER, _FOOTER = 12, 4  # bytes around a record: its length, and checksums


def open_tfrecords(files: list[Path], split: str) -> ImageSource:
  """Opens the highest resolution of one set.

  Raises:
    UserError: files of several sets, another kind of record, or corrupted files.
  """
  if split != 'train':
    raise UserError(f"{files[0]} has only the split 'train', not '{split}'.")
  path, name = _highest_level(files)
  offsets = _index_records(path)
  records = _Records(path, offsets)
  records.check_features()
  labels_path = path.with_name(f'{name}-rxx.labels')
  labels = None
  if labels_path.is_file():
    labels = _read_labels(labels_path, len(offsets) - 1)
  used = [path] if labels is None else [path, labels_path]
  return make_array_source('TFRecord', used, len(offsets) - 1, records.pixels, labels)


def _highest_level(files: list[Path]) -> tuple[Path, str]:
  """(file of the highest resolution, name of the set)."""
  levels = {}
  for file in files:
    if match := _LEVEL.fullmatch(file.name):
      levels[file] = (match[1], int(match[2]))
  names = sorted({name for name, _ in levels.values()})
  if len(names) > 1 or not names and len(files) > 1:
    found = ', '.join(names or [file.name for file in files[:5]])
    raise UserError(
      f'{files[0].parent} has the TFRecord files of several sets or of another tool '
      f'({found}): give one file as SRC, such as NAME-r08.tfrecords.'
    )
  if not names:
    return files[0], files[0].stem
  return max(levels, key=lambda file: levels[file][1]), names[0]


def _index_records(path: Path) -> Int[np.ndarray, ' n_records+1']:
  """Where each record begins, and where the last one ends.

  Raises:
    UserError: the file ends within a record.
  """
  offsets, position, size = [0], 0, path.stat().st_size
  with path.open('rb') as file:
    while position < size and len(offsets) <= MAX_IMAGES:
      file.seek(position)
      length = int.from_bytes(file.read(8), 'little')
      position += _HEADER + length + _FOOTER
      if position > size:
        raise UserError(
          f'{path} is corrupted: it ends within record {len(offsets) - 1}; copy it '
          'again.'
        )
      offsets.append(position)
  return np.array(offsets, np.int64)


class _Records:
  """The images of a file of records."""

  def __init__(self, path: Path, offsets: Int[np.ndarray, ' n_records+1']):
    proto = import_optional(
      'tensorflow_datasets.proto', 'tensorflow-datasets', str(path)
    )
    self._parse = proto.tf_example_pb2.Example.FromString
    self._path, self._offsets = path, offsets
    self._content = np.memmap(path, np.uint8, 'r')

  def check_features(self) -> None:
    """Raises a UserError unless the first record is one of NVIDIA's."""
    try:
      features = self._read(0)
    except UnusableImageError as error:
      raise UserError(f'{self._path}: record 0 {error}.') from error
    if not {'shape', 'data'} <= features.keys():
      has = ', '.join(sorted(features)[:8]) or 'none'
      raise UserError(
        f"{self._path}: its records have the features {has}, but 'shape' and 'data' of "
        "NVIDIA's multi-resolution TFRecords are needed."
      )

  def pixels(self, i: int) -> UInt8[np.ndarray, 'h w c']:
    """Raises UnusableImageError if record i is corrupted."""
    features = self._read(i)
    if not {'shape', 'data'} <= features.keys():
      raise UnusableImageError("has no 'shape' and 'data'")
    shape = list(features['shape'].int64_list.value)
    data = features['data'].bytes_list.value
    if len(shape) != 3 or not all(0 < side <= MAX_PIXELS for side in shape):
      raise UnusableImageError(f'declares the shape {shape}')
    if len(data) != 1 or len(data[0]) != shape[0] * shape[1] * shape[2]:
      raise UnusableImageError(f'does not have the data of the shape {shape}')
    return np.moveaxis(np.frombuffer(data[0], np.uint8).reshape(shape), 0, -1)

  def _read(self, i: int) -> dict:
    """The features of record i by name."""
    from google.protobuf.message import DecodeError

    start, end = self._offsets[i : i + 2].tolist()
    content = self._content[start + _HEADER : end - _FOOTER]
    try:
      return dict(self._parse(content.tobytes()).features.feature)
    except DecodeError as error:
      raise UnusableImageError(f'cannot be parsed ({error})') from error


def _read_labels(path: Path, n_images: int) -> Int[np.ndarray, ' n'] | None:
  """Class numbers of one-hot labels or of integers; None for labels without classes.

  Raises:
    UserError: not a NumPy array, or neither of these.
  """
  try:
    labels = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError, SyntaxError) as error:
    raise UserError(f'{path} cannot be read as a NumPy array ({error}).') from error
  if labels.ndim == 2 and labels.shape[1] == 0:
    return None
  shape = labels.shape
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if labels.ndim == 2:
    if not ((labels == 0) | (labels == 1)).all() or (labels.sum(1) != 1).any():
      raise UserError(
        f'{path} has labels of the shape {shape} that are not one-hot: gan_jax trains '
        'with one class for each image; move the file away to prepare without labels.'
      )
    labels = labels.argmax(1)
  is_float = labels.dtype.kind == 'f' and np.isfinite(labels).all()
  if is_float and (labels == np.rint(labels)).all():
    labels = labels.astype(np.int64)
  if labels.shape != (n_images,) or labels.dtype.kind not in 'iu':
    raise UserError(
      f'{path} has labels of the shape {shape} and type {labels.dtype}, but there are '
      f'{n_images:,} images with one class each.'
    )
  return labels
