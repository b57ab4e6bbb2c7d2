"""Geometric transforms of ADA: one affine map per image and its antialiased warp.

Matrices map output to input positions, in pixels from the image's centre: x to the
right, y down.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import linear_call
from jaxtyping import Array, Float, Int

from gan_jax.models.augmentation import wavelets

Matrix = Float[Array, 'b 3 3']
BOUNDS = 'promise_in_bounds'


def compose(a: Matrix, b: Matrix) -> Matrix:
  """The product a b, exact in float32 on every device."""
  return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def _matrix(rows: list[list[Array | float]], like: Array) -> Matrix:
  entries = [[jnp.broadcast_to(x, like.shape) for x in row] for row in rows]
  return jnp.stack([jnp.stack(row, -1) for row in entries], -2).astype(like.dtype)


def scaling(x: Float[Array, ' b'], y: Float[Array, ' b']) -> Matrix:
  return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], x)


def translation(x: Float[Array, ' b'], y: Float[Array, ' b']) -> Matrix:
  return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], x)


def rotation(angle: Float[Array, ' b']) -> Matrix:
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], angle)


class Margins(NamedTuple):
  """Pixels by which an image is reflected at its sides."""

  left: int
  right: int
  top: int
  bottom: int


def largest_margins(h: int, w: int) -> Margins:
  """The most that reflection allows, which is enough for any transform."""
  return Margins(w - 1, w - 1, h - 1, h - 1)


def warp(
  images: Float[Array, 'b h w c'], inverse: Matrix, margins: Margins | None = None
) -> Float[Array, 'b h w c']:
  """Upsamples by 2 with sym6, samples bilinearly at mapped positions, downsamples.

  Args:
    inverse: output -> input positions.
    margins: reflected pixels, beyond which there is 0; None for the largest. The
      original takes what the corners of the batch's images need: shapes then depend
      on draws, and an image on its batch. With its margins the numbers are the same;
      the largest ones differ by 1e-6 where its margin is too small for all taps.
  """
  _, h, w, _ = images.shape
  margins = margins or largest_margins(h, w)
  rows = wavelets.upsampling(h, margins.top, margins.bottom)
  columns = wavelets.upsampling(w, margins.left, margins.right)
  cells = find_cells(*sample_positions(inverse, h, w, margins), rows, columns)
  large = _separable(rows.matrix, images, columns.matrix)
  sampled = sample(large, cells)
  return _separable(wavelets.downsampling(h), sampled, wavelets.downsampling(w))


def _separable(
  rows: np.ndarray, images: Float[Array, 'b h w c'], columns: np.ndarray
) -> Float[Array, 'b p q c']:
  """Applies static matrices to the rows and to the columns of images."""
  exact = lax.Precision.HIGHEST
  p, q = (jnp.asarray(m, images.dtype) for m in (rows, columns))
  images = jnp.einsum('ph,bhwc->bpwc', p, images, precision=exact)
  return jnp.einsum('qw,bpwc->bpqc', q, images, precision=exact)


def sample_positions(
  inverse: Matrix, h: int, w: int, margins: Margins
) -> tuple[Float[Array, 'b p q'], Float[Array, 'b p q']]:
  """Rows and columns of the upsampled, reflected image, for p = 2h + 10, q = 2w + 10.

  These are the samples that the downsampling filter reads.
  """
  dtype = inverse.dtype
  y, x = (jnp.asarray((np.arange(2 * n + 10) - (n + 4)) / 2, dtype) for n in (h, w))
  x, y = x[None, None, :], y[None, :, None]
  m = inverse[..., None, None]
  rows = m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]
  columns = m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]
  return 2 * (rows + margins.top) + h, 2 * (columns + margins.left) + w


class Cells(NamedTuple):
  """Where bilinear samples lie between four pixels of an image."""

  pixel: Int[Array, 'b p q']  # upper left, among the pixels of all images
  down: Float[Array, 'b p q']  # distance from it, in [0, 1]
  right: Float[Array, 'b p q']

  def taps(self, width: int) -> Iterator[tuple[Array, Array]]:
    """(pixels, weights) of the four pixels, for images of this width."""
    for i, row_weight in enumerate((1 - self.down, self.down)):
      for j, column_weight in enumerate((1 - self.right, self.right)):
        yield self.pixel + (i * width + j), row_weight * column_weight


def find_cells(
  rows: Float[Array, 'b p q'],
  columns: Float[Array, 'b p q'],
  row_table: wavelets.Upsampling,
  column_table: wavelets.Upsampling,
) -> Cells:
  """The cells of samples at given positions of an upsampled image; 0 beyond it."""

  def split(x: Array, table: wavelets.Upsampling) -> tuple[Array, Array]:
    x = jnp.clip(x, 0, table.length - 1)
    low = jnp.minimum(jnp.floor(x), table.length - 2)
    return table.row(low).astype(jnp.int32), x - low

  (row, down), (column, right) = split(rows, row_table), split(columns, column_table)
  image = jnp.arange(len(rows), dtype=jnp.int32)[:, None, None]
  row += image * len(row_table.matrix)
  return Cells(row * len(column_table.matrix) + column, down, right)


def sample(images: Float[Array, 'b h w c'], cells: Cells) -> Float[Array, 'b p q c']:
  """Bilinear samples. Linear in the images; the cells are constants.

  The transpose adds one tap after the other to one array: four scatters into arrays
  of their own take four times as long on a CPU.
  """
  b, h, w, c = images.shape

  def read(cells: Cells, flat: Array) -> Array:
    parts = [
      weight[..., None].astype(flat.dtype) * flat.at[pixel].get(mode=BOUNDS)
      for pixel, weight in cells.taps(w)
    ]
    return sum(parts[1:], parts[0])

  def add(cells: Cells, samples: Array) -> Array:
    flat = jnp.zeros((b * h * w, c), samples.dtype)
    for pixel, weight in cells.taps(w):
      part = weight[..., None].astype(samples.dtype) * samples
      flat = flat.at[pixel].add(part, mode=BOUNDS)
    return flat

  return linear_call(read, add, cells, images.reshape(-1, c))
