"""idx files of MNIST and sets like it: one of images, one of labels, gzipped or not.

Read here rather than with idx2numpy, which reads as much as a file declares, unchecked,
and has had no release since 2020. Format: http://yann.lecun.com/exdb/mnist.
"""

import gzip
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gan_jax import UserError
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.sources.arrays import make_array_source
from gan_jax.prepare.sources.recognition import is_idx

_TYPES = {8: '>u1', 9: '>i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}
_MAX_BYTES = 2**33  # of all images, which are held in memory
_MAX_RATIO = 1100  # gzip compresses no better


def open_idx(files: list[Path], split: str) -> ImageSource:
  """Opens the images of a split and their labels.

  Args:
    files: all idx files of a folder, or one of images.
    split: 'train', 'test', or another part of the names of the files.

  Raises:
    UserError: no or several files of images for the split, or a file is corrupted.
  """
  path = _choose_images(files, split)
  images = _read_idx(path)
  if images.dtype != np.uint8 or images.ndim not in (3, 4):
    raise UserError(
      f'{path} holds {images.dtype} values of the shape {images.shape}, but uint8 '
      'images [n, height, width] are needed.'
    )
  labels_path = _labels_of(path)
  labels = _read_idx(labels_path) if labels_path else None
  shape = (*images.shape[1:3], -1)

  def read_pixels(i: int) -> UInt8[np.ndarray, 'h w c']:
    return images[i].reshape(shape)

  used = [path, labels_path] if labels_path else [path]
  return make_array_source('idx', used, len(images), read_pixels, labels)


def _choose_images(files: list[Path], split: str) -> Path:
  """The file of images of a split; an unpacked file comes before its .gz."""
  candidates = {
    str(file).removesuffix('.gz'): file
    for file in sorted(files, key=lambda f: f.suffix != '.gz')
    if _header(file)[1] > 1
  }
  if len(candidates) > 1:
    words = {'test': ('test', 't10k'), 'train': ('train',)}.get(split, (split,))
    candidates = {
      stem: file
      for stem, file in candidates.items()
      if any(word in re.split(r'[^a-z0-9]+', file.name.lower()) for word in words)
    }
  if len(candidates) == 1:
    return candidates.popitem()[1]
  names = ', '.join(file.name for file in files[:8])
  raise UserError(
    f'{files[0].parent} has {len(candidates) or "no"} idx files of images for the '
    f'split {split!r} (files: {names}): choose another --split, or give a file as SRC.'
  )


def _labels_of(images: Path) -> Path | None:
  """The file of labels beside a file of images, or None."""
  name = images.name.removesuffix('.gz').replace('images', 'labels')
  name = re.sub(r'idx\d', 'idx1', name)
  for candidate in (name, f'{name}.gz'):
    path = images.with_name(candidate)
    if path.is_file() and path != images:
      return path
  return None


def _header(path: Path) -> tuple[str, int]:
  """(type of the values, number of dimensions) of a file."""
  with _open(path) as file:
    head = file.read(4)
  return _TYPES[head[2]], head[3]


def _open(path: Path) -> gzip.GzipFile:
  with path.open('rb') as file:
    packed = file.read(2) == b'\x1f\x8b'
  return gzip.open(path) if packed else path.open('rb')  # type: ignore[return-value]


def _read_idx(path: Path) -> np.ndarray:
  """The array of an idx file.

  Raises:
    UserError: it is truncated, declares too much, or is not an idx file.
  """
  try:
    with _open(path) as file:
      head = file.read(4)
      if not is_idx(head):
        raise ValueError(f'its first bytes are {head.hex(" ") or "missing"}')
      dtype = np.dtype(_TYPES[head[2]])
      shape = np.frombuffer(file.read(4 * head[3]), '>u4').tolist()
      n_bytes = math.prod(shape) * dtype.itemsize
      available = os.path.getsize(path) * _MAX_RATIO
      if len(shape) != head[3] or n_bytes > min(_MAX_BYTES, available):
        raise ValueError(f'it declares the shape {shape}')
      content = file.read(n_bytes + 1)
  except (OSError, EOFError, ValueError, zlib.error) as error:
    raise UserError(f'{path} cannot be read as an idx file ({error}).') from error
  if len(content) != n_bytes:
    found = 'more' if len(content) > n_bytes else f'{len(content):,}'
    raise UserError(
      f'{path} is corrupted: its header declares {n_bytes:,} bytes, and it has {found}.'
    )
  return np.frombuffer(content, dtype).reshape(shape)
