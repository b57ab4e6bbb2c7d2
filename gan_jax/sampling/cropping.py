"""Crops the padding that gan_jax.prepare added to the training images."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8


def crop_batches(
  images: Iterator[UInt8[np.ndarray, 'b in_h in_w c']], content: Sequence[float]
) -> Iterator[UInt8[np.ndarray, 'b h w c']]:
  """The part of each image that is not padding; the images themselves without any.

  Args:
    content: top, left, bottom and right, as fractions of height and width.
  """
  for batch in images:
    top, bottom = (round(x * batch.shape[1]) for x in content[::2])
    left, right = (round(x * batch.shape[2]) for x in content[1::2])
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    yield batch[:, top:bottom, left:right]
