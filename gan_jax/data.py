"""Datasets with random access, and one endless global order of images for all hosts."""

import dataclasses
import difflib
import functools
import importlib
import importlib.resources
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from PIL import Image

from gan_jax import UserError

BUILT_IN = ('emoji', 'digits', 'synthetic')
_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}  # PIL's, by number of channels


@dataclasses.dataclass(frozen=True)
class Dataset:
  """`examples[i]` is (image uint8 [res, res, channels], label in 0..n_classes-1)."""

  name: str
  examples: Any
  class_names: tuple[str, ...] = ()  # empty: unlabeled, and every label is 0

  @property
  def n_classes(self) -> int:
    return len(self.class_names)

  def shrunk(self, factor: int) -> 'Dataset':
    """The same examples, each pixel the mean of factor x factor, rounded once."""
    if factor == 1:
      return self
    if isinstance(self.examples, _InMemory):
      images = _means(self.examples.images, factor)
      examples: Any = _InMemory(images, self.examples.labels)
    else:
      examples = _Shrunk(self.examples, factor)
    return dataclasses.replace(self, examples=examples)


def load(
  name: str,
  *,
  split: str = 'train',
  data_dir: str | None = None,
  res: int,
  channels: int,
) -> Dataset:
  """Opens a dataset whose images are read as uint8 [res, res, channels].

  Args:
    name: 'emoji', 'digits', 'synthetic', or a tensorflow-datasets name such as
      'cifar10', 'lsun/church' or 'my_set:1.0.0' that has been prepared.
    split: 'train'; for tensorflow-datasets any split expression, 'train[:90%]'.
    data_dir: where tensorflow-datasets are prepared; default $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    res: side of the square images, in pixels.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); no more than the data has.

  Raises:
    UserError: the dataset is unknown, unprepared, empty or has no usable images or
      too few channels, a package is missing, or an argument is out of range.
  """
  if channels not in _MODES:
    raise UserError(
      f'model.channels is {channels}: 1 (grey), 3 (RGB) and 4 (RGBA) are allowed.'
    )
  if not isinstance(res, int) or res < 1:
    raise UserError(f'res must be a positive number of pixels, not {res!r}.')
  if name not in BUILT_IN:
    return _load_tfds(name, split, data_dir, res, channels)
  if split != 'train':
    raise UserError(f"Dataset '{name}' has only the split 'train', not '{split}'.")
  if name == 'synthetic':
    return Dataset(name, _Synthetic(res, channels), tuple(map(str, range(10))))
  _check_channels(name, 1 if name == 'digits' else 3, channels)
  if name == 'digits':
    digits = _import('sklearn.datasets', 'scikit-learn', name).load_digits()
    images = [
      Image.fromarray(x) for x in np.round(digits.images * 255 / 16).astype(np.uint8)
    ]
    labels, classes = digits.target, map(str, range(10))
  else:
    folder = importlib.resources.files('gan_jax') / 'embedded'
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
  fitted = np.stack([_fit(image, res, channels) for image in images])
  return Dataset(name, _InMemory(fitted, np.asarray(labels)), tuple(classes))


def _check_channels(name, there, asked):
  """Refuses a model with more channels than the data has."""
  if asked > there:
    raise UserError(
      f"model.channels is {asked}, but dataset '{name}' has {there}: set "
      f'model.channels={there} or less.'
    )


def check_labels(dataset: Dataset, n_classes: int) -> None:
  """Refuses a model with n_classes > 0 that `dataset` cannot label."""
  if n_classes > 0 and dataset.n_classes == 0:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has no "
      'labels: set n_classes=0 or take a labeled dataset.'
    )
  if n_classes > 0 and n_classes != dataset.n_classes:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has "
      f'{dataset.n_classes} classes: set n_classes={dataset.n_classes}, or 0 to '
      'ignore the labels.'
    )


