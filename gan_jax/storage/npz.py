"""Reads .npz files that may be corrupted, or something else."""

import zipfile
import zlib
from typing import BinaryIO

import numpy as np

# Raised by `read_npz`, or for missing arrays, if a file is corrupted.
NPZ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


def read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
  """The arrays of an .npz file. Raises: NPZ_ERRORS."""
  loaded = np.load(file, allow_pickle=False)
  if not isinstance(loaded, np.lib.npyio.NpzFile):
    raise ValueError('this is a single array')
  with loaded as z:
    arrays = {name: z[name] for name in z.files}
  for name, array in arrays.items():
    if not isinstance(array, np.ndarray):  # bytes of a file that is no .npy
      raise ValueError(f'{name} is no array')
  return arrays
