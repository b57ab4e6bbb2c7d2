"""Sets that gan_jax.prepare wrote: one tensorflow-datasets set for each resolution."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

from gan_jax import UserError
from gan_jax.data.dataset import Dataset, DownsampledExamples, Examples, check_channels
from gan_jax.data.digests import digest
from gan_jax.data.set_files import Expected, PreparedFiles, expect
from gan_jax.data.tfds_source import (
  METADATA,
  EncodedRecords,
  RecordSource,
  import_tfds,
  open_split,
)
from gan_jax.runtime.image_size import Size, format_size, same_shape

MANIFEST = 'manifest.json'  # a folder with this file is a prepared set; written last


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedLevel(EncodedRecords):
  """Examples of one resolution of a prepared set, read as they are stored.

  Attributes:
    open_level: height and width -> the records; raises KeyError if not stored.
  """

  open_level: Callable[[Size], RecordSource]

  def downsampled(self, factor: int) -> Examples:
    """The stored level of the lower resolution, if there is one."""
    size = self.size[0] // factor, self.size[1] // factor
    try:
      source = self.open_level(size)
    except KeyError:
      return DownsampledExamples(self, factor)
    return dataclasses.replace(self, source=source, size=size)


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


def read_manifest(source: PreparedFiles) -> bytes | None:
  """The manifest of a prepared set; None if it is something else.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return source.files.read(MANIFEST)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise _unreadable(source, error) from error


def load_prepared(
  source: PreparedFiles, manifest: bytes, split: str, size: Size, channels: int
) -> Dataset:
  """Opens a set that gan_jax.prepare wrote, at its level of `size` if it has one.

  Args:
    manifest: as `read_manifest` returned it.

  Raises:
    UserError: unreadable manifest, incomplete copy, no such split, too few channels,
      images of another shape.
  """
  try:
    values = json.loads(manifest)
    levels = {_level_size(name): level for name, level in values['levels'].items()}
    stored_channels = values['channels']
    class_names = tuple(values['class_names'])
    counts = tuple(values['histogram']) if split == 'train' else ()
    full = max(levels)
    height, width = full
    top, left, bottom, right = values.get('content', (0, 0, height, width))
    box = top / height, left / width, bottom / height, right / width
  except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
    raise _unreadable(source, error) from error
  name = source.files.url
  check_channels(name, stored_channels, channels)
  if not same_shape(full, size):
    raise UserError(
      f'{name} is prepared with images of {format_size(full)}, and the model has '
      f'{format_size(size)} (width x height): set model.first_map to their shape, or '
      f'prepare the images again with --res={size[1]}x{size[0]}.'
    )

  @functools.lru_cache
  def open_level(size: Size) -> RecordSource:
    return _open_level(source, levels[size], split)

  # Grey of the mean is not the mean of rounded grey values: a set that is converted
  # to other channels is read from the full resolution.
  stored = size in levels and channels == stored_channels
  read = size if stored else full
  fields = name, open_level(read), size, channels, bool(class_names)
  examples: Examples = (
    PreparedLevel(*fields, open_level) if read == size else EncodedRecords(*fields)
  )
  origin = f'prepared from {values["source"]}, read at {format_size(read)}'
  content = digest(levels[read]['files'].values())
  digests = {'content': content}
  return Dataset(name, examples, class_names, counts, origin, digests, content=box)


def _level_size(name: str) -> Size:
  """Height and width of a level by its name: '64', or '96x64' for width x height."""
  width, _, height = name.partition('x')
  return int(height or width), int(width)


def _unreadable(source: PreparedFiles, error: Exception) -> UserError:
  reason = error.strerror if isinstance(error, OSError) else repr(error)
  return UserError(f'{source.files.url}/{MANIFEST} cannot be read ({reason}).')


def _open_level(
  source: PreparedFiles, level: dict[str, Any], split: str
) -> RecordSource:
  """Opens one resolution of a prepared set.

  Args:
    level: the manifest's entry for the resolution.
    split: TFDS split expression.
  """
  folder, name = level['folder'], source.files.url
  files = _expected_files(source, level)
  source.fetch(folder, files, files)
  tfds = import_tfds('tensorflow_datasets', name)
  protos = import_tfds('tensorflow_datasets.proto', name)
  builder = tfds.core.read_only_builder.builder_from_directory(source.folder / folder)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  records = open_split(builder, split, name, deserialize_method=raw)
  return _PreparedRecords(records, protos.tf_example_pb2.Example.FromString)


def _expected_files(
  source: PreparedFiles, level: dict[str, Any]
) -> dict[str, Expected]:
  """The files of a level: those of the manifest, and their description for TFDS.

  Raises:
    UserError: one is missing, or has another size than the manifest says.
  """
  found = source.files.list(level['folder'])
  files = expect(found)
  entries = dict.fromkeys(METADATA, {}) | level['files']
  for file, entry in entries.items():
    name = f'{level["folder"]}/{file}'
    stored = found.get(name)
    size = entry.get('bytes')
    if not stored or size not in (None, stored.size):
      state = f'has {stored.size} bytes' if stored else 'is missing'
      size_there = f' with {size} bytes' if size else ''
      raise UserError(
        f'{source.files.url}/{name} {state}, but {MANIFEST} lists it{size_there}: the '
        'copy is incomplete; copy or prepare the set again.'
      )
    if entry:
      files[name] = Expected(size, entry['sha256'], entry['sha256'])
  return files