def batches(
  dataset: Dataset,
  *,
  shape: tuple[int, int],
  devices: tuple[int, ...],
  n_devices: int,
  seed: int,
  start: int,
  flip: bool,
  threads: int = 8,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches for one host, cut from one global order of images.

  Which image stands at a position of the global order, and whether it is mirrored, is
  a function of (dataset, seed, position) alone. Every epoch is a new permutation. With
  shape = (k, b) a step consumes the next k * n_devices * b positions, and micro-batch
  m, device j, image i takes slot (m * n_devices + j) * b + i of them.

  `start`, the number of images already seen by all hosts together, is the whole state
  of the iterator: a run resumes from it, exactly, on any devices and with any shape.

  Args:
    shape: (k micro-batches per step, b images per device and micro-batch).
    devices: this host's positions, in 0..n_devices-1, in the device mesh.
    n_devices: devices of all hosts together.
    seed: 0..2**64-1.
    start: position of slot 0 of the first batch; any integer >= 0.
    flip: mirror each image left-right with probability 1/2.
    threads: readers; a thread fills one device's micro-batch at a time.

  Yields:
    'images' uint8 [len(devices), k, b, res, res, channels] and
    'labels' int32 [len(devices), k, b].
  """
  k, b = shape
  n_rows = len(devices) * k

  # Grain's own shuffle and random_map took 22 us an image, all under the interpreter's
  # lock. One word per image and epoch does both: sorting by the words shuffles, their
  # lowest bits mirror. NumPy promises to keep the raw stream of Philox as it is. The
  # cost is 9 bytes an image for each epoch in hand, and 0.1 us to sort it.
  @functools.lru_cache(maxsize=4)
  def epoch(number):
    key = np.array([seed, number], np.uint64)
    words = np.random.Philox(key=key).random_raw(len(dataset.examples))
    return np.argsort(words), words & 1 == 1

  def read(row):
    step, row = divmod(row, n_rows)
    device, micro = divmod(row, k)
    first = start + ((step * k + micro) * n_devices + devices[device]) * b
    images, labels = [], []
    for position in range(first, first + b):
      number, place = divmod(position, len(dataset.examples))
      order, mirrored = epoch(number)
      image, label = dataset.examples[int(order[place])]
      images.append(image[:, ::-1] if flip and mirrored[place] else image)
      labels.append(label)
    return {'images': np.stack(images), 'labels': np.array(labels, np.int32)}

  def assemble(rows):
    stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return {key: x.reshape(len(devices), k, *x.shape[1:]) for key, x in stacked.items()}

  # The next step is read while this one trains; deeper buffers only cost memory.
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(threads, 2 * n_rows)
  )
  rows = grain.MapDataset.range(sys.maxsize).map(read).to_iter_dataset(options)
  return iter(rows.batch(n_rows, batch_fn=assemble))


@dataclasses.dataclass(frozen=True, eq=False)
class _InMemory:
  """Images uint8 [n, res, res, channels] and labels int [n], held as arrays."""

  images: np.ndarray
  labels: np.ndarray

  def __len__(self):
    return len(self.images)

  def __getitem__(self, i):
    return self.images[i], int(self.labels[i])


@dataclasses.dataclass(frozen=True, eq=False)
class _Shrunk:
  """Other examples at a lower resolution."""

  examples: Any
  factor: int

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    image, label = self.examples[i]
    return _means(image[None], self.factor)[0], label


def _means(images, factor):
  """uint8 [n, h, w, c] -> uint8 [n, h / factor, w / factor, c]."""
  n, h, w, c = images.shape
  boxes = images.reshape(n, h // factor, factor, w // factor, factor, c)
  return np.rint(boxes.mean((2, 4), dtype=np.float64)).astype(np.uint8)


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Tfds:
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
      image = Image.open(io.BytesIO(example['image']))
      # Lets the JPEG decoder skip detail beyond twice the size that is wanted.
      image.draft(_MODES[self.channels], (2 * self.res, 2 * self.res))
      image = _fit(image, self.res, self.channels)
    except (OSError, Image.DecompressionBombError) as error:
      raise UserError(
        f"Image {i} of dataset '{self.name}' cannot be decoded ({error})."
      ) from error
    return image, int(example['label']) if self.labeled else 0


def _fit(image, res, channels):
  """Centre square of a PIL image as uint8 [res, res, channels]."""
  image = image.convert(_MODES[channels])
  side = min(image.size)
  left, top = (image.width - side) // 2, (image.height - side) // 2
  # A whole factor averages whole pixels, exactly and without ringing; any other factor
  # needs Lanczos to stay sharp without aliasing; bicubic enlarges smoothly.
  if side % res == 0:
    method = Image.Resampling.BOX
  else:
    method = Image.Resampling.LANCZOS if side > res else Image.Resampling.BICUBIC
  image = image.resize((res, res), method, box=(left, top, left + side, top + side))
  return np.asarray(image).reshape(res, res, channels)


def _load_tfds(name, split, data_dir, res, channels):
  """Opens a prepared tensorflow-datasets set; TensorFlow itself is never imported."""
  tfds = _import('tensorflow_datasets', 'tensorflow-datasets', name)
  data_dir = os.path.expanduser(
    data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  )
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
  _check_channels(name, image.shape[-1] or 3, channels)
  label = features.get('label')
  labeled = isinstance(label, tfds.features.ClassLabel)
  skip = {
    key: tfds.decode.SkipDecoding()
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  }
  try:
    source = builder.as_data_source(split, decoders=skip)
  except NotImplementedError as error:
    raise UserError(
      f"Dataset '{name}' is prepared under {data_dir} as "
      f'{builder.info.file_format.value}, but array_record is needed; delete it '
      f'there and prepare it with: {prepare}'
    ) from error
  except ValueError as error:
    raise UserError(
      f"Dataset '{name}' has no images in split '{split}'; its splits are "
      f'{", ".join(builder.info.splits)}, or parts such as train[:90%].'
    ) from error
  examples = _Tfds(name, source, res, channels, labeled)
  names = tuple(getattr(label, 'names', ())) if labeled else ()
  return Dataset(name, examples, names)


def _import(module, package, dataset):
  """Imports what only `dataset` needs."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(
      f"Dataset '{dataset}' needs a package: pip install {package}"
    ) from error
