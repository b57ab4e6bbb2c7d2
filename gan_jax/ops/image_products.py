"""Resampling of large images on a TPU by products of matrices.

A TPU keeps the width of an image of three channels in its lanes, and takes neighbours
in lanes apart slowly. A product of the rows with a constant matrix does the same; it
takes a fiftieth of the estimated cycles for a fade at 1024 pixels
(experiments/step_speed).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.platform import platform
from gan_jax.ops.reductions import accumulation_dtype

MIN_WIDTH, MAX_CHANNELS = 256, 4


def as_products(width: int, channels: int) -> bool:
  """Whether images of this width in pixels are resampled by products here."""
  return platform() == 'tpu' and width >= MIN_WIDTH and channels <= MAX_CHANNELS


def multiply_columns(
  x: Float[Array, 'b h w c'], matrix: Float[np.ndarray, 'w v']
) -> Float[Array, 'b h v c']:
  """Each row of each image times a matrix, in the precision of x's dtype."""
  precision = lax.Precision.DEFAULT if _is_narrow(x) else lax.Precision.HIGHEST
  return jnp.einsum('bhwc,wv->bhvc', x, matrix.astype(x.dtype), precision=precision)


def upsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b 2*h 2*w c']:
  """Nearest-neighbour upsampling by 2."""
  _, h, w, _ = x.shape
  x = multiply_columns(x, 2 * _means_of_pairs(2 * w).T)
  x = multiply_columns(x.swapaxes(1, 2), 2 * _means_of_pairs(2 * h).T)
  return x.swapaxes(1, 2)


def downsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b h/2 w/2 c']:
  """Mean over boxes of 2x2 pixels."""
  _, h, w, _ = x.shape
  y = x.astype(accumulation_dtype(x.dtype))
  y = multiply_columns(y, _means_of_pairs(w))
  y = multiply_columns(y.swapaxes(1, 2), _means_of_pairs(h))
  return y.swapaxes(1, 2).astype(x.dtype)


def split_columns(width: int, n: int) -> Float[np.ndarray, 'w w']:
  """The matrix that puts every n-th column together: all first ones, all second ones.

  Its transpose puts them back.
  """
  order = np.arange(width).reshape(-1, n).T.reshape(-1)
  return np.eye(width)[:, order]


def _means_of_pairs(n: int) -> Float[np.ndarray, 'n m']:
  """The matrix [n, n / 2] whose columns take the mean of two neighbours."""
  return np.kron(np.eye(n // 2), np.full((2, 1), 0.5))


def _is_narrow(x: Array) -> bool:
  return jnp.finfo(x.dtype).bits < 32
