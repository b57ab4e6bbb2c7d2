"""Summary of a dataset before training: statistics, warnings and an image grid."""

import collections
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw

from gan_jax import UserError
from gan_jax.data.dataset import Dataset, label_of, source_size
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.names import escape_unprintable
from gan_jax.runtime.image_size import Size, format_size, same_shape, smaller

_SAMPLE_SIZE = 512  # images read for statistics; reading all could take hours
_GRID_SIZE = 64
_THREADS = 8
_MAX_BARS = 40  # classes of the label histogram; more bars are not readable
_BAR_HEIGHT = 12
_BAR_LEFT = 130
_GAP = 2  # between images of the grid, in pixels


def evenly_spaced(n: int, limit: int = _SAMPLE_SIZE) -> Int[np.ndarray, ' m']:
  """At most `limit` evenly spaced indices in 0..n-1."""
  return np.unique(np.linspace(0, n - 1, min(n, limit)).astype(int))


def source_sizes(dataset: Dataset) -> list[tuple[int, int]]:
  """(width, height) before cropping of a sample of images; empty if unknown."""

  def read_size(i: int) -> tuple[int, int] | None:
    try:
      return source_size(dataset.examples, i)
    except UnusableImageError:  # reported when the image is read
      return None

  indices = evenly_spaced(len(dataset.examples)).tolist()
  with ThreadPoolExecutor(_THREADS) as threads:
    return [size for size in threads.map(read_size, indices) if size]


def count_labels(dataset: Dataset) -> Int[np.ndarray, ' n_classes']:
  """Number of images of each class: of all if known, else of a sample.

  Raises:
    UserError: a label is not in 0..n_classes-1.
  """
  if dataset.counts:
    return np.asarray(dataset.counts)
  indices = evenly_spaced(len(dataset.examples)).tolist()
  with ThreadPoolExecutor(_THREADS) as threads:
    labels = list(threads.map(lambda i: int(label_of(dataset.examples, i)), indices))
  for i, label in zip(indices, labels):
    if not 0 <= label < dataset.n_classes:
      raise UserError(
        f"Image {i} of dataset '{dataset.name}' has the label {label}, but its labels "
        f'are 0 to {dataset.n_classes - 1}: take another split, or prepare it again.'
      )
  return np.bincount(labels, minlength=dataset.n_classes)


def summarize(dataset: Dataset, folder: str | Path) -> str:
  """Reads a sample of the images and describes them in a few lines of text.

  Writes folder/data.png, a grid of images with the label histogram below.

  Raises:
    UserError: a label is out of range, or an image cannot be decoded.
  """
  statistics = _SampleStatistics(dataset)
  counts = np.array([], np.int64)
  if dataset.n_classes and not dataset.has_vectors:
    counts = count_labels(dataset)
  path = Path(folder) / 'data.png'
  path.parent.mkdir(parents=True, exist_ok=True)
  names = () if dataset.has_vectors else dataset.class_names
  draw_overview(statistics.grid_images, names, counts).save(path)
  return '\n'.join(
    [
      _describe_images(dataset),
      _describe_labels(dataset, counts, statistics.n_images),
      statistics.describe(),
      *(f'note: {note}' for note in _warnings(dataset, counts, statistics)),
      f'image grid: {path}',
    ]
  )


