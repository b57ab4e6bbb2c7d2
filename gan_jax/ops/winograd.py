"""3x3 convolutions of stride 1 with a quarter of the multiplications, NHWC and HWIO.

Lavin and Gray 2016, arXiv:1509.09308: F(4x4, 3x3). Tiles of 6x6 pixels and kernels are
evaluated at the same points, multiplied there, and interpolated to 4x4 pixels. At the
points 0, +-3/4 and +-3/2 rounding is a few times that of the sum itself, and less than
at the published 0, +-1 and +-2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

TILE = 4  # pixels of a tile that come out, along each axis
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])


def transpose_kernel(kernel: Array) -> Array:
  """[k, k, c, o] -> [k, k, o, c]: what takes a gradient back through a convolution."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What evaluates pixels [6, 6] and kernels [6, 3], and interpolates [4, 6].

  The last point is at infinity: the highest coefficient.
  """
  others = [np.delete(_POINTS, i) for i in range(5)]
  pixels = np.zeros((6, 6))
  for row, roots in zip(pixels, [*others, _POINTS], strict=True):
    row[: len(roots) + 1] = np.poly(roots)[::-1]
  scale = [np.prod(p - other) for p, other in zip(_POINTS, others, strict=True)]
  kernels = np.vander(_POINTS, 3, increasing=True) / np.array(scale)[:, None]
  outputs = np.vander(_POINTS, 4, increasing=True).T
  infinity = np.eye(4)[:, 3:]
  return (
    pixels,
    np.vstack([kernels, infinity[1:].T]),
    np.hstack([outputs, infinity]),
  )


_PIXELS, _KERNELS, _OUTPUTS = _matrices()


def _along(matrix: np.ndarray, axis: int, parts: list[Array]) -> Array:
  """matrix parts, of arrays, stacked along the axis."""

  def of_row(row: np.ndarray) -> Array:
    terms = [x * np.asarray(r, x.dtype) for r, x in zip(row, parts, strict=True) if r]
    return sum(terms[1:], terms[0])

  return jnp.stack([of_row(row) for row in matrix], axis)


def _evaluated(matrix: np.ndarray, x: Array) -> Array:
  """[b, h, w, c] -> [36, tiles, c]: tiles as wide as the matrix, at pairs of points.

  Along one axis first, lest XLA do that again for each point of the other.
  """
  size = matrix.shape[1]
  h, w = (n - size + 1 for n in x.shape[1:3])
  rows = _along(matrix, 0, [x[:, i : i + h : TILE] for i in range(size)])
  rows = lax.optimization_barrier(rows)
  pairs = _along(matrix, 1, [rows[:, :, :, j : j + w : TILE] for j in range(size)])
  return pairs.reshape(36, -1, x.shape[-1])


def _overlapping(x: Array) -> Array:
  return _evaluated(_PIXELS, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _interpolated(y: Array) -> Array:
  """[6, 6, b, h, w, o] -> [b, 4h, 4w, o]."""
  _, _, b, h, w, o = y.shape
  rows = lax.optimization_barrier(_along(_OUTPUTS, 4, [y[:, j] for j in range(6)]))
  pixels = _along(_OUTPUTS, 2, list(rows))
  return pixels.reshape(b, TILE * h, TILE * w, o)


def _at_points(dtype: jnp.dtype) -> np.ndarray:
  """[36, 9]: taps -> the kernel at each pair of points."""
  return np.kron(_KERNELS, _KERNELS).astype(dtype)


@jax.custom_vjp
def conv(x: Array, kernel: Array) -> Array:
  """Zero padding to the same size: [b, h, w, c] and [3, 3, c, o] -> [b, h, w, o].

  h and w are multiples of `TILE`.
  """
  (b, h, w, c), o = x.shape, kernel.shape[-1]
  kernels = (_at_points(x.dtype) @ kernel.reshape(9, -1)).reshape(36, c, o)
  products = jnp.einsum('ptc,pco->pto', _overlapping(x), kernels)
  return _interpolated(products.reshape(6, 6, b, h // TILE, w // TILE, o))


def _backward(saved, g):
  x, kernel = saved
  products = jnp.einsum(
    'ptc,pto->pco', _overlapping(x), _evaluated(_OUTPUTS.T, g)
  ).reshape(36, -1)
  by_kernel = _at_points(x.dtype).T @ products
  by_x = conv(g, transpose_kernel(kernel))
  return by_x, by_kernel.reshape(kernel.shape)


conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), _backward)
