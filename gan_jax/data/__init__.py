"""Datasets with random access, and one endless global order of images for all hosts."""

import hashlib
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN, load_built_in
from gan_jax.data.dataset import CorruptImageError, Dataset, ImageFiles
from gan_jax.data.decode import MODES
from gan_jax.data.folder import is_path, open_source, quote_some
from gan_jax.data.loader import iterate_batches
from gan_jax.data.summary import count_labels, source_sizes, spread_indices, summarize
from gan_jax.data.tfds_source import (
  MANIFEST,
  Records,
  data_root,
  load_prepared,
  load_tfds,
  open_tfds,
)

__all__ = [
  'BUILT_IN',
  'MANIFEST',
  'CorruptImageError',
  'Dataset',
  'Records',
  'iterate_batches',
  'check_hosts',
  'check_labels',
  'summarize',
  'load_dataset',
  'open_tfds',
]


def load_dataset(
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
    return load_built_in(name, split, res, channels)
  folder = Path(name if is_path(name) else f'{data_root(data_dir)}/{name}')
  if (folder.expanduser() / MANIFEST).is_file():
    dataset = load_prepared(folder.expanduser(), split, res, channels)
  elif is_path(name):
    dataset = _load_files(name, split, res, channels)
  else:
    dataset = load_tfds(name, split, data_dir, res, channels)
  if not upscale:
    _check_sizes(dataset, res)
  return dataset.skipping() if skip_bad else dataset


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


def _load_files(name, split, res, channels):
  """Opens a folder or zip of pictures."""
  if split != 'train':
    raise UserError(f"{name} has only the split 'train', not '{split}'.")
  source = open_source(name)
  if source.refused:
    logging.warning('%s: left out: %s.', name, quote_some(source.refused))
  counts = np.bincount(source.labels, minlength=len(source.class_names))
  return Dataset(
    name,
    ImageFiles(name, source, res, channels),
    source.class_names,
    tuple(counts.tolist()) if source.class_names else (),
    f'{source.kind}, {len(source.refused)} files refused, {source.others} other files',
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
  counts = count_labels(dataset)
  if sum(count > 0 for count in counts) == 1:
    (only,) = (dataset.class_names[i] for i, count in enumerate(counts) if count)
    raise UserError(
      f'The model has n_classes={n_classes}, but all images of dataset '
      f"'{dataset.name}' are of one class, '{only}': set n_classes=0, or mend the "
      'labels (a folder has one sub-folder for each class).'
    )


def check_hosts(dataset: Dataset) -> None:
  """Refuses processes of a job that read different data; all of them have to call it.

  Each reads its share of one order of `dataset`. Of another copy, with a file more or
  less, that would be another order: shares overlap, and images are left to nobody.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256(repr((dataset.class_names, dataset.counts)).encode())
  for i in spread_indices(len(dataset.examples), 16):
    image, label = dataset.examples[int(i)]
    digest.update(np.ascontiguousarray(image).tobytes() + str(int(label)).encode())
  mark = int.from_bytes(digest.digest()[:4])
  about = np.array([len(dataset.examples), mark], np.uint32)
  found = multihost_utils.process_allgather(about)
  for process, (n, mark) in enumerate(found.tolist()):
    if (n, mark) != tuple(found[0].tolist()):
      raise UserError(
        f"Processes 0 and {process} read different data under '{dataset.name}' "
        f'({found[0][0]:,} and {n:,} images): give every host the same copy.'
      )
