"""Label vectors, or weights over classes, of images that are to be sampled."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gan_jax import UserError

FILES = ('.npy', '.csv')


def read_label_vectors(text: str, n_classes: int) -> Float[np.ndarray, 'm n_classes']:
  """The value of --labels: a file .npy or .csv, or rows such as '0.5,0.2;1,0'.

  Args:
    n_classes: length of each vector.

  Raises:
    UserError: the file cannot be read, or something is no finite number, or the rows
      have another length.
  """
  try:
    if text.lower().endswith(FILES):
      vectors = _read_file(Path(os.path.expanduser(text)))
    else:
      vectors = np.array(
        [[float(x) for x in row.split(',')] for row in text.split(';')], np.float32
      )
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else ''
    raise UserError(
      f'--labels={text}: {reason or "that is no table of numbers"}; give a file .npy '
      "or .csv with one row per vector, or rows such as '0.5,0.2;1,0'."
    ) from error
  if vectors.ndim != 2 or vectors.shape[1] != n_classes:
    shape = ' x '.join(map(str, vectors.shape))
    raise UserError(
      f'--labels={text}: the numbers are {shape}, and this model takes rows of '
      f'{n_classes}.'
    )
  if not len(vectors) or not np.isfinite(vectors).all():
    raise UserError(f'--labels={text}: at least one row of finite numbers is needed.')
  return vectors


def _read_file(file: Path) -> Float[np.ndarray, 'm n']:
  """Raises OSError or ValueError."""
  if file.suffix.lower() == '.npy':
    array = np.load(file, allow_pickle=False)
    if not np.issubdtype(array.dtype, np.number):
      raise ValueError(array.dtype)
    return array.astype(np.float32)
  return np.loadtxt(file, np.float32, delimiter=',', ndmin=2)


def format_label_vectors(vectors: Float[np.ndarray, 'm n']) -> str:
  """Rows as a value of --labels; `read_label_vectors` inverts it.

  Raises:
    UserError: they are no numbers.
  """
  try:
    rows = np.asarray(vectors, np.float32).tolist()
  except (TypeError, ValueError) as error:
    raise UserError('labels: a table of numbers is needed.') from error
  return ';'.join(','.join(map(repr, row)) for row in rows)