class _SampleStatistics:
  """Statistics of the pixels of a sample of images, each in 0..255.

  Attributes:
    n_images: size of the sample.
    n_single_color: images all of whose values are equal.
    n_duplicates: images equal to an earlier image of the sample.
    grid_images: a subset to show, uint8 [h, w, c] each.
  """

  def __init__(self, dataset: Dataset):
    indices = evenly_spaced(len(dataset.examples))
    in_grid = set(evenly_spaced(len(indices), _GRID_SIZE).tolist())
    channels = dataset.examples[int(indices[0])][0].shape[-1]
    self.n_images = len(indices)
    self.n_single_color = 0
    self.grid_images: list[np.ndarray] = []
    self._sum, self._sum_of_squares = np.zeros(channels), np.zeros(channels)
    self._min, self._max = 255, 0
    self._hashes: collections.Counter[int] = collections.Counter()
    for position, image in enumerate(_read_images(dataset, indices)):
      self._add(image)
      if position in in_grid:
        self.grid_images.append(image)

  @property
  def n_duplicates(self) -> int:
    return sum(count - 1 for count in self._hashes.values())

  def describe(self) -> str:
    mean = self._sum / self.n_images
    variance = np.maximum(self._sum_of_squares / self.n_images - mean**2, 0)
    return (
      f'pixel values of {self.n_images} images: mean {format_channels(mean)}, '
      f'standard deviation {format_channels(np.sqrt(variance))}, '
      f'range {self._min} to {self._max}'
    )

  def _add(self, image: np.ndarray) -> None:
    values = image.astype(np.float64)
    self._sum += values.mean((0, 1))
    self._sum_of_squares += (values**2).mean((0, 1))
    low, high = int(image.min()), int(image.max())
    self._min, self._max = min(self._min, low), max(self._max, high)
    self.n_single_color += low == high
    self._hashes[hash(image.tobytes())] += 1


def _read_images(dataset: Dataset, indices: np.ndarray) -> Iterator[np.ndarray]:
  """Reads images in chunks: the whole sample may not fit into memory."""
  with ThreadPoolExecutor(_THREADS) as threads:
    for start in range(0, len(indices), 32):
      chunk = indices[start : start + 32].tolist()
      yield from threads.map(lambda i: dataset.examples[i][0], chunk)


def _describe_images(dataset: Dataset) -> str:
  n, shape = len(dataset.examples), dataset.examples[0][0].shape
  origin = f' ({dataset.origin})' if dataset.origin else ''
  size = f'{format_size(shape[:2])} x {shape[-1]}'
  return f'data: {dataset.name}: {n:,} images, read as {size}{origin}'


def _describe_labels(dataset: Dataset, counts: np.ndarray, n_sampled: int) -> str:
  if not dataset.n_classes:
    return 'labels: none'
  if dataset.has_vectors:
    return f'labels: vectors of {dataset.n_classes} numbers'
  sample = '' if dataset.counts else f' in a sample of {n_sampled} images'
  return f'labels{sample}: {format_counts(dataset.class_names, counts)}'


def _warnings(
  dataset: Dataset, counts: np.ndarray, statistics: _SampleStatistics
) -> Iterator[str]:
  """Properties of a dataset that often are mistakes."""
  n = statistics.n_images
  if statistics.n_single_color:
    yield f'{statistics.n_single_color} of {n} images have a single color'
  if statistics.n_duplicates:
    yield f'{statistics.n_duplicates} of {n} images are exact copies of other images'
  if dataset.counts and (n_empty := int((counts == 0).sum())):
    yield f'{n_empty} classes have no images'
  if len(counts) > 1 and counts.max() > 20 * max(np.median(counts), 1):
    name = dataset.class_names[int(np.argmax(counts))]
    share = counts.max() / counts.sum()
    yield f"class '{escape_unprintable(name)}' has {share:.0%} of all images"
  if sizes := source_sizes(dataset):
    size = dataset.examples[0][0].shape[:2]
    square = size[0] == size[1]
    pixels = f'{size[0]}' if square else format_size(size)
    if n_small := sum(smaller((h, w), size) for w, h in sizes):
      yield f'{n_small} of {len(sizes)} images are upsampled to {pixels} pixels'
    if n_oblong := sum(not same_shape((h, w), size) for w, h in sizes):
      shape = 'are not square' if square else f'do not have the shape of {pixels}'
      yield f'{n_oblong} of {len(sizes)} images {shape}: the center is used'


def format_channels(values: Iterable[float]) -> str:
  """One number for each channel: '121.7 114.5 98.9'."""
  return ' '.join(f'{value:.1f}' for value in values)


