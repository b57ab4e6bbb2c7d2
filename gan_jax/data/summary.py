"""What a data set looks like, before anything trains on it: figures and a sheet."""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from gan_jax import UserError
from gan_jax.data.decode import UnreadableImage
from gan_jax.data.folder import printable

if TYPE_CHECKING:
  from gan_jax.data.dataset import Dataset

_LOOKS = 512  # images looked at where looking at all would take too long
_SHOWN = 64


def spread_indices(n: int, most: int = _LOOKS) -> np.ndarray:
  """At most `most` indices of 0..n-1, evenly spread."""
  return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def source_sizes(dataset: Dataset) -> list[tuple[int, int]]:
  """(width, height) before cropping of images across a set, where they are known."""
  size = getattr(dataset.examples, 'size', None)
  if size is None:
    return []

  def one(i):
    try:
      return size(int(i))
    except UnreadableImage:  # whoever reads it will say so
      return None

  with ThreadPoolExecutor(8) as threads:
    return [
      found
      for found in threads.map(one, spread_indices(len(dataset.examples)))
      if found
    ]


def count_labels(dataset: Dataset) -> np.ndarray:
  """Images of each class, int64 [n_classes]: of all, or of some hundreds.

  Raises:
    UserError: a label is not in 0..n_classes-1.
  """
  if dataset.counts:
    return np.asarray(dataset.counts)
  examples = dataset.examples
  label = getattr(examples, 'label', lambda i: examples[i][1])
  indices = spread_indices(len(examples))
  with ThreadPoolExecutor(8) as threads:
    labels = list(threads.map(lambda i: label(int(i)), indices))
  for i, found in zip(indices, labels):
    if not 0 <= found < dataset.n_classes:
      raise UserError(
        f"Image {i} of dataset '{dataset.name}' has the label {found}, but its labels "
        f'are 0 to {dataset.n_classes - 1}: take another split, or prepare it again.'
      )
  return np.bincount(labels, minlength=dataset.n_classes)


def summarize(dataset: Dataset, folder: str | Path) -> str:
  """Looks at some hundreds of images, and says what there is and what is odd.

  Writes folder/data.png, a sheet of images across the set with its label histogram.

  Raises:
    UserError: a label out of range, or an image that cannot be decoded.
  """
  indices = spread_indices(len(dataset.examples))
  first = dataset.examples[int(indices[0])][0]
  shown = set(spread_indices(len(indices), _SHOWN).tolist())
  total, squares = np.zeros(first.shape[-1]), np.zeros(first.shape[-1])
  lowest, highest, flat = 255, 0, 0
  seen: collections.Counter[int] = collections.Counter()
  pictures = []
  # A few at a time: of large images some hundreds would not be small.
  with ThreadPoolExecutor(8) as threads:
    for start in range(0, len(indices), 32):
      part = indices[start : start + 32]
      for place, (image, _) in enumerate(
        threads.map(lambda i: dataset.examples[int(i)], part), start
      ):
        values = image.astype(np.float64)
        total += values.mean((0, 1))
        squares += (values**2).mean((0, 1))
        lowest, highest = min(lowest, image.min()), max(highest, image.max())
        flat += bool(image.min() == image.max())
        seen[hash(image.tobytes())] += 1
        if place in shown:
          pictures.append(image)
  mean = total / len(indices)
  deviation = np.sqrt(np.maximum(squares / len(indices) - mean**2, 0))
  n, sides = len(dataset.examples), ' x '.join(map(str, first.shape))
  lines = [f'data: {dataset.name}: {n:,} images, read as {sides}']
  if dataset.origin:
    lines[0] += f' ({dataset.origin})'
  counts = count_labels(dataset) if dataset.n_classes else np.array([], np.int64)
  if dataset.n_classes:
    whole = '' if dataset.counts else f', in {len(indices)} images across the set'
    lines.append(f'labels{whole}: {histogram_line(dataset.class_names, counts)}')
  else:
    lines.append('labels: none')
  lines.append(
    f'pixels of {len(indices)} images: mean {figures(mean)}, deviation '
    f'{figures(deviation)}, from {lowest} to {highest}'
  )
  lines += [f'note: {note}' for note in _odd(dataset, counts, flat, seen)]
  path = Path(folder) / 'data.png'
  path.parent.mkdir(parents=True, exist_ok=True)
  page = contact_sheet(pictures, dataset.class_names, counts)
  page.save(path)
  return '\n'.join([*lines, f'sheet: {path}'])


