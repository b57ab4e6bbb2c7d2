"""3x3 convolutions of stride 1 with a quarter of the multiplications, NHWC and HWIO.

Lavin and Gray 2016, arXiv:1509.09308: F(4x4, 3x3). Tiles of 6x6 pixels and kernels are
evaluated at the same points, multiplied there, and interpolated to 4x4 pixels. At the
points 0, +-3/4 and +-3/2 rounding is a few times that of the sum itself, and less than
at the published 0, +-1 and +-2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Maps = list[list[Array]]  # [6][6] of [tiles, channels]

TILE = 4  # pixels of a tile that come out, along each axis
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])


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


def _combined(matrix: np.ndarray, parts: Maps) -> Maps:
  """matrix parts matrix^T, of arrays."""

  def along(row: np.ndarray, xs: list[Array]) -> Array:
    terms = [x * np.asarray(r, x.dtype) for r, x in zip(row, xs, strict=True) if r]
    return sum(terms[1:], terms[0])

  rows = [[along(row, list(column)) for column in zip(*parts)] for row in matrix]
  return [[along(row, found) for row in matrix] for found in rows]


def _evaluated(x: Array) -> Maps:
  """[b, h, w, c] -> the overlapping tiles at each pair of points."""
  _, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  at = lambda i, j: x[:, i : i + h - 3 : TILE, j : j + w - 3 : TILE]
  pixels = [[at(i, j) for j in range(6)] for i in range(6)]
  return [[m.reshape(-1, c) for m in row] for row in _combined(_PIXELS, pixels)]


@jax.custom_vjp
def conv(x: Array, kernel: Array) -> Array:
  """Zero padding to the same size: [b, h, w, c] and [3, 3, c, o] -> [b, h, w, o].

  h and w are multiples of `TILE`.
  """
  b, h, w, c = x.shape
  tiles = b, h // TILE, w // TILE, kernel.shape[-1]
  kernels = (_at_points(x.dtype) @ kernel.reshape(9, -1)).reshape(6, 6, c, -1)
  products = [
    [(m @ kernels[i, j]).reshape(tiles) for j, m in enumerate(row)]
    for i, row in enumerate(_evaluated(x))
  ]
  rows = [jnp.stack(row, 3) for row in _combined(_OUTPUTS, products)]
  return jnp.stack(rows, 2).reshape(b, h, w, -1)


def _at_points(dtype: jnp.dtype) -> np.ndarray:
  """[36, 9]: taps -> the kernel at each pair of points."""
  return np.kron(_KERNELS, _KERNELS).astype(dtype)


def _backward(saved, g):
  x, kernel = saved
  pixels = [[g[:, i::TILE, j::TILE] for j in range(TILE)] for i in range(TILE)]
  spread = _combined(_OUTPUTS.T, pixels)
  products = [
    (m.T @ s.reshape(-1, g.shape[-1])).reshape(-1)
    for rows in zip(_evaluated(x), spread, strict=True)
    for m, s in zip(*rows, strict=True)
  ]
  by_kernel = _at_points(x.dtype).T @ jnp.stack(products)
  by_x = conv(g, kernel[::-1, ::-1].swapaxes(2, 3))
  return by_x, by_kernel.reshape(kernel.shape)


conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), _backward)
