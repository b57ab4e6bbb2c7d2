"""Sets that need no files of the user: emoji, digits, and blobs for benchmarks."""

import importlib.resources
import io
import json

import numpy as np
from PIL import Image

from gan_jax import UserError
from gan_jax.data.dataset import Dataset, InMemory, check_channels, import_optional
from gan_jax.data.decode import MODES, crop

BUILT_IN = ('emoji', 'digits', 'synthetic')


def load_built_in(name, split, res, channels):
  if split != 'train':
    raise UserError(f"Dataset '{name}' has only the split 'train', not '{split}'.")
  if name == 'synthetic':
    return Dataset(
      name, _Synthetic(res, channels), tuple(map(str, range(10))), (1000,) * 10
    )
  check_channels(name, 1 if name == 'digits' else 3, channels)
  if name == 'digits':
    digits = import_optional('sklearn.datasets', 'scikit-learn', name).load_digits()
    images = [
      Image.fromarray(x) for x in np.round(digits.images * 255 / 16).astype(np.uint8)
    ]
    labels, classes = digits.target, map(str, range(10))
  else:
    folder = importlib.resources.files('gan_jax.data') / 'embedded'
    index = json.loads((folder / 'emoji64.json').read_text())
    sheet = Image.open(io.BytesIO((folder / 'emoji64.webp').read_bytes()))
    side, columns = index['tile'], index['columns']
    corners = [divmod(i, columns) for i in range(index['count'])]
    images = [
      sheet.crop((x * side, y * side, (x + 1) * side, (y + 1) * side))
      for y, x in corners
    ]
    labels, classes = index['labels'], index['classes']
  # Small enough to keep: fitted once here, so that reading is an array lookup.
  fitted = np.stack([crop(image.convert(MODES[channels]), res) for image in images])
  counts = tuple(np.bincount(labels).tolist())
  return Dataset(name, InMemory(fitted, np.asarray(labels)), tuple(classes), counts)


class _Synthetic:
  """10,000 blobs, coloured by class and placed by index, that cost nothing to read."""

  def __init__(self, res, channels):
    self.res, self.span = res, res // 2 + 1
    # One picture per class, half as large again; an example is a window into it.
    line = np.linspace(-3, 3, res + self.span - 1)
    blob = np.exp(-(line**2) - line[:, None] ** 2)[..., None]
    hues = 2 * np.pi * (np.arange(10)[:, None] / 10 + np.arange(channels) / 3)
    shades = 255 * blob * (0.5 + 0.5 * np.cos(hues))[:, None, None, :]
    self.pictures = shades.astype(np.uint8)

  def __len__(self):
    return 10_000

  def __getitem__(self, i):
    # The step is a prime, so that neighbours are far apart and all places occur.
    y, x = divmod(i * 7919 % self.span**2, self.span)
    return self.pictures[i % 10, y : y + self.res, x : x + self.res], int(i % 10)
