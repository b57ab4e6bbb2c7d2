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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import logging
from PIL import Image

from gan_jax import UserError
from gan_jax.data.pictures import (
  MODES,
  Refused,
  Source,
  crop,
  is_path,
  means,
  open_picture,
  open_source,
  some,
  upright,
)
from gan_jax.data.report import counted, doctor, source_sizes

__all__ = [
  'BUILT_IN',
  'MANIFEST',
  'Corrupt',
  'Dataset',
  'Records',
  'batches',
  'check_hosts',
  'check_labels',
  'doctor',
  'load',
  'open_tfds',
]

BUILT_IN = ('emoji', 'digits', 'synthetic')
MANIFEST = 'manifest.json'  # what makes a folder a prepared set; written last


class Corrupt(UserError):
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
    return dataclasses.replace(self, examples=_shrink(self.examples, factor))


def load(
  name: str,
  *,
  split: str = 'train',
  data_dir: str | None = None,
  res: int,
  channels: int,
  upscale: bool = False,
  skip_bad: bool = False,
) -> Dataset:
  """Opens a dataset whose images are read as uint8 [res, res, channels].

  Args:
    name: 'emoji', 'digits', 'synthetic'; a path (/a, ./a, ~/a or a.zip) of what
      gan_jax.prepare wrote, or of a folder or zip of pictures; or a
      tensorflow-datasets name such as 'cifar10', 'lsun/church' or 'my_set:1.0.0' that
      has been prepared.
    split: 'train'; for tensorflow-datasets and prepared sets any split expression,
      'train[:90%]'.
    data_dir: where tensorflow-datasets are prepared; default $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    res: side of the square images, in pixels.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA); no more than the data has.
    upscale: allow images smaller than res to be enlarged. Without it a set most of
      whose images are smaller is refused; the built-in ones never are.
    skip_bad: read the next image in the place of one that cannot be decoded, and say
      so, where otherwise Corrupt is raised.

  Raises:
    UserError: the dataset is unknown, unprepared, empty or has no usable images, too
      small ones or too few channels, a package is missing, or an argument is out of
      range.
  """
  if channels not in MODES:
    raise UserError(
      f'model.channels is {channels}: 1 (grey), 3 (RGB) and 4 (RGBA) are allowed.'
    )
  if not isinstance(res, int) or res < 1:
    raise UserError(f'res must be a positive number of pixels, not {res!r}.')
  if name in BUILT_IN:
    return _load_built_in(name, split, res, channels)
  folder = Path(name if is_path(name) else f'{_data_dir(data_dir)}/{name}')
  if (folder.expanduser() / MANIFEST).is_file():
    dataset = _load_prepared(folder.expanduser(), split, res, channels)
  elif is_path(name):
    dataset = _load_files(name, split, res, channels)
  else:
    dataset = _load_tfds(name, split, data_dir, res, channels)
  if not upscale:
    _check_sizes(dataset, res)
  if skip_bad:
    return dataclasses.replace(dataset, examples=_Skipping(dataset.examples, {}))
  return dataset


def _check_sizes(dataset: Dataset, res: int) -> None:
  """Refuses a set most of whose images would have to be enlarged."""
  sizes = source_sizes(dataset)
  small = sum(min(size) < res for size in sizes)
  if 2 * small > len(sizes):
    typical = int(np.median([min(size) for size in sizes]))
    raise UserError(
      f"model.res is {res}, but images of dataset '{dataset.name}' are mostly "
      f'smaller (half of them up to {typical} pixels): take a lower one, or '
      'data.upscale=True to enlarge them.'
    )


def _load_built_in(name, split, res, channels):
  if split != 'train':
    raise UserError(f"Dataset '{name}' has only the split 'train', not '{split}'.")
  if name == 'synthetic':
    return Dataset(
      name, _Synthetic(res, channels), tuple(map(str, range(10))), (1000,) * 10
    )
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
  fitted = np.stack([crop(image.convert(MODES[channels]), res) for image in images])
  counts = tuple(np.bincount(labels).tolist())
  return Dataset(name, _InMemory(fitted, np.asarray(labels)), tuple(classes), counts)


