"""Writes one shard of a prepared set: one ArrayRecord file for each resolution."""

import dataclasses
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from jaxtyping import UInt8
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from gan_jax.data.decode import UnusableImageError, area_downsample
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.fit import Box, enclosing, encode_png, fit_image
from gan_jax.prepare.options import PrepareOptions, level_name
from gan_jax.runtime.image_size import Size

VERSION = '1.0.0'  # of the tensorflow-datasets sets


@dataclasses.dataclass(frozen=True)
class SetLayout:
  """Names of the files of a set that is being written.

  Attributes:
    folder: DEST.partial.
    name: of the set for tensorflow-datasets; the last part of DEST.
    options: resolution and encoding.
    class_names: empty if unlabeled.
  """

  folder: Path
  name: str
  options: PrepareOptions
  class_names: tuple[str, ...]

  @property
  def work(self) -> Path:
    """Folder of unfinished files and of one record for each finished shard."""
    return self.folder / '.work'

  def level_folder(self, size: Size) -> Path:
    return self.folder / level_name(size) / VERSION

  def features(self, size: Size) -> tfds.features.FeaturesDict:
    """TFDS features of the level of a height and width."""
    shape = (*size, self.options.channels)
    features: dict[str, Any] = {
      'image': tfds.features.Image(shape=shape, encoding_format='png')
    }
    if self.class_names:
      features['label'] = tfds.features.ClassLabel(names=list(self.class_names))
    return tfds.features.FeaturesDict(features)


def write_shard(
  source: ImageSource,
  layout: SetLayout,
  shard: tuple[int, int],
  stop: threading.Event,
  advance: Callable[[int], Any],
) -> dict[str, Any]:
  """Writes a file for each level; each file appears when it is complete.

  Args:
    source: images of all shards.
    layout: where the files go.
    shard: (index of the shard, number of shards).
    stop: interrupts the shard when it is set.
    advance: is called with the number of images processed since the last call.

  Returns:
    What the manifest needs, as JSON values: counts, statistics and files.

  Raises:
    InterruptedError: `stop` was set.
  """
  options, size = layout.options, layout.options.shard_images
  indices = range(shard[0] * size, min((shard[0] + 1) * size, source.n_images))
  writers = {level: _LevelWriter(layout, level, shard) for level in options.levels}
  statistics = _ShardStatistics(len(layout.class_names), options.channels)
  for i in indices:
    if stop.is_set():
      raise InterruptedError('stopped')
    advance(1)
    try:
      content, label = source.read(i)
      label = int(label)
      _check_label(label, len(layout.class_names))
      mode, image, box = fit_image(content, options)
    except UnusableImageError as error:
      statistics.refused[source.display_name(i)] = str(error)
      continue
    statistics.add(mode, image, label, box)
    for level, writer in writers.items():
      factor = options.size[0] // level[0]
      writer.write(area_downsample(image[None], factor)[0], label)
  files = {level_name(level): writer.close() for level, writer in writers.items()}
  return {'looked_at': len(indices), **statistics.to_json(), 'files': files}


def _check_label(label: int, n_classes: int) -> None:
  if n_classes and not 0 <= label < n_classes:
    raise UnusableImageError(f'has the label {label}; 0 to {n_classes - 1} are allowed')


class _ShardStatistics:
  """Statistics of the images of a shard.

  Sums of integers: the result does not depend on threads or on resuming.

  Attributes:
    refused: name -> reason of each image that is left out.
  """

  def __init__(self, n_classes: int, channels: int):
    self.refused: dict[str, str] = {}
    self._modes = Counter[str]()
    self._content: Box | None = None
    self._histogram = [0] * n_classes
    self._sums = np.zeros(channels, np.int64)
    self._squares = np.zeros(channels, np.int64)

  def add(
    self, mode: str, image: UInt8[np.ndarray, 'h w c'], label: int, content: Box
  ) -> None:
    self._modes[mode] += 1
    self._content = enclosing([self._content or content, content])
    values = image.astype(np.int64)
    self._sums += values.sum((0, 1))
    self._squares += (values**2).sum((0, 1))
    if self._histogram:
      self._histogram[label] += 1

  def to_json(self) -> dict[str, Any]:
    return {
      'count': sum(self._modes.values()),
      'refused': self.refused,
      'modes': self._modes,
      'content': self._content,
      'histogram': self._histogram,
      'sums': self._sums.tolist(),
      'squares': self._squares.tolist(),
    }


class _LevelWriter:
  """Writes the file of one level of a shard."""

  def __init__(self, layout: SetLayout, size: Size, shard: tuple[int, int]):
    index, n_shards = shard
    file = f'{layout.name}-train.array_record-{index:05d}-of-{n_shards:05d}'
    self._path = layout.level_folder(size) / file
    self._part = layout.work / f'{index:05d}-{level_name(size)}.part'
    # Uncompressed: PNGs do not become smaller. Groups of one: random access.
    self._writer = array_record_module.ArrayRecordWriter(
      str(self._part), 'group_size:1,uncompressed'
    )
    features = layout.features(size).get_serialized_info()
    self._to_proto = ExampleSerializer(features).get_tf_example
    self._png_level = layout.options.png_level
    self._labeled = bool(layout.class_names)

  def write(self, image: UInt8[np.ndarray, 'h w c'], label: int) -> None:
    example: dict[str, Any] = {'image': encode_png(image, self._png_level)}
    if self._labeled:
      example['label'] = label
    # A fixed order of the fields, so that writing again gives the same bytes.
    record = self._to_proto(example).SerializeToString(deterministic=True)
    self._writer.write(record)

  def close(self) -> dict[str, Any]:
    """Moves the complete file to its place, and returns its manifest entry."""
    self._writer.close()
    with self._part.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      os.fsync(file.fileno())
    n_bytes = self._part.stat().st_size
    os.replace(self._part, self._path)
    return {'file': self._path.name, 'bytes': n_bytes, 'sha256': digest}
