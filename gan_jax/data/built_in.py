"""Datasets that need no files: emoji, digits, and synthetic blobs for benchmarks."""

import importlib.resources
import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gan_jax import UserError
from gan_jax.data.dataset import (
  Dataset,
  Example,
  InMemoryExamples,
  check_channels,
  import_optional,
)
from gan_jax.data.decode import PIL_MODES, center_crop_resize
from gan_jax.data.digests import array_digests
from gan_jax.runtime.image_size import Size

BUILT_IN = ('emoji', 'digits', 'synthetic')

_EMOJI_PER_CLASS = 128  # of smaller classes, at most


def load_built_in(name: str, split: str, size: Size, channels: int) -> Dataset:
  """Opens the dataset `name` of BUILT_IN.

  Raises:
    UserError: `split` is not 'train', too many channels, or a package is missing.
  """
  if split != 'train':
    raise UserError(f"Dataset '{name}' has only the split 'train', not '{split}'.")
  digit_names = tuple(map(str, range(10)))
  if name == 'synthetic':
    return Dataset(name, _SyntheticExamples(size, channels), digit_names, (1000,) * 10)
  check_channels(name, 1 if name == 'digits' else 3, channels)
  if name == 'digits':
    images, labels = _read_digits()
    class_names = digit_names
  else:
    images, labels, class_names = _read_emoji()
  # Few and small: resized once here, so that reading one is an array lookup.
  pixels = np.stack(
    [center_crop_resize(image.convert(PIL_MODES[channels]), size) for image in images]
  )
  counts = tuple(np.bincount(labels).tolist())
  label_array = np.asarray(labels)
  return Dataset(
    name,
    InMemoryExamples(pixels, label_array),
    class_names,
    counts,
    digests=array_digests(pixels, label_array),
  )


def _read_digits() -> tuple[list[Image.Image], Sequence[int]]:
  """Images (8 x 8, grey) and labels of scikit-learn's digits."""
  digits = import_optional('sklearn.datasets', 'scikit-learn', 'digits').load_digits()
  pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
  return [Image.fromarray(x) for x in pixels], digits.target


def _read_emoji() -> tuple[list[Image.Image], Sequence[int], tuple[str, ...]]:
  """Images (64 x 64, RGB), labels and class names, from one file of tiles.

  Small classes are repeated, so that an epoch has 100 images or more of each class.
  """
  folder = importlib.resources.files('gan_jax.data') / 'embedded'
  index = json.loads((folder / 'emoji64.json').read_text())
  tiles = Image.open(io.BytesIO((folder / 'emoji64.webp').read_bytes()))
  side, columns, classes = index['tile'], index['columns'], index['classes']
  chosen: list[int] = []
  labels: list[int] = []
  for label, tile_by_name in enumerate(classes.values()):
    repeats = max(1, _EMOJI_PER_CLASS // len(tile_by_name))
    chosen += [*tile_by_name.values()] * repeats
    labels += [label] * len(tile_by_name) * repeats
  corners = [divmod(tile, columns) for tile in chosen]
  images = [
    tiles.crop((x * side, y * side, (x + 1) * side, (y + 1) * side)) for y, x in corners
  ]
  return images, labels, tuple(classes)


class _SyntheticExamples:
  """10,000 blobs that cost nothing to read; color by class, position by index."""

  def __init__(self, size: Size, channels: int):
    self.size, self.n_offsets = size, tuple(n // 2 + 1 for n in size)
    # One image for each class, 1.5 times as large; an example is a window of it.
    y, x = (np.linspace(-3, 3, n + n // 2) for n in size)
    blob = np.exp(-(x**2) - y[:, None] ** 2)[..., None]
    hues = 2 * np.pi * (np.arange(10)[:, None] / 10 + np.arange(channels) / 3)
    shades = 255 * blob * (0.5 + 0.5 * np.cos(hues))[:, None, None, :]
    self.class_images = shades.astype(np.uint8)

  def __len__(self) -> int:
    return 10_000

  def __getitem__(self, i: int) -> Example:
    # A prime stride: consecutive images are far apart, and all positions occur.
    rows, columns = self.n_offsets
    y, x = divmod(i * 7919 % (rows * columns), columns)
    window = self.class_images[i % 10, y : y + self.size[0], x : x + self.size[1]]
    return window, int(i % 10)
