"""Opens a dataset by the name that a config gives it."""

from pathlib import Path

import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN, load_built_in
from gan_jax.data.dataset import Dataset, ImageFiles
from gan_jax.data.decode import PIL_MODES
from gan_jax.data.folder import is_path, list_refused, open_folder_or_zip
from gan_jax.data.summary import source_sizes
from gan_jax.data.tfds_source import (
  MANIFEST,
  is_tfds_name,
  load_prepared,
  load_tfds,
  tfds_data_dir,
)


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
  """Opens a dataset of images uint8 [res, res, channels].

  Args:
    name: one of
      - 'emoji', 'digits' or 'synthetic';
      - a path (/a, ./a, ~/a or a.zip) of a set prepared by gan_jax.prepare, or of a
        folder or zip of images; a folder that exists needs no './', unless it has
        the name of one of the other sets;
      - the name of a prepared tensorflow-datasets set: 'cifar10', 'lsun/church',
        'my_set:1.0.0'.
    split: 'train'; of a folder or zip the name of one of its splits, if it has some;
      prepared and tensorflow-datasets sets accept any split expression, such as
      'train[:90%]'.
    data_dir: folder of the tensorflow-datasets sets; default: $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    res: side of the square images, in pixels.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA), at most as many as the images have.
    upscale: upsample images that are smaller than res. Otherwise a dataset most of
      whose images are smaller is an error; built-in datasets are always resized.
    skip_bad: read the next image in place of one that cannot be decoded, and log a
      warning. Otherwise reading it raises CorruptImageError.

  Raises:
    UserError: the dataset is unknown, not prepared, or empty; its images are unusable
      or too small, or have too few channels; a package is missing; an argument is out
      of range.
  """
  if channels not in PIL_MODES:
    raise UserError(
      f'model.channels is {channels}: 1 (grey), 3 (RGB) and 4 (RGBA) are allowed.'
    )
  if not isinstance(res, int) or res < 1:
    raise UserError(f'res must be a positive number of pixels, not {res!r}.')
  if name in BUILT_IN:
    return load_built_in(name, split, res, channels)
  if Path(name).is_dir() and not is_path(name) and not is_tfds_name(name, data_dir):
    name = f'./{name}'
  path = name if is_path(name) else f'{tfds_data_dir(data_dir)}/{name}'
  folder = Path(path).expanduser()
  if (folder / MANIFEST).is_file():
    dataset = load_prepared(folder, split, res, channels)
  elif is_path(name):
    dataset = _load_folder_or_zip(name, split, res, channels)
  else:
    dataset = load_tfds(name, split, data_dir, res, channels)
  if not upscale:
    _check_sizes(dataset, res)
  return dataset.skip_corrupt() if skip_bad else dataset


def _check_sizes(dataset: Dataset, res: int) -> None:
  """Raises a UserError if most images are smaller than res."""
  shorter_sides = [min(size) for size in source_sizes(dataset)]
  n_small = sum(side < res for side in shorter_sides)
  if 2 * n_small > len(shorter_sides):
    raise UserError(
      f"model.res is {res}, but most images of dataset '{dataset.name}' are smaller "
      f'(median of the shorter side: {int(np.median(shorter_sides))} pixels): set a '
      'lower model.res, or data.upscale=True to upsample them.'
    )


def _load_folder_or_zip(name: str, split: str, res: int, channels: int) -> Dataset:
  source = open_folder_or_zip(name, split)
  if source.ignored:
    logging.warning('%s: not image data: %s.', name, list_refused(source.ignored))
  if source.refused:
    logging.warning('%s: files left out: %s.', name, list_refused(source.refused))
  counts: tuple[int, ...] = ()
  if source.class_names:
    counts = tuple(np.bincount(source.labels, minlength=len(source.class_names)))
  return Dataset(
    name,
    ImageFiles(name, source, res, channels),
    source.class_names,
    tuple(int(count) for count in counts),
    f'{source.kind}, {len(source.refused)} image files left out, '
    f'{source.n_other_files} other files; labels from {source.labels_from}',
  )