def _check_channels(name, there, asked):
  """Refuses a model with more channels than the data has."""
  if asked > there:
    raise UserError(
      f"model.channels is {asked}, but dataset '{name}' has {there}: set "
      f'model.channels={there} or less.'
    )


def check_labels(dataset: Dataset, n_classes: int) -> None:
  """Refuses a model with n_classes > 0 that `dataset` cannot label.

  Where the labels are not known without reading, some hundreds of them are read.
  """
  if n_classes == 0:
    return
  if dataset.n_classes == 0:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has no "
      'labels: set n_classes=0 or take a labeled dataset.'
    )
  if n_classes != dataset.n_classes:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has "
      f'{dataset.n_classes} classes: set n_classes={dataset.n_classes}, or 0 to '
      'ignore the labels.'
    )
  counts = counted(dataset)
  if sum(count > 0 for count in counts) == 1:
    (only,) = (dataset.class_names[i] for i, count in enumerate(counts) if count)
    raise UserError(
      f'The model has n_classes={n_classes}, but all images of dataset '
      f"'{dataset.name}' are of one class, '{only}': set n_classes=0, or mend the "
      'labels (a folder has one sub-folder for each class).'
    )


def check_hosts(hosts: Sequence[Sequence[int]]) -> None:
  """Refuses hosts that read the same images, or leave some to nobody.

  Args:
    hosts: for each host its `devices` as `batches` takes them.
  """
  readers: dict[int, int] = {}
  for host, devices in enumerate(hosts):
    for device in devices:
      if (other := readers.setdefault(device, host)) != host:
        raise UserError(
          f'Hosts {other} and {host} read for device {device}: it has one host.'
        )
  taken = [device for devices in hosts for device in devices]
  if missing := set(range(len(taken))) - set(taken):
    raise UserError(
      f'No host reads for device {min(missing)}: {len(taken)} devices are numbered '
      f'from 0 to {len(taken) - 1}.'
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

  Raises:
    UserError: `devices` repeats one or has one that is not there; and when reading,
      Corrupt.
  """
  k, b = shape
  n_rows = len(devices) * k
  if len(set(devices)) < len(devices) or not set(devices) <= set(range(n_devices)):
    raise UserError(
      f'This host would read for devices {devices}: different ones of 0 to '
      f'{n_devices - 1} are needed.'
    )

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

  def shrunk(self, factor):
    return _InMemory(means(self.images, factor), self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class _Shrunk:
  """Other examples at a lower resolution."""

  examples: Any
  factor: int

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    image, label = self.examples[i]
    return means(image[None], self.factor)[0], label


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


def _shrink(examples, factor):
  """Examples that know better than shrinking the full image do it themselves."""
  if hasattr(examples, 'shrunk'):
    return examples.shrunk(factor)
  return _Shrunk(examples, factor)


@dataclasses.dataclass(frozen=True, eq=False)
class _Skipping:
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
      except Corrupt as error:
        self.skipped[place] = str(error)
        logging.warning(
          '%s The next image is taken; skipped: %d.', error, len(self.skipped)
        )
    raise UserError(f'None of {n} images can be decoded; the last: {self.skipped[i]}')

  def shrunk(self, factor):
    return _Skipping(_shrink(self.examples, factor), self.skipped)

  def size(self, i):
    return self.examples.size(i)

  def label(self, i):
    return self.examples.label(i)


def _decoded(content, res, channels):
  """An encoded picture as uint8 [res, res, channels]; raises Refused."""
  image = open_picture(content)
  # Lets the JPEG decoder skip detail beyond twice the size that is wanted.
  image.draft(MODES[channels], (2 * res, 2 * res))
  return crop(upright(image, channels), res)


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
  """Pictures of a folder or a zip, decoded when read."""

  name: str
  source: Source
  res: int
  channels: int

  def __len__(self):
    return self.source.n

  def __getitem__(self, i):
    try:
      content, label = self.source.read(i)
      return _decoded(content, self.res, self.channels), label
    except Refused as error:
      raise Corrupt(f'{self.source.title(i)} of {self.name} {error}.') from error

  def size(self, i):
    return open_picture(self.source.read(i)[0]).size

  def label(self, i):
    return int(self.source.labels[i])


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
      image = _decoded(example['image'], self.res, self.channels)
    except Refused as error:
      raise Corrupt(f"Image {i} of dataset '{self.name}' {error}.") from error
    return image, int(example['label']) if self.labeled else 0

  def size(self, i):
    return open_picture(self.source[i]['image']).size

  def label(self, i):
    return int(self.source[i]['label']) if self.labeled else 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Prepared(_Tfds):
  """A level of a set that gan_jax.prepare wrote, as stored."""

  level: Callable[[int], Any]  # res -> source; raises KeyError

  def shrunk(self, factor):
    try:
      source = self.level(self.res // factor)
    except KeyError:
      return _Shrunk(self, factor)
    return dataclasses.replace(self, source=source, res=self.res // factor)


def _load_files(name, split, res, channels):
  """Opens a folder or zip of pictures."""
  if split != 'train':
    raise UserError(f"{name} has only the split 'train', not '{split}'.")
  source = open_source(name)
  if source.refused:
    logging.warning('%s: left out: %s.', name, some(source.refused))
  counts = np.bincount(source.labels, minlength=len(source.class_names))
  return Dataset(
    name,
    _Files(name, source, res, channels),
    source.class_names,
    tuple(counts.tolist()) if source.class_names else (),
    f'{source.kind}, {len(source.refused)} files refused, {source.others} other files',
  )


def _load_prepared(folder, split, res, channels):
  """Opens what gan_jax.prepare wrote, at its level `res` if there is one."""
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    levels = {int(side): level for side, level in manifest['levels'].items()}
    there, class_names = manifest['channels'], tuple(manifest['class_names'])
    histogram = manifest['histogram']
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f'{folder / MANIFEST} cannot be read ({error!r}).') from error
  tfds = _import('tensorflow_datasets', 'tensorflow-datasets', str(folder))
  _check_channels(str(folder), there, channels)

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
    return _open_split(tfds, builder, split, str(folder))

  # Grey of means is not the mean of greys: other channels are read from the full size.
  side = res if res in levels and channels == there else max(levels)
  about = str(folder), source_at(side), res, channels, bool(class_names)
  examples = _Prepared(*about, source_at) if side == res else _Tfds(*about)
  counts = tuple(histogram) if split == 'train' else ()
  origin = f'prepared from {manifest["source"]}, read at {side} x {side}'
  return Dataset(str(folder), examples, class_names, counts, origin)


def _open_split(tfds, builder, split, name):
  """Records of a split, images still encoded."""
  skip = {
    key: tfds.decode.SkipDecoding()
    for key, feature in builder.info.features.items()
    if isinstance(feature, tfds.features.Image)
  }
  try:
    return builder.as_data_source(split, decoders=skip)
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


def _data_dir(data_dir):
  return os.path.expanduser(
    data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  )


def _load_tfds(name, split, data_dir, res, channels):
  records = open_tfds(name, split=split, data_dir=data_dir)
  _check_channels(name, records.channels, channels)
  examples = _Tfds(name, records.source, res, channels, records.labeled)
  origin = f'tensorflow-datasets, {records.state}'
  return Dataset(name, examples, records.class_names, (), origin)


def open_tfds(name: str, *, split: str, data_dir: str | None) -> Records:
  """Opens a prepared tensorflow-datasets set; TensorFlow itself is never imported.

  Raises:
    UserError: it is unknown, not prepared as array_record, or has no such split or no
      uint8 feature 'image'.
  """
  tfds = _import('tensorflow_datasets', 'tensorflow-datasets', name)
  data_dir = _data_dir(data_dir)
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
  try:
    source = _open_split(tfds, builder, split, name)
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


def _import(module, package, dataset):
  """Imports what only `dataset` needs."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(
      f"Dataset '{dataset}' needs a package: pip install {package}"
    ) from error
