"""HDF5 files of BigGAN-PyTorch (make_hdf5.py): imgs uint8 [n, 3, h, w], and labels."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gan_jax import UserError
from gan_jax.data.dataset import import_optional
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.sources.arrays import check_count, make_array_source

_CACHED_CHUNKS = 8  # a chunk holds hundreds of images, and is read as one
_MAX_CACHE = 2**31  # bytes


def open_hdf5(files: list[Path], split: str) -> ImageSource:
  """Opens one HDF5 file; its images have no splits.

  Raises:
    UserError: several files, h5py is missing, or the file is not one of BigGAN-PyTorch.
  """
  if split != 'train':
    raise UserError(f"{files[0]} has only the split 'train', not '{split}'.")
  if len(files) > 1:
    names = ', '.join(file.name for file in files[:5])
    raise UserError(
      f'{files[0].parent} has {len(files)} HDF5 files, {names}: give one as SRC.'
    )
  (path,) = files
  h5py = import_optional('h5py', 'h5py', str(path))
  try:
    with h5py.File(path) as file:
      chunks = _dataset(h5py, file, 'imgs', path).chunks
    chunk_bytes = int(np.prod(chunks, dtype=np.float64)) if chunks else 0
    cache = min(max(_CACHED_CHUNKS * chunk_bytes, 2**20), _MAX_CACHE)
    file = h5py.File(path, rdcc_nbytes=cache)
    images = _dataset(h5py, file, 'imgs', path)
    _check_images(images, path)
    labels = None
    if 'labels' in file:
      stored = _dataset(h5py, file, 'labels', path)
      if stored.shape != images.shape[:1]:
        raise UserError(
          f'{path} has {len(images):,} images, but labels of the shape {stored.shape}.'
        )
      labels = stored[:]
  except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f'{path} cannot be read as HDF5 ({error}).') from error

  def read_pixels(i: int) -> UInt8[np.ndarray, 'h w c']:
    try:
      return np.moveaxis(images[i], 0, -1)
    except (OSError, RuntimeError, ValueError) as error:
      raise UnusableImageError(f'cannot be read ({error})') from error

  return make_array_source('HDF5', [path], len(images), read_pixels, labels)


def _dataset(h5py: Any, file: Any, name: str, path: Path) -> Any:
  """A dataset that the file itself holds.

  Raises:
    UserError: there is none of that name, or it is a link to another file.
  """
  link = file.get(name, getlink=True) if name in file else None
  dataset = file[name] if isinstance(link, h5py.HardLink) else None
  if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
    has = ', '.join(sorted(file)) or 'nothing'
    raise UserError(
      f"{path} has no dataset '{name}' of its own (it has {has}): an HDF5 file of "
      "BigGAN-PyTorch has 'imgs' [n, 3, height, width] and 'labels'."
    )
  return dataset


def _check_images(images: Any, path: Path) -> None:
  if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or images.dtype != np.uint8:
    raise UserError(
      f"{path}: 'imgs' has the shape {images.shape} and type {images.dtype}, but uint8 "
      '[n, 3, height, width] is needed.'
    )
  check_count(path.name, len(images))
  plain = images.compression is None
  if plain and images.id.get_storage_size() < images.nbytes:
    raise UserError(
      f"{path} is incomplete: 'imgs' declares {images.nbytes:,} bytes, and "
      f'{images.id.get_storage_size():,} are stored.'
    )