def format_counts(
  names: Sequence[str], counts: Int[np.ndarray, ' n_classes'], limit: int = 12
) -> str:
  """'cat 120, dog 80', largest classes first; beyond `limit` the middle is left out."""
  order = np.argsort(-np.asarray(counts), kind='stable')
  parts = [f'{escape_unprintable(names[i])} {int(counts[i]):,}' for i in order]
  if len(parts) > limit:
    middle = f'... {len(parts) - limit} more ...'
    parts = [*parts[: limit - 3], middle, *parts[-3:]]
  return ', '.join(parts)


def draw_overview(
  images: Sequence[UInt8[np.ndarray, 'h w c']],
  names: Sequence[str],
  counts: Int[np.ndarray, ' n_classes'],
) -> Image.Image:
  """Draws a grid of images with the label histogram below.

  Args:
    images: at least one, all of one size.
    names: of the classes; if there are none, no histogram is drawn.
    counts: number of images of each class.
  """
  columns = int(np.ceil(np.sqrt(len(images))))
  rows = -(-len(images) // columns)
  cell = _cell_size(images[0].shape[:2])
  width = max(columns * (cell[1] + _GAP) + _GAP, 400)
  top = rows * (cell[0] + _GAP) + _GAP
  largest_first = np.argsort(-np.asarray(counts), kind='stable')[:_MAX_BARS]
  height = top + _BAR_HEIGHT * (len(largest_first) + 1)
  page = Image.new('RGB', (width, height), 'white')
  _draw_grid(page, images, columns, cell)
  _draw_histogram(
    page,
    top,
    [str(names[i]) for i in largest_first],
    [int(counts[i]) for i in largest_first],
    n_hidden=len(names) - len(largest_first),
  )
  return page


def _cell_size(size: Size) -> Size:
  """Height and width at which images of a size are drawn; the longer one is limited."""
  longer = max(size)
  shown = min(max(longer, 48), 128)
  return size[0] * shown // longer, size[1] * shown // longer


def _draw_grid(
  page: Image.Image, images: Sequence[np.ndarray], columns: int, cell: Size
) -> None:
  """Pastes images into cells of a size; small ones get larger pixels."""
  upsample = smaller(images[0].shape[:2], cell)
  method = Image.Resampling.NEAREST if upsample else Image.Resampling.BOX
  for i, pixels in enumerate(images):
    image = to_pil(pixels).resize(cell[::-1], method)
    row, column = divmod(i, columns)
    corner = (column * (cell[1] + _GAP) + _GAP, row * (cell[0] + _GAP) + _GAP)
    page.paste(image, corner, image if image.mode == 'RGBA' else None)


def _draw_histogram(
  page: Image.Image,
  top: int,
  names: Sequence[str],
  counts: Sequence[int],
  n_hidden: int,
) -> None:
  """Draws a horizontal bar for each class, from `top` downward."""
  draw = ImageDraw.Draw(page)
  longest = page.width - _BAR_LEFT - 80  # leaves space for the number
  largest = max(max(counts, default=1), 1)
  for row, (name, count) in enumerate(zip(names, counts)):
    y = top + _BAR_HEIGHT * row + 4
    # The font of PIL has the characters of Latin-1.
    label = escape_unprintable(name).encode('latin-1', 'replace').decode('latin-1')
    draw.text((4, y), textwrap.shorten(label, 20, placeholder='...'), fill='black')
    end = _BAR_LEFT + int(longest * count / largest)
    draw.rectangle((_BAR_LEFT, y + 2, end, y + _BAR_HEIGHT - 3), fill='steelblue')
    draw.text((end + 6, y), f'{count:,}', fill='black')
  if n_hidden > 0:
    draw.text((4, top + _BAR_HEIGHT * len(names)), f'{n_hidden} more', 'black')


def to_pil(pixels: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """Converts an array of 1, 3 or 4 channels to a PIL image."""
  return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
