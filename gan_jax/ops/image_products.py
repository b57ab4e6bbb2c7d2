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


def upsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b 2*h 2*w c']:
  """Nearest-neighbour upsampling by 2."""
  _, h, w, _ = x.shape
  x = _product('bhwc,wv->bhvc', x, 2 * _means_of_pairs(2 * w).T)
  x = _product('bhwc,wv->bhvc', x.swapaxes(1, 2), 2 * _means_of_pairs(2 * h).T)
  return x.swapaxes(1, 2)


def downsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b h/2 w/2 c']:
  """Mean over boxes of 2x2 pixels."""
  _, h, w, _ = x.shape
  y = x.astype(accumulation_dtype(x.dtype))
  y = _product('bhwc,wv->bhvc', y, _means_of_pairs(w))
  y = _product('bhwc,wv->bhvc', y.swapaxes(1, 2), _means_of_pairs(h))
  return y.swapaxes(1, 2).astype(x.dtype)


def split_columns(
  x: Float[Array, 'b h w c'], n: int
) -> Float[Array, 'b h c n columns']:
  """Every n-th column together, with the columns last: in the lanes."""
  b, h, w, c = x.shape
  return _product('bhwc,wv->bhcv', x, _split(w, n)).reshape(b, h, c, n, w // n)


def join_columns(x: Float[Array, 'b h c n columns']) -> Float[Array, 'b h w c']:
  """The inverse of `split_columns`."""
  b, h, c, n, columns = x.shape
  back = _split(n * columns, n).T
  return _product('bhcv,vw->bhwc', x.reshape(b, h, c, -1), back)


def _product(equation: str, x: Array, matrix: Float[np.ndarray, 'n m']) -> Array:
  """The product with a matrix, in the precision of x's dtype."""
  narrow = jnp.finfo(x.dtype).bits < 32
  precision = lax.Precision.DEFAULT if narrow else lax.Precision.HIGHEST
  return jnp.einsum(equation, x, matrix.astype(x.dtype), precision=precision)


def _split(width: int, n: int) -> Float[np.ndarray, 'w w']:
  """The matrix that puts every n-th column together."""
  order = np.arange(width).reshape(-1, n).T.reshape(-1)
  return np.eye(width)[:, order]


def _means_of_pairs(n: int) -> Float[np.ndarray, 'n m']:
  """The matrix [n, n / 2] whose columns take the mean of two neighbours."""
  return np.kron(np.eye(n // 2), np.full((2, 1), 0.5))
