"""Wavelet filters of ADA as static matrices that act on one axis of an image.

Each matrix includes the reflection at the image's border, so that padding, filtering
and a change of resolution are one product.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Scaling filters of the symlets with six and two vanishing moments.
SYM6 = (
  *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057),
  *(-0.048311742585633, 0.4910559419267466, 0.787641141030194, 0.3379294217276218),
  *(-0.07263752278646252, -0.021060292512300564, 0.04472490177066578),
  *(0.0017677118642428036, -0.007800708325034148),
)
SYM2 = (
  *(-0.12940952255092145, 0.22414386804185735),
  *(0.836516303737469, 0.48296291314469025),
)
BANDS = 4  # of the filter bank


@functools.cache
def lowpass() -> np.ndarray:
  """The 12 taps of sym6 with sum 1, computed in float32 as in the original."""
  taps = np.asarray(SYM6, np.float32)
  return (taps / taps.sum()).astype(np.float64)


@functools.cache
def filter_bank() -> np.ndarray:
  """[4, 43]: band-pass filters from low to high frequencies; their sum is a delta."""
  low = np.asarray(SYM2)
  high = low * (-1) ** np.arange(len(low))
  low2 = np.convolve(low, low[::-1]) / 2
  high2 = np.convolve(high, high[::-1]) / 2
  bank = np.eye(BANDS, 1)
  for i in range(1, BANDS):
    stuffed = np.zeros((BANDS, 2 * bank.shape[1] - 1))
    stuffed[:, ::2] = bank
    bank = np.stack([np.convolve(row, low2) for row in stuffed])
    middle = (bank.shape[1] - len(high2)) // 2
    bank[i, middle : middle + len(high2)] += high2
  return bank.astype(np.float32).astype(np.float64)


class Upsampling(NamedTuple):
  """The rows of a reflected and upsampled signal, without those that are repeated.

  A reflected signal repeats after `period` rows. All positions below count from a row
  of zeros before the signal; one follows it.

  Attributes:
    matrix: [rows, n]; the rows of positions [0, head), then those from `tail` on.
    length: of the whole signal, with the two rows of zeros.
  """

  matrix: np.ndarray
  length: int
  period: int
  head: int
  tail: int

  def row(self, position: Float[Array, '...']) -> Float[Array, '...']:
    """The row of the matrix at a position; the next row is that of the next position.

    Args:
      position: integers from 0 to length - 2.
    """
    last = position - self.tail + self.head
    repeated = jnp.where(position < self.tail, position - self.period, last)
    return jnp.where(position < self.head - 1, position, repeated)


@functools.cache
def upsampling(n: int, before: int, after: int) -> Upsampling:
  """Pads n entries by reflection, surrounds them by zeros and upsamples by 2."""
  taps, padded = 2 * lowpass(), before + n + after
  length, period, border = 2 * padded + 2, 4 * (n - 1), len(taps) // 2 + 1
  matrix = np.zeros((length, n))
  for row in range(2 * padded):
    for t, tap in enumerate(taps):
      source, odd = divmod(row + len(taps) // 2 - 1 - t, 2)
      if not odd and 0 <= source < padded:
        matrix[row + 1, _reflect(source - before, n)] += tap
  head, tail = border + period + 1, length - 1 - border
  if head >= tail:
    return Upsampling(matrix, length, period, length, length)
  folded = np.concatenate([matrix[:head], matrix[tail:]])
  return Upsampling(folded, length, period, head, tail)


@functools.cache
def downsampling(n: int) -> np.ndarray:
  """[n, 2n + 10]: downsamples by 2."""
  taps = lowpass()
  matrix = np.zeros((n, 2 * n + len(taps) - 2))
  for row in range(n):
    matrix[row, 2 * row : 2 * row + len(taps)] = taps
  return matrix


@functools.cache
def band_filters(n: int) -> np.ndarray:
  """[4, n, n]: the filters of the bank with reflection, for n from 22 up."""
  bank = filter_bank()
  matrix = np.zeros((BANDS, n, n))
  for row in range(n):
    for t in range(bank.shape[1]):
      matrix[:, row, _reflect(row + t - bank.shape[1] // 2, n)] += bank[:, t]
  return matrix


def _reflect(i: int, n: int) -> int:
  """Position i of a signal of n entries, reflected without repeating its ends."""
  i = abs(i) % max(2 * (n - 1), 1)
  return min(i, 2 * (n - 1) - i)
