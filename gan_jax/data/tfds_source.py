"""Datasets in the layout of tensorflow-datasets, including those of gan_jax.prepare."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN
from gan_jax.data.dataset import (
  CorruptImageError,
  Dataset,
  DownsampledExamples,
  Example,
  Examples,
  check_channels,
  decode_and_resize,
  import_optional,
)
from gan_jax.data.decode import UnusableImageError, open_image
from gan_jax.data.digests import digest
from gan_jax.data.folder import MissingDataError
from gan_jax.runtime.errors import closest

MANIFEST = 'manifest.json'  # a folder with this file is a prepared set; written last


class RecordSource(Protocol):
  """Records with random access: {'image': bytes, 'label': int if labeled, ...}."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int, /) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRecords:
  """Examples of records with encoded images, decoded when they are read."""

  name: str
  source: RecordSource
  res: int
  channels: int
  labeled: bool

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, i: int) -> Example:
    record = self.source[i]
    try:
      image = decode_and_resize(record['image'], self.res, self.channels)
    except UnusableImageError as error:
      raise CorruptImageError(f"Image {i} of dataset '{self.name}' {error}.") from error
    return image, int(record['label']) if self.labeled else 0

  def source_size(self, i: int) -> tuple[int, int]:
    return open_image(self.source[i]['image']).size

  def label(self, i: int) -> int:
    return int(self.source[i]['label']) if self.labeled else 0


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedLevel(EncodedRecords):
  """Examples of one resolution of a prepared set, read as they are stored.

  Attributes:
    open_level: resolution -> its records; raises KeyError if it is not stored.
  """

  open_level: Callable[[int], RecordSource]

  def downsampled(self, factor: int) -> Examples:
    """The stored level of the lower resolution, if there is one."""
    res = self.res // factor
    try:
      source = self.open_level(res)
    except KeyError:
      return DownsampledExamples(self, factor)
    return dataclasses.replace(self, source=source, res=res)


@dataclasses.dataclass(frozen=True, eq=False)
class _PreparedRecords:
  """Records of a level, parsed without the per-field overhead of TFDS."""

  records: Any
  parse: Callable[[bytes], Any]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, i: int) -> dict[str, Any]:
    fields = self.parse(self.records[i]).features.feature
    label = fields['label'].int64_list.value
    return {
      'image': fields['image'].bytes_list.value[0],
      'label': label[0] if label else 0,
    }


def load_prepared(folder: Path, split: str, res: int, channels: int) -> Dataset:
  """Opens a set that gan_jax.prepare wrote, at its stored level `res` if it has one.

  Raises:
    UserError: unreadable manifest, incomplete copy, no such split, too few channels.
  """
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    levels = {int(side): level for side, level in manifest['levels'].items()}
    stored_channels = manifest['channels']
    class_names = tuple(manifest['class_names'])
    counts = tuple(manifest['histogram']) if split == 'train' else ()
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f'{folder / MANIFEST} cannot be read ({error!r}).') from error
  name = str(folder)
  check_channels(name, stored_channels, channels)

  @functools.lru_cache
  def open_level(side: int) -> RecordSource:
    return _open_level(folder, levels[side], split)

  # Grey of the mean is not the mean of rounded grey values: a set that is converted
  # to other channels is read from the full resolution.
  stored = res in levels and channels == stored_channels
  side = res if stored else max(levels)
  fields = name, open_level(side), res, channels, bool(class_names)
  examples: Examples = (
    PreparedLevel(*fields, open_level) if side == res else EncodedRecords(*fields)
  )
  origin = f'prepared from {manifest["source"]}, read at {side} x {side}'
  content = digest(levels[side]['files'].values())
  return Dataset(name, examples, class_names, counts, origin, {'content': content})


def _open_level(folder: Path, level: dict[str, Any], split: str) -> RecordSource:
  """Opens one resolution of a prepared set after checking the sizes of its files.

  Args:
    folder: of the prepared set.
    level: the manifest's entry for the resolution.
    split: TFDS split expression.
  """
  root = folder / level['folder']
  for file, entry in level['files'].items():
    path = root / file
    size = path.stat().st_size if path.is_file() else None
    if size != entry['bytes']:
      state = 'is missing' if size is None else f'has {size} bytes'
      raise UserError(
        f'{path} {state}, but {MANIFEST} lists it with {entry["bytes"]} bytes: the '
        'copy is incomplete; copy or prepare the set again.'
      )
  tfds = _import_tfds('tensorflow_datasets', str(folder))
  protos = _import_tfds('tensorflow_datasets.proto', str(folder))
  builder = tfds.core.read_only_builder.builder_from_directory(root)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  records = _open_split(builder, split, str(folder), deserialize_method=raw)
  return _PreparedRecords(records, protos.tf_example_pb2.Example.FromString)


