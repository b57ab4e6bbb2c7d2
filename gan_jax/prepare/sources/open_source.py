"""Opens SRC: images, a tensorflow-datasets set, or a file format of another tool."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.data.folder import ImageSource, is_path, open_folder_or_zip
from gan_jax.data.prepared import MANIFEST
from gan_jax.data.tfds_source import open_tfds
from gan_jax.prepare.sources.hdf5 import open_hdf5
from gan_jax.prepare.sources.idx import open_idx
from gan_jax.prepare.sources.parquet import open_parquet
from gan_jax.prepare.sources.recognition import HDF5, IDX, PARQUET, TFRECORD, find_files
from gan_jax.prepare.sources.tfrecords import open_tfrecords
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.urls import is_url

_OPENERS: dict[str, Callable[[list[Path], str], ImageSource]] = {
  HDF5: open_hdf5,
  IDX: open_idx,
  PARQUET: open_parquet,
  TFRECORD: open_tfrecords,
}


def open_source(name: str, split: str, data_dir: Path | str | None) -> ImageSource:
  """Opens the images of a file, a folder or a tensorflow-datasets set.

  An existing file or folder comes first, with or without './' before its name.

  Args:
    name: as the user gave it.
    split: of a tensorflow-datasets set, or of files that hold several splits.
    data_dir: folder or URL of the tensorflow-datasets sets; None for the default.

  Raises:
    UserError: it does not exist, has no images, or cannot be read.
  """
  if is_url(name):
    raise UserError(
      f'{name} is a URL, and SRC has to be on this machine: copy the images here first.'
    )
  if not is_path(name) and not os.path.exists(name):
    return _open_tfds(name, split, data_dir)
  try:
    path = Path(name).expanduser()
  except RuntimeError as error:
    raise UserError(f'{name}: there is no such user.') from error
  if (path / MANIFEST).is_file():
    raise UserError(
      f'{name} is a prepared set already: SRC has to be what it was prepared from.'
    )
  kind, files = find_files(path)
  return _OPENERS[kind](files, split) if kind else open_folder_or_zip(path, split)


def _open_tfds(name: str, split: str, data_dir: Path | str | None) -> ImageSource:
  folder, last = os.path.split(name.rstrip('/'))
  if os.path.splitext(last)[1] and ':' not in name or folder and os.path.isdir(folder):
    neighbors = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    raise UserError(
      f'{name}: there is no such file or folder{did_you_mean(last, neighbors)}.'
    )
  records = open_tfds(name, split=split, data_dir=str(data_dir) if data_dir else None)

  def read(i: int) -> tuple[bytes, int]:
    example = records.source[i]
    return example['image'], int(example['label']) if records.labeled else 0

  return ImageSource(
    kind='tensorflow-datasets',
    n_images=len(records.source),
    read=read,
    display_name=lambda i: f'{name}[{i}]',
    class_names=records.class_names,
    labels=np.zeros(0, np.int32),
    refused={},
    n_other_files=0,
    fingerprint=hashlib.sha256(records.description.encode()).hexdigest(),
  )
