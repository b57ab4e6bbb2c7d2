"""Sets of images with random access, each image decoded when it is asked for."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.data.decode import (
  MODES,
  UnreadableImage,
  apply_orientation,
  area_downsample,
  crop,
  decode,
  open_image,
)
from gan_jax.data.folder import ImageSource
from gan_jax.data.raw_png import decode_png


class CorruptImageError(UserError):
  """A picture that cannot be decoded; the sentence names it."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """`examples[i]` is (image uint8 [res, res, channels], label in 0..n_classes-1)."""

  name: str
  examples: Any
  class_names: tuple[str, ...] = ()  # empty: unlabeled, and every label is 0
  counts: tuple[int, ...] = ()  # images of each class, where known without reading
  origin: str = ''  # what it was read from, for people

  @property
  def n_classes(self) -> int:
    return len(self.class_names)

  def shrunk(self, factor: int) -> 'Dataset':
    """The same examples, each pixel the mean of factor x factor, rounded once.

    Of a set that gan_jax.prepare wrote, the stored level is read: the same numbers.
    """
    if factor == 1:
      return self
    return dataclasses.replace(
      self, examples=downsample_examples(self.examples, factor)
    )

  def skipping(self) -> 'Dataset':
    """The same, with the next image in the place of one that cannot be decoded."""
    return dataclasses.replace(self, examples=SkipCorrupt(self.examples, {}))


def check_channels(name, there, asked):
  """Refuses a model with more channels than the data has."""
  if asked > there:
    raise UserError(
      f"model.channels is {asked}, but dataset '{name}' has {there}: set "
      f'model.channels={there} or less.'
    )


def import_optional(module, package, dataset):
  """Imports what only `dataset` needs."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(
      f"Dataset '{dataset}' needs a package: pip install {package}"
    ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
  """Images uint8 [n, res, res, channels] and labels int [n], held as arrays."""

  images: np.ndarray
  labels: np.ndarray

  def __len__(self):
    return len(self.images)

  def __getitem__(self, i):
    return self.images[i], int(self.labels[i])

  def shrunk(self, factor):
    return InMemory(area_downsample(self.images, factor), self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Downsampled:
  """Other examples at a lower resolution."""

  examples: Any
  factor: int

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    image, label = self.examples[i]
    return area_downsample(image[None], self.factor)[0], label


def downsample_examples(examples, factor):
  """Examples that know better than shrinking the full image do it themselves."""
  if hasattr(examples, 'shrunk'):
    return examples.shrunk(factor)
  return Downsampled(examples, factor)


@dataclasses.dataclass(frozen=True, eq=False)
class SkipCorrupt:
  """Other examples, the next readable one in the place of each that is not.

  Which one that is depends on the files alone, so every host and every run agrees.
  """

  examples: Any
  skipped: dict[int, str]  # shared by all resolutions

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    n = len(self)
    for step in range(n):
      place = (i + step) % n
      if place in self.skipped:
        continue
      try:
        return self.examples[place]
      except CorruptImageError as error:
        self.skipped[place] = str(error)
        logging.warning(
          '%s The next image is taken; skipped: %d.', error, len(self.skipped)
        )
    raise UserError(f'None of {n} images can be decoded; the last: {self.skipped[i]}')

  def shrunk(self, factor):
    return SkipCorrupt(downsample_examples(self.examples, factor), self.skipped)

  def size(self, i):
    return self.examples.size(i)

  def label(self, i):
    return self.examples.label(i)


def decode_example(content, res, channels):
  """An encoded picture as uint8 [res, res, channels]; raises Refused."""
  if (wrapped := decode_png(content, (res, res, channels))) is not None:
    return wrapped
  image = open_image(content)
  whole = image.size
  # Lets the JPEG decoder skip detail beyond twice the size that is wanted.
  drafted = image.draft(MODES[channels], (2 * res, 2 * res))
  scale = whole[0] / drafted[1][2] if drafted else 1
  return apply_orientation(crop(decode(image, channels), res, whole, scale), image)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
  """Pictures of a folder or a zip, decoded when read."""

  name: str
  source: ImageSource
  res: int
  channels: int

  def __len__(self):
    return self.source.n

  def __getitem__(self, i):
    try:
      content, label = self.source.read(i)
      return decode_example(content, self.res, self.channels), label
    except UnreadableImage as error:
      raise CorruptImageError(
        f'{self.source.title(i)} of {self.name} {error}.'
      ) from error

  def size(self, i):
    return open_image(self.source.read(i)[0]).size

  def label(self, i):
    return int(self.source.labels[i])


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImages:
  """Encoded images of a tensorflow-datasets source, decoded by PIL when read."""

  name: str
  source: Any
  res: int
  channels: int
  labeled: bool

  def __len__(self):
    return len(self.source)

  def __getitem__(self, i):
    example = self.source[i]
    try:
      image = decode_example(example['image'], self.res, self.channels)
    except UnreadableImage as error:
      raise CorruptImageError(f"Image {i} of dataset '{self.name}' {error}.") from error
    return image, int(example['label']) if self.labeled else 0

  def size(self, i):
    return open_image(self.source[i]['image']).size

  def label(self, i):
    return int(self.source[i]['label']) if self.labeled else 0


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedLevel(EncodedImages):
  """A level of a set that gan_jax.prepare wrote, as stored."""

  level: Callable[[int], Any]  # res -> source; raises KeyError

  def shrunk(self, factor):
    try:
      source = self.level(self.res // factor)
    except KeyError:
      return Downsampled(self, factor)
    return dataclasses.replace(self, source=source, res=self.res // factor)
