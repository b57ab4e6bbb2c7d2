"""Sets that tensorflow-datasets prepared, read without TensorFlow."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN
from gan_jax.data.dataset import (
  CorruptImageError,
  Dataset,
  Example,
  check_channels,
  decode_and_resize,
  import_optional,
)
from gan_jax.data.decode import UnusableImageError, header_size, open_image
from gan_jax.data.digests import digest
from gan_jax.data.folder import MissingDataError
from gan_jax.data.set_copy import open_files
from gan_jax.data.set_files import Expected, PreparedFiles, expect
from gan_jax.runtime.errors import closest
from gan_jax.runtime.image_size import Size
from gan_jax.runtime.urls import is_url
from gan_jax.storage.store import Store

METADATA = ('dataset_info.json', 'features.json')  # in the folder of each set
_ARRAY_RECORD = 'array_record'
_SHARD = re.compile(r'-\d+-of-\d+')  # in the name of a file with examples


class RecordSource(Protocol):
  """Records with random access: {'image': bytes, 'label': int if labeled, ...}."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int, /) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRecords:
  """Examples of records with encoded images, decoded when they are read."""

  name: str
  source: RecordSource
  size: Size
  channels: int
  labeled: bool

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, i: int) -> Example:
    record = self.source[i]
    try:
      image = decode_and_resize(record['image'], self.size, self.channels)
    except UnusableImageError as error:
      raise CorruptImageError(f"Image {i} of dataset '{self.name}' {error}.") from error
    return image, int(record['label']) if self.labeled else 0

  def source_size(self, i: int) -> tuple[int, int]:
    return header_size(open_image(self.source[i]['image']))

  def label(self, i: int) -> int:
    return int(self.source[i]['label']) if self.labeled else 0


def import_tfds(module: str, dataset: str) -> ModuleType:
  return import_optional(module, 'tensorflow-datasets', dataset)


def open_split(builder: Any, split: str, name: str, **options: Any) -> Any:
  """Opens a split with the `options` of TFDS's `as_data_source`.

  Raises:
    UserError: no such split, or it is empty.
  """
  try:
    return builder.as_data_source(split, **options)
  except ValueError as error:
    raise _no_such_split(builder, split, name) from error


def _no_such_split(builder: Any, split: str, name: str) -> UserError:
  return UserError(
    f"Dataset '{name}' has no images in split '{split}'; its splits are "
    f'{", ".join(builder.info.splits)}, or parts such as train[:90%].'
  )


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
  """A split of a tensorflow-datasets set; the images are not decoded.

  Attributes:
    source: index -> {'image': bytes, 'label': int if labeled, ...}.
    labeled: whether the set has a feature 'label' of classes.
    class_names: empty if unlabeled.
    channels: channels of the stored images.
    res: shorter side of the stored images in pixels; 0 if the set does not declare it.
    description: name, version, split and size; changes if the source changes.
    digests: of the files, see `gan_jax.data.digests`.
  """

  source: RecordSource
  labeled: bool
  class_names: tuple[str, ...]
  channels: int
  res: int
  description: str
  digests: Mapping[str, str] = dataclasses.field(default_factory=dict)


def tfds_data_dir(data_dir: str | None) -> str:
  """Folder of the TFDS sets: `data_dir`, else $TFDS_DATA_DIR, else TFDS's default."""
  return os.path.expanduser(
    data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  )


def is_tfds_name(name: str, data_dir: str | None) -> bool:
  """Whether a set of this name is in `data_dir`, or one that TFDS can prepare."""
  stem = _stem(name)
  place = f'{tfds_data_dir(data_dir)}/{stem}'
  if Store(place).list() if is_url(place) else Path(place).is_dir():
    return True
  tfds = import_tfds('tensorflow_datasets', name)
  return stem in tfds.list_builders(with_community_datasets=False)


def load_tfds(
  name: str,
  split: str,
  data_dir: str | None,
  cache: str | None,
  size: Size,
  channels: int,
) -> Dataset:
  """Opens a tensorflow-datasets set by name; see `open_tfds` for its errors."""
  records = open_tfds(name, split=split, data_dir=data_dir, cache=cache)
  return _make_dataset(name, records, size, channels)


