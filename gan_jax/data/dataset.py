"""Datasets with random access, whose images are decoded when they are read."""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Int, UInt8

from gan_jax import UserError
from gan_jax.data.decode import (
  PIL_MODES,
  UnusableImageError,
  apply_orientation,
  area_downsample,
  center_crop_resize,
  decode_pixels,
  header_size,
  open_image,
  oriented,
)
from gan_jax.data.depth import Ranges
from gan_jax.data.folder import ImageSource, Label
from gan_jax.data.raw_png import decode_raw_png
from gan_jax.runtime.image_size import Size, as_size

Example = tuple[UInt8[np.ndarray, 'h w c'], Label]


class CorruptImageError(UserError):
  """An image of a dataset that cannot be decoded; the message names it."""


class Examples(Protocol):
  """Labeled images with random access; unlabeled images have the label 0."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int, /) -> Example: ...


@runtime_checkable
class HasMetadata(Protocol):
  """Examples whose original size and label are known without decoding the image."""

  def source_size(self, i: int) -> tuple[int, int] | None: ...

  def label(self, i: int) -> Label: ...


@runtime_checkable
class HasDownsampled(Protocol):
  """Examples that read lower resolutions faster than by downsampling each image."""

  def downsampled(self, factor: int) -> Examples: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A named set of examples, all of one resolution.

  Attributes:
    name: as the config calls it.
    examples: `examples[i]` is (image uint8 [h, w, c], label in 0..n_classes-1).
    class_names: empty if the dataset is unlabeled; all labels are 0 then.
    counts: number of images of each class; empty if unknown without reading them.
    origin: where the images come from, in words, for the summary.
    content: top, left, bottom and right of what is not padding in any image, as
      fractions of height and width.
    has_vectors: the labels are vectors float32 [n_classes], not classes.
    digests: hexadecimal digests over all images by what they cover, see
      `gan_jax.data.digests`; empty if unknown.
  """

  name: str
  examples: Examples
  class_names: tuple[str, ...] = ()
  counts: tuple[int, ...] = ()
  origin: str = ''
  digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
  has_vectors: bool = False
  content: tuple[float, float, float, float] = (0, 0, 1, 1)

  @property
  def n_classes(self) -> int:
    return len(self.class_names)

  def downsampled(self, factor: int) -> 'Dataset':
    """The same examples at a lower resolution: means of factor x factor pixels.

    A prepared set reads its stored level, which holds the same numbers.
    """
    if factor == 1:
      return self
    return dataclasses.replace(
      self, examples=downsample_examples(self.examples, factor)
    )

  def skip_corrupt(self) -> 'Dataset':
    """The same dataset, reading the next image in place of one that is corrupted."""
    return dataclasses.replace(self, examples=SkipCorrupt(self.examples, {}))


def check_channels(name: str, available: int, requested: int) -> None:
  """Raises a UserError if a model has more channels than the images."""
  if requested > available:
    raise UserError(
      f"model.channels is {requested}, but dataset '{name}' has {available}: set "
      f'model.channels={available} or less.'
    )


