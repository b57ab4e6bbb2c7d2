"""The pixels of a stream of images, as vectors: distances between images themselves."""

import numpy as np
from jaxtyping import Int, UInt8

from gan_jax.evaluation.metrics.resize import resize_matrix

MAX_SIDE = 32  # pixels; larger images are reduced, so that 50,000 fit into memory


class PixelStatistics:
  """The first images of a stream, as rows of bytes."""

  def __init__(self, max_rows: int):
    """
    Args:
      max_rows: how many images, the first ones, are stored.
    """
    self.max_rows = max_rows
    self._rows: list[np.ndarray] = []

  @property
  def rows(self) -> UInt8[np.ndarray, 'rows pixels']:
    """The stored images; min(n, max_rows) rows of height x width x channels bytes."""
    if len(self._rows) > 1:
      self._rows = [np.concatenate(self._rows)]
    return self._rows[0] if self._rows else np.zeros((0, 0), np.uint8)

  def update(
    self, images: UInt8[np.ndarray, 'n h w c'], labels: Int[np.ndarray, ' n']
  ) -> None:
    """Adds images."""
    del labels
    free = self.max_rows - sum(map(len, self._rows))
    if free > 0:
      small = reduce_images(images[:free])
      self._rows.append(small.reshape(len(small), -1))

  def merge(self, other: 'PixelStatistics') -> None:
    """Adds the images of a stream that follows this one."""
    free = self.max_rows - len(self.rows)
    if free > 0 and len(other.rows):
      self._rows.append(other.rows[:free])

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    return {'keep': np.array(self.max_rows), 'rows': self.rows}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'PixelStatistics':
    """The statistics that `arrays` described. Raises: KeyError."""
    statistics = cls(int(arrays['keep']))
    statistics._rows = [arrays['rows']] if len(arrays['rows']) else []
    return statistics


def reduce_images(
  images: UInt8[np.ndarray, 'n h w c'],
) -> UInt8[np.ndarray, 'n h2 w2 c']:
  """Images with at most MAX_SIDE pixels per side, resized with antialiasing."""
  if max(images.shape[1:3]) <= MAX_SIDE:
    return np.array(images)
  x = images.astype(np.float32)
  for axis in (1, 2):
    size = x.shape[axis]
    matrix = resize_matrix(size, min(size, MAX_SIDE), antialias=True)
    x = np.moveaxis(
      np.tensordot(x, matrix.astype(np.float32), ((axis,), (1,))), -1, axis
    )
  return np.clip(np.round(x), 0, 255).astype(np.uint8)