def load_tfds_folder(
  source: PreparedFiles, split: str, size: Size, channels: int
) -> Dataset:
  """Opens a tensorflow-datasets set by its place, such as gs://bucket/cifar10/3.0.2.

  The version may be left out where there is one only.

  Raises:
    MissingDataError: there are no files.
    UserError: as `open_tfds`; there are other files, or several sets.
  """
  name = source.files.url
  files = _fetch_metadata(source)
  folder = _find_set(name, files)
  tfds = import_tfds('tensorflow_datasets', name)
  builder = tfds.core.read_only_builder.builder_from_directory(source.folder / folder)
  hint = 'prepare it anew with file_format="array_record"'
  records = _open_records(tfds, builder, source, files, name, split, hint)
  return _make_dataset(name, records, size, channels)


def _make_dataset(
  name: str, records: TfdsRecords, size: Size, channels: int
) -> Dataset:
  check_channels(name, records.channels, channels)
  examples = EncodedRecords(name, records.source, size, channels, records.labeled)
  origin = f'tensorflow-datasets, {records.description}'
  return Dataset(name, examples, records.class_names, (), origin, records.digests)


def open_tfds(
  name: str, *, split: str, data_dir: str | None, cache: str | None = None
) -> TfdsRecords:
  """Opens a prepared tensorflow-datasets set without importing TensorFlow.

  Args:
    data_dir: folder or URL of the sets; see `tfds_data_dir`.
    cache: folder that the files of the split are copied to; see `set_copy.open_files`.

  Raises:
    MissingDataError: the set is unknown or not prepared.
    UserError: it is not prepared as array_record, has no such split, or has no uint8
      feature 'image'.
  """
  tfds = import_tfds('tensorflow_datasets', name)
  data_dir = tfds_data_dir(data_dir)
  source = open_files(f'{data_dir}/{_stem(name)}', cache)
  files = _fetch_metadata(source)
  builder = _open_builder(tfds, name, data_dir, source.folder.parent)
  hint = f'delete it there and prepare it with: {_prepare_command(name, data_dir)}'
  return _open_records(tfds, builder, source, files, name, split, hint)


def _fetch_metadata(source: PreparedFiles) -> dict[str, Expected]:
  """Fetches all files of a set but those with examples; returns all that there are."""
  files = expect(source.files.list())
  names = [n for n in files if n.endswith(('.json', '.txt')) and not _SHARD.search(n)]
  source.fetch('', files, names)
  return files


def _find_set(url: str, files: Mapping[str, Expected]) -> str:
  """The folder of the one set among the files at a URL; '.' is the URL itself."""
  if not files:
    raise MissingDataError(f'{url}: there is no such set, and no file below that name.')
  info = METADATA[0]
  folders = sorted(str(Path(name).parent) for name in files if Path(name).name == info)
  if '.' in folders:
    return '.'
  if any(re.fullmatch(r'\d+(x\d+)?/.*', folder) for folder in folders):  # resolutions
    raise UserError(
      f'{url} has no manifest.json, which gan_jax.prepare writes last: the set is '
      'incomplete; copy or prepare it again.'
    )
  if not folders:
    raise UserError(
      f'{url} is no prepared set (it has neither manifest.json nor {info}): prepare '
      'images with gan_jax.prepare on this machine, and copy the set there.'
    )
  if len(folders) > 1:
    raise UserError(
      f'{url} has several sets, {", ".join(folders)}: name one, {url}/{folders[-1]}.'
    )
  return folders[0]


