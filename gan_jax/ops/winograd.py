"""3x3 convolutions of stride 1 with a quarter of the multiplications; NHWC and HWIO.

Winograd's algorithm F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308), seen as
multiplication of polynomials. Tiles of 6x6 pixels and kernels are evaluated at the same
points, multiplied there, and interpolated to tiles of 4x4 output pixels. The rounding
error with the points 0, +-3/4 and +-3/2 is a few times that of direct summation, and
smaller than with the published points 0, +-1 and +-2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4  # output pixels of a tile along each axis
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])


def transpose_kernel(kernel: Float[Array, 'k k c o']) -> Float[Array, 'k k o c']:
  """The kernel, flipped, whose convolution is the gradient of a convolution by x."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Matrices that evaluate pixels [6, 6] and kernels [6, 3], and interpolate [4, 6].

  The sixth point is at infinity: the highest coefficient.
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


def _multiply(matrix: np.ndarray, axis: int, arrays: list[Array]) -> Array:
  """The matrix times a vector of arrays, stacked along a new axis."""

  def combine(row: np.ndarray) -> Array:
    terms = [x * np.asarray(r, x.dtype) for r, x in zip(row, arrays, strict=True) if r]
    return sum(terms[1:], terms[0])

  return jnp.stack([combine(row) for row in matrix], axis)


def _evaluate_tiles(matrix: np.ndarray, x: Array) -> Array:
  """[b, h, w, c] -> [36, tiles, c]: tiles evaluated at the 6x6 pairs of points.

  A tile is as wide as the matrix. The barrier keeps XLA from evaluating the first axis
  again for each point of the second one.
  """
  size = matrix.shape[1]
  h, w = (n - size + 1 for n in x.shape[1:3])
  rows = _multiply(matrix, 0, [x[:, i : i + h : TILE] for i in range(size)])
  rows = lax.optimization_barrier(rows)
  pairs = _multiply(matrix, 1, [rows[:, :, :, j : j + w : TILE] for j in range(size)])
  return pairs.reshape(36, -1, x.shape[-1])


def _evaluate_input(x: Array) -> Array:
  """`_evaluate_tiles` of the overlapping 6x6 tiles of a zero-padded feature map."""
  return _evaluate_tiles(_PIXELS, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _interpolate(y: Array) -> Array:
  """[6, 6, b, h, w, o] -> [b, 4h, 4w, o]: values at the points to output pixels."""
  _, _, b, h, w, o = y.shape
  rows = lax.optimization_barrier(_multiply(_OUTPUTS, 4, [y[:, j] for j in range(6)]))
  pixels = _multiply(_OUTPUTS, 2, list(rows))
  return pixels.reshape(b, TILE * h, TILE * w, o)


def _kernel_matrix(dtype: jnp.dtype) -> np.ndarray:
  """[36, 9]: evaluates the nine taps of a kernel at the pairs of points."""
  return np.kron(_KERNELS, _KERNELS).astype(dtype)


@jax.custom_vjp
def conv(
  x: Float[Array, 'b h w c'], kernel: Float[Array, '3 3 c o']
) -> Float[Array, 'b h w o']:
  """Convolution with zero padding to the same size; h and w are multiples of `TILE`."""
  (b, h, w, c), o = x.shape, kernel.shape[-1]
  kernels = (_kernel_matrix(x.dtype) @ kernel.reshape(9, -1)).reshape(36, c, o)
  products = jnp.einsum('ptc,pco->pto', _evaluate_input(x), kernels)
  return _interpolate(products.reshape(6, 6, b, h // TILE, w // TILE, o))


def _conv_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, kernel = residuals
  products = jnp.einsum(
    'ptc,pto->pco', _evaluate_input(x), _evaluate_tiles(_OUTPUTS.T, g)
  ).reshape(36, -1)
  by_kernel = jnp.asarray(_kernel_matrix(x.dtype).T) @ products
  by_x = conv(g, transpose_kernel(kernel))
  return by_x, by_kernel.reshape(kernel.shape)


conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), _conv_backward)