def _import_tfds(module: str, dataset: str) -> ModuleType:
  return import_optional(module, 'tensorflow-datasets', dataset)


def _open_split(builder: Any, split: str, name: str, **options: Any) -> Any:
  """Opens a split with the `options` of TFDS's `as_data_source`.

  Raises:
    UserError: no such split, or it is empty.
  """
  try:
    return builder.as_data_source(split, **options)
  except ValueError as error:
    raise UserError(
      f"Dataset '{name}' has no images in split '{split}'; its splits are "
      f'{", ".join(builder.info.splits)}, or parts such as train[:90%].'
    ) from error


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
  if (Path(tfds_data_dir(data_dir)) / stem).is_dir():
    return True
  tfds = _import_tfds('tensorflow_datasets', name)
  return stem in tfds.list_builders(with_community_datasets=False)


def load_tfds(
  name: str, split: str, data_dir: str | None, res: int, channels: int
) -> Dataset:
  """Opens a tensorflow-datasets set by name; see `open_tfds` for its errors."""
  records = open_tfds(name, split=split, data_dir=data_dir)
  check_channels(name, records.channels, channels)
  examples = EncodedRecords(name, records.source, res, channels, records.labeled)
  origin = f'tensorflow-datasets, {records.description}'
  return Dataset(name, examples, records.class_names, (), origin, records.digests)


def open_tfds(name: str, *, split: str, data_dir: str | None) -> TfdsRecords:
  """Opens a prepared tensorflow-datasets set without importing TensorFlow.

  Raises:
    MissingDataError: the set is unknown or not prepared.
    UserError: it is not prepared as array_record, has no such split, or has no uint8
      feature 'image'.
  """
  tfds = _import_tfds('tensorflow_datasets', name)
  data_dir = tfds_data_dir(data_dir)
  builder = _open_builder(tfds, name, data_dir)
  features = dict(builder.info.features.items())
  image, label = features.get('image'), features.get('label')
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise UserError(
      f"Dataset '{name}' has the features {', '.join(sorted(features))}, but a uint8 "
      "image feature called 'image' is needed."
    )
  labeled = isinstance(label, tfds.features.ClassLabel)
  decoders = {
    key: tfds.decode.SkipDecoding()
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  }
  try:
    source = _open_split(builder, split, name, decoders=decoders)
  except NotImplementedError as error:
    raise UserError(
      f"Dataset '{name}' is prepared under {data_dir} as "
      f'{builder.info.file_format.value}, but array_record is needed; delete it '
      f'there and prepare it with: {_prepare_command(name, data_dir)}'
    ) from error
  return TfdsRecords(
    source=source,
    labeled=labeled,
    class_names=tuple(getattr(label, 'names', ())) if labeled else (),
    channels=image.shape[-1] or 3,
    res=min(image.shape[0] or 0, image.shape[1] or 0),
    description=f'{builder.info.full_name}, {split}, {len(source)} images',
    digests=_file_digests(builder, split),
  )


def _file_digests(builder: Any, split: str) -> dict[str, str]:
  """Digests of the files that hold a split."""
  paths = [Path(part.filename) for part in builder.info.splits[split].file_instructions]
  states = [path.stat() for path in paths]
  sizes = [(path.name, x.st_size) for path, x in zip(paths, states, strict=True)]
  return {
    'records': digest([builder.info.full_name, *sizes]),
    'version': digest(state.st_mtime_ns for state in states),
  }


def _open_builder(tfds: ModuleType, name: str, data_dir: str) -> Any:
  """The read-only builder of a prepared set.

  Raises:
    MissingDataError: the set is not prepared; the message says how, or names similar
      sets.
  """
  try:
    # From files, not from the registry: the version on disk is the one to read.
    return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
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