def _open_records(
  tfds: ModuleType,
  builder: Any,
  source: PreparedFiles,
  files: Mapping[str, Expected],
  name: str,
  split: str,
  hint: str,
) -> TfdsRecords:
  """Opens a split of a set after fetching its files.

  Args:
    files: of the set, all that there are.
    hint: what to do if the set is in another format.
  """
  features = dict(builder.info.features.items())
  image, label = features.get('image'), features.get('label')
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise UserError(
      f"Dataset '{name}' has the features {', '.join(sorted(features))}, but a uint8 "
      "image feature called 'image' is needed."
    )
  found_format = builder.info.file_format.value
  if found_format != _ARRAY_RECORD:
    raise UserError(
      f"Dataset '{name}' is prepared under {source.files.url.rpartition('/')[0]} as "
      f'{found_format}, but {_ARRAY_RECORD} is needed; {hint}'
    )
  _fetch_split(builder, source, files, name, split)
  labeled = isinstance(label, tfds.features.ClassLabel)
  decoders = {
    key: tfds.decode.SkipDecoding()
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  }
  records = open_split(builder, split, name, decoders=decoders)
  return TfdsRecords(
    source=records,
    labeled=labeled,
    class_names=tuple(getattr(label, 'names', ())) if labeled else (),
    channels=image.shape[-1] or 3,
    res=min(image.shape[0] or 0, image.shape[1] or 0),
    description=f'{builder.info.full_name}, {split}, {len(records)} images',
    digests=_file_digests(builder, split),
  )


def _fetch_split(
  builder: Any,
  source: PreparedFiles,
  files: Mapping[str, Expected],
  name: str,
  split: str,
) -> None:
  """Fetches the files with the examples of a split.

  Raises:
    UserError: no such split, or one of its files is missing.
  """
  try:
    parts = builder.info.splits[split].file_instructions
  except ValueError as error:
    raise _no_such_split(builder, split, name) from error
  folder = Path(os.path.relpath(builder.data_dir, source.folder))
  names = [(folder / Path(part.filename).name).as_posix() for part in parts]
  for missing in (file for file in names if file not in files):
    raise UserError(
      f'{source.files.url}/{missing} is missing, but belongs to the set: the copy is '
      'incomplete; copy or prepare the set again.'
    )
  source.fetch('', files, names)


def _file_digests(builder: Any, split: str) -> dict[str, str]:
  """Digests of the files that hold a split."""
  paths = [Path(part.filename) for part in builder.info.splits[split].file_instructions]
  states = [path.stat() for path in paths]
  sizes = [(path.name, x.st_size) for path, x in zip(paths, states, strict=True)]
  return {
    'records': digest([builder.info.full_name, *sizes]),
    'version': digest(state.st_mtime_ns for state in states),
  }


def _open_builder(tfds: ModuleType, name: str, data_dir: str, folder: Path) -> Any:
  """The read-only builder of a prepared set.

  Args:
    folder: of this machine, that holds what is needed of `data_dir`.

  Raises:
    MissingDataError: the set is not prepared; the message says how, or names similar
      sets.
  """
  try:
    # From files, not from the registry: the version on disk is the one to read.
    return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
  except ValueError as error:
    known = tfds.list_builders(with_community_datasets=False)
    stem = _stem(name)
    if stem in known:
      here = f'take the folder here with data.name=./{name}, or '
      raise MissingDataError(
        f"Dataset '{name}' is not prepared under {data_dir}; "
        f'{here if os.path.isdir(name) else ""}prepare it (some sets need '
        f'tensorflow-cpu for this step) with: {_prepare_command(name, data_dir)}'
      ) from error
    similar = closest(stem, [*BUILT_IN, *known], 3) or BUILT_IN
    raise MissingDataError(
      f"Unknown dataset '{name}': it is not prepared under {data_dir}, and the "
      f'most similar known names are {", ".join(similar)}.'
    ) from error


def _stem(name: str) -> str:
  """'lsun/church' and 'my_set:1.0.0' -> the name of the set alone."""
  return name.split('/')[0].split(':')[0]


def _prepare_command(name: str, data_dir: str) -> str:
  """Shell command that prepares a TFDS set.

  In Python, because the command line of tfds imports TensorFlow for every set.
  """
  return (
    f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    f"data_dir={data_dir!r}).download_and_prepare(file_format='array_record')\""
  )
