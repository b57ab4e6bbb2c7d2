"""Sets on disk in the layout of tensorflow-datasets, its own and gan_jax.prepare's."""

import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN
from gan_jax.data.dataset import (
  Dataset,
  EncodedImages,
  PreparedLevel,
  check_channels,
  import_optional,
)

MANIFEST = 'manifest.json'  # what makes a folder a prepared set; written last


def load_prepared(folder, split, res, channels):
  """Opens what gan_jax.prepare wrote, at its level `res` if there is one."""
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    levels = {int(side): level for side, level in manifest['levels'].items()}
    there, class_names = manifest['channels'], tuple(manifest['class_names'])
    histogram = manifest['histogram']
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f'{folder / MANIFEST} cannot be read ({error!r}).') from error
  tfds = import_optional('tensorflow_datasets', 'tensorflow-datasets', str(folder))
  protos = import_optional(
    'tensorflow_datasets.proto', 'tensorflow-datasets', str(folder)
  )
  parse = protos.tf_example_pb2.Example.FromString
  check_channels(str(folder), there, channels)

  @functools.lru_cache
  def source_at(side):
    root = folder / levels[side]['folder']
    for file, about in levels[side]['files'].items():
      size = (root / file).stat().st_size if (root / file).is_file() else -1
      if size != about['bytes']:
        raise UserError(
          f'{root / file} has {size} bytes where {MANIFEST} says {about["bytes"]}'
          ': the copy is not whole; copy or prepare it again.'
        )
    builder = tfds.core.read_only_builder.builder_from_directory(root)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = _open_split(builder, split, str(folder), deserialize_method=raw)
    return _Stored(records, parse)

  # Grey of means is not the mean of greys: other channels are read from the full size.
  side = res if res in levels and channels == there else max(levels)
  about = str(folder), source_at(side), res, channels, bool(class_names)
  examples = PreparedLevel(*about, source_at) if side == res else EncodedImages(*about)
  counts = tuple(histogram) if split == 'train' else ()
  origin = f'prepared from {manifest["source"]}, read at {side} x {side}'
  return Dataset(str(folder), examples, class_names, counts, origin)


@dataclasses.dataclass(frozen=True, eq=False)
class _Stored:
  """Records of a level, parsed without tensorflow-datasets' look at every field."""

  records: Any
  parse: Callable[[bytes], Any]

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    fields = self.parse(self.records[i]).features.feature
    label = fields['label'].int64_list.value
    return {
      'image': fields['image'].bytes_list.value[0],
      'label': label[0] if label else 0,
    }


def _open_split(builder, split, name, **how):
  """Records of a split, read as `as_data_source` is told."""
  try:
    return builder.as_data_source(split, **how)
  except ValueError as error:
    raise UserError(
      f"Dataset '{name}' has no images in split '{split}'; its splits are "
      f'{", ".join(builder.info.splits)}, or parts such as train[:90%].'
    ) from error


@dataclasses.dataclass(frozen=True)
class Records:
  """A split of a tensorflow-datasets set, images still encoded.

  Attributes:
    source: index -> {'image': bytes, 'label': int if labeled, ...}.
    channels: of the stored images.
    res: shorter side of the stored images if it is declared, else 0.
    state: name, version, split and size; another one, another source.
  """

  source: Any
  labeled: bool
  class_names: tuple[str, ...]
  channels: int
  res: int
  state: str


def data_root(data_dir):
  return os.path.expanduser(
    data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  )


def load_tfds(name, split, data_dir, res, channels):
  records = open_tfds(name, split=split, data_dir=data_dir)
  check_channels(name, records.channels, channels)
  examples = EncodedImages(name, records.source, res, channels, records.labeled)
  origin = f'tensorflow-datasets, {records.state}'
  return Dataset(name, examples, records.class_names, (), origin)


def open_tfds(name: str, *, split: str, data_dir: str | None) -> Records:
  """Opens a prepared tensorflow-datasets set; TensorFlow itself is never imported.

  Raises:
    UserError: it is unknown, not prepared as array_record, or has no such split or no
      uint8 feature 'image'.
  """
  tfds = import_optional('tensorflow_datasets', 'tensorflow-datasets', name)
  data_dir = data_root(data_dir)
  # The tfds command line needs TensorFlow even for sets that do not: hence Python.
  prepare = (
    f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    f"data_dir={data_dir!r}).download_and_prepare(file_format='array_record')\""
  )
  try:
    # From files, not from the registry: the version on disk is the one that is read.
    builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
  except ValueError as error:
    known = tfds.list_builders(with_community_datasets=False)
    stem = name.split('/')[0].split(':')[0]
    if stem in known:
      raise UserError(
        f"Dataset '{name}' is not prepared under {data_dir}; prepare it (some sets "
        f'need tensorflow-cpu for this step) with: {prepare}'
      ) from error
    near = difflib.get_close_matches(stem, [*BUILT_IN, *known]) or BUILT_IN
    raise UserError(
      f"Unknown dataset '{name}': it is not prepared under {data_dir}, and the "
      f'nearest known names are {", ".join(near)}.'
    ) from error

  features = dict(builder.info.features.items())
  image = features.get('image')
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise UserError(
      f"Dataset '{name}' has the features {', '.join(sorted(features))}, but a uint8 "
      "image feature called 'image' is needed."
    )
  label = features.get('label')
  labeled = isinstance(label, tfds.features.ClassLabel)
  encoded = {
    key: tfds.decode.SkipDecoding()
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  }
  try:
    source = _open_split(builder, split, name, decoders=encoded)
  except NotImplementedError as error:
    raise UserError(
      f"Dataset '{name}' is prepared under {data_dir} as "
      f'{builder.info.file_format.value}, but array_record is needed; delete it '
      f'there and prepare it with: {prepare}'
    ) from error
  return Records(
    source=source,
    labeled=labeled,
    class_names=tuple(getattr(label, 'names', ())) if labeled else (),
    channels=image.shape[-1] or 3,
    res=min(image.shape[0] or 0, image.shape[1] or 0),
    state=f'{builder.info.full_name}, {split}, {len(source)} images',
  )