def import_optional(module: str, package: str, dataset: str) -> ModuleType:
  """Imports a module that only `dataset` needs.

  Raises:
    UserError: `package` is not installed.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(
      f"Dataset '{dataset}' needs a package: pip install {package}"
    ) from error


def source_size(examples: Examples, i: int) -> tuple[int, int] | None:
  """(width, height) of image i before it is cropped; None if it is unknown."""
  return examples.source_size(i) if isinstance(examples, HasMetadata) else None


def label_of(examples: Examples, i: int) -> Label:
  """Label of image i, read without decoding the image where possible."""
  return examples.label(i) if isinstance(examples, HasMetadata) else examples[i][1]


def downsample_examples(examples: Examples, factor: int) -> Examples:
  """Examples at a resolution that is lower by `factor`."""
  if isinstance(examples, HasDownsampled):
    return examples.downsampled(factor)
  return DownsampledExamples(examples, factor)


@dataclasses.dataclass(frozen=True, eq=False)
class InMemoryExamples:
  """Images and labels held as arrays."""

  images: UInt8[np.ndarray, 'n h w c']
  labels: Int[np.ndarray, ' n']

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, i: int) -> Example:
    return self.images[i], int(self.labels[i])

  def downsampled(self, factor: int) -> 'InMemoryExamples':
    return InMemoryExamples(area_downsample(self.images, factor), self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class DownsampledExamples:
  """Examples, downsampled by `factor` after they are read."""

  examples: Examples
  factor: int

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, i: int) -> Example:
    image, label = self.examples[i]
    return area_downsample(image[None], self.factor)[0], label


@dataclasses.dataclass(frozen=True, eq=False)
class SkipCorrupt:
  """Examples; in place of a corrupted image the next readable one is read.

  The replacement depends on the files alone, so that all hosts and runs agree.

  Attributes:
    examples: raise CorruptImageError for an image that cannot be decoded.
    skipped: index -> message of each corrupted image read so far; shared by all
      resolutions of a dataset.
  """

  examples: Examples
  skipped: dict[int, str]

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, i: int) -> Example:
    n = len(self)
    for offset in range(n):
      index = (i + offset) % n
      if index in self.skipped:
        continue
      try:
        return self.examples[index]
      except CorruptImageError as error:
        self.skipped[index] = str(error)
        logging.warning(
          '%s The next image is read instead; images skipped: %d.',
          error,
          len(self.skipped),
        )
    raise UserError(
      f'None of the {n} images can be decoded; the last error: {self.skipped[i]}'
    )

  def downsampled(self, factor: int) -> 'SkipCorrupt':
    return SkipCorrupt(downsample_examples(self.examples, factor), self.skipped)

  def source_size(self, i: int) -> tuple[int, int] | None:
    return source_size(self.examples, i)

  def label(self, i: int) -> Label:
    return label_of(self.examples, i)


def decode_and_resize(
  content: bytes, res: int | Size, channels: int, ranges: Ranges | None = None
) -> UInt8[np.ndarray, 'h w channels']:
  """Decodes an image and resizes its largest centered part of the result's shape.

  `res` are height and width in pixels, or the side of a square. `ranges` are those
  of values of more than 8 bits; see `depth.to_8_bits`.

  Raises:
    UnusableImageError: it cannot be decoded.
  """
  size = as_size(res)
  if (pixels := decode_raw_png(content, (*size, channels))) is not None:
    return pixels
  image = open_image(content)
  original_size = image.size
  # The JPEG decoder may skip detail beyond twice the requested resolution. HEIC would
  # give its thumbnail.
  enough = 2 * max(size), 2 * max(size)
  is_jpeg = image.format in ('JPEG', 'MPO')
  drafted = image.draft(PIL_MODES[channels], enough) if is_jpeg else None
  scale = original_size[0] / drafted[1][2] if drafted else 1
  decoded = decode_pixels(image, channels, ranges=ranges)
  return apply_orientation(
    center_crop_resize(decoded, oriented(size, image), original_size, scale), image
  )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
  """Images of a folder or a zip file, decoded when they are read.

  Attributes:
    ranges: of values of more than 8 bits; see `depth.to_8_bits`.
  """

  name: str
  source: ImageSource
  size: Size
  channels: int
  ranges: Ranges = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return self.source.n_images

  def __getitem__(self, i: int) -> Example:
    try:
      content, label = self.source.read(i)
      return decode_and_resize(content, self.size, self.channels, self.ranges), label
    except UnusableImageError as error:
      image = self.source.display_name(i)
      raise CorruptImageError(f'{image} of {self.name} {error}.') from error

  def source_size(self, i: int) -> tuple[int, int]:
    return header_size(open_image(self.source.read(i)[0]))

  def label(self, i: int) -> Label:
    return self.source.label(i)
