"""An image source whose images are arrays: each is read as an uncompressed PNG."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from gan_jax import UserError
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.folder import ImageSource
from gan_jax.data.names import escape_unprintable
from gan_jax.data.raw_png import encode_raw_png

MAX_IMAGES = 10**8  # more are a mistake or an attack
MAX_CLASSES = 100_000


def make_array_source(
  kind: str,
  files: Sequence[Path],
  n_images: int,
  read_pixels: Callable[[int], UInt8[np.ndarray, 'h w c']],
  labels: Int[np.ndarray, ' n_images'] | None,
) -> ImageSource:
  """The source of the images `read_pixels(0)`, ..., numbered in messages.

  Args:
    kind: of the files, for messages.
    files: all files that are read, that of the labels last; they enter the fingerprint.
    n_images: number of images.
    read_pixels: index -> uint8 [h, w, c], c 1, 3 or 4; may raise UnusableImageError.
    labels: class numbers, from 0 on; None without labels. The classes are named by
      their numbers.

  Raises:
    UserError: no images, too many, or labels out of range.
  """
  name = escape_unprintable(files[0].name)
  check_count(name, n_images)
  class_names: tuple[str, ...] = ()
  if labels is not None:
    check_labels(name, labels, n_images)
    class_names = tuple(map(str, range(int(labels.max()) + 1)))
  numbers = np.zeros(n_images, np.int32) if labels is None else labels.astype(np.int32)

  def read(i: int) -> tuple[bytes, int]:
    pixels = read_pixels(i)
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not pixels.size:
      raise UnusableImageError(f'has the shape {pixels.shape}')
    return encode_raw_png(np.ascontiguousarray(pixels)), int(numbers[i])

  return ImageSource(
    kind=kind,
    n_images=n_images,
    read=read,
    display_name=lambda i: f'{name}[{i}]',
    class_names=class_names,
    labels=numbers,
    refused={},
    n_other_files=0,
    fingerprint=fingerprint(files, numbers),
    labels_from=escape_unprintable(files[-1].name),
  )


def check_count(name: str, n_images: int) -> None:
  """Raises a UserError unless a file has a plausible number of images."""
  if not 0 < n_images <= MAX_IMAGES:
    raise UserError(
      f'{name} has {n_images:,} images: 1 to {MAX_IMAGES:,} can be prepared.'
    )


def check_labels(name: str, labels: np.ndarray, n_images: int) -> None:
  """Raises a UserError unless there is a class number for each image."""
  if labels.shape != (n_images,) or labels.dtype.kind not in 'iu':
    raise UserError(
      f'{name} has {n_images:,} images, but labels of the shape {labels.shape} and '
      f'type {labels.dtype}: one integer for each image is needed.'
    )
  if labels.min() < 0 or labels.max() >= MAX_CLASSES:
    raise UserError(
      f'{name} has labels from {labels.min()} to {labels.max()}: 0 to '
      f'{MAX_CLASSES - 1} are allowed.'
    )


def fingerprint(files: Sequence[Path], labels: np.ndarray) -> str:
  """Digest that changes with the names, sizes, times and labels of the files."""
  digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes())
  for file in files:
    status = file.stat()
    line = f'{escape_unprintable(file.name)}\0{status.st_size}\0{status.st_mtime_ns}\n'
    digest.update(line.encode())
  return digest.hexdigest()