def _odd(dataset, counts, flat, seen):
  """What somebody should know before spending a week on this set."""
  if flat:
    yield f'{flat} images are of a single colour'
  if again := sum(count - 1 for count in seen.values()):
    yield f'{again} images are exact copies of others'
  if len(dataset.counts) and (empty := sum(c == 0 for c in counts)):
    yield f'{empty} classes have no images'
  if len(counts) > 1 and counts.max() > 20 * max(np.median(counts), 1):
    name = dataset.class_names[int(np.argmax(counts))]
    share = counts.max() / counts.sum()
    yield f"class '{printable(name)}' has {share:.0%} of all images"
  sizes = source_sizes(dataset)
  if sizes:
    res = dataset.examples[0][0].shape[0]
    small = sum(min(size) < res for size in sizes)
    if small:
      yield f'{small} of {len(sizes)} images are enlarged to {res} pixels'
    if oblong := sum(w != h for w, h in sizes):
      yield f'{oblong} of {len(sizes)} images are not square: their middle is read'


def figures(values: Iterable[float]) -> str:
  """'121.7 114.5 98.9'."""
  return ' '.join(f'{value:.1f}' for value in values)


def histogram_line(names: Sequence[str], counts: np.ndarray, most: int = 12) -> str:
  """'cat 120, dog 80', the largest classes first; of many, only some."""
  order = np.argsort(-np.asarray(counts), kind='stable')
  parts = [f'{printable(names[i])} {int(counts[i]):,}' for i in order]
  if len(parts) > most:
    middle = f'... {len(parts) - most} more ...'
    parts = [*parts[: most - 3], middle, *parts[-3:]]
  return ', '.join(parts)


def contact_sheet(
  images: Sequence[np.ndarray], names: Sequence[str], counts: np.ndarray
) -> Image.Image:
  """A page of pictures with the label histogram below.

  Args:
    images: uint8 [h, w, c] each, all of one size.
    names: of the classes; none, no histogram.
    counts: images of each class.
  """
  columns = max(int(np.ceil(np.sqrt(len(images)))), 1)
  side = images[0].shape[0]
  cell = min(max(side, 48), 128)  # small ones are shown enlarged, pixel by pixel
  rows = -(-len(images) // columns)
  width = max(columns * (cell + 2) + 2, 400)
  top, bar = rows * (cell + 2) + 2, 12
  # The largest classes; a thousand bars tell nothing more.
  order = np.argsort(-np.asarray(counts), kind='stable')[:40]
  page = Image.new('RGB', (width, top + bar * (len(order) + 1)), 'white')
  for i, image in enumerate(images):
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    method = Image.Resampling.NEAREST if side < cell else Image.Resampling.BOX
    picture = picture.resize((cell, cell), method)
    corner = (i % columns * (cell + 2) + 2, i // columns * (cell + 2) + 2)
    page.paste(picture, corner, picture if picture.mode == 'RGBA' else None)
  draw = ImageDraw.Draw(page)
  largest = max(int(np.max(counts, initial=1)), 1)
  for row, i in enumerate(order):
    y = top + bar * row + 4
    name = printable(str(names[i])).encode('latin-1', 'replace').decode('latin-1')
    draw.text((4, y), textwrap.shorten(name, 20, placeholder='...'), fill='black')
    long = int((width - 210) * int(counts[i]) / largest)
    draw.rectangle((130, y + 2, 130 + long, y + bar - 3), fill='steelblue')
    draw.text((136 + long, y), f'{int(counts[i]):,}', fill='black')
  if len(names) > len(order):
    draw.text((4, top + bar * len(order)), f'{len(names) - len(order)} more', 'black')
  return page
