"""Geometric transforms of ADA: one affine map per image and its antialiased warp.

Matrices map output to input positions, in pixels from the image's centre: x to the
right, y down.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import linear_call
from jaxtyping import Array, Bool, Float, Int

from gan_jax.models.augmentation import wavelets
from gan_jax.ops.platform import platform

Matrix = Float[Array, 'b 3 3']
BOUNDS = 'promise_in_bounds'
# Rotated images are taken a few at a time: so many point by point, so many pixels by
# products, which are for images up to a size: points are faster beyond it.
IMAGES_AT_ONCE = 4
PIXELS_AT_ONCE = 16 * 32 * 32
MOST_BY_PRODUCTS = 128 * 128


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

  CPUs and TPUs take two small products for each image whose rows and columns stay rows
  and columns, or change places. They sample the others, which are rotated, a few at a
  time, so that the cost grows with their number. GPUs, where reading single pixels is
  cheap, sample all images at once.

  Args:
    inverse: output -> input positions.
    margins: reflected pixels, beyond which there is 0; None for the largest. The
      original takes what the corners of the batch's images need: shapes then depend
      on draws, and an image on its batch. With its margins the numbers are the same;
      the largest ones differ by 1e-6 where its margin is too small for all taps.
  """
  _, h, w, _ = images.shape
  margins = margins or largest_margins(h, w)
  if platform() not in ('cpu', 'tpu'):
    return warp_points(images, inverse, margins)
  upright, swapped = find_kinds(inverse, h, w, margins)
  straight = warp_by_axis(images, inverse, swapped, margins)
  rotated = ~(upright | swapped)
  sampled = warp_chosen(images, inverse, rotated, margins)
  return jnp.where(rotated[:, None, None, None], sampled, straight)


def find_kinds(
  inverse: Matrix, h: int, w: int, margins: Margins
) -> tuple[Bool[Array, ' b'], Bool[Array, ' b']]:
  """Which images keep rows as rows, and which have them as columns.

  A quarter turn is one up to the rounding of its cosine. Where rows and columns are of
  different lengths, images that swap them count as rotated.
  """
  linear = jnp.abs(inverse[:, :2, :2])
  tiny = 8 * jnp.finfo(inverse.dtype).eps * linear.max((1, 2))
  upright = jnp.maximum(linear[:, 0, 1], linear[:, 1, 0]) <= tiny
  swapped = jnp.maximum(linear[:, 0, 0], linear[:, 1, 1]) <= tiny
  same = h == w and margins.left == margins.top and margins.right == margins.bottom
  return upright, swapped & same


def warp_by_axis(
  images: Float[Array, 'b h w c'],
  inverse: Matrix,
  swapped: Bool[Array, ' b'],
  margins: Margins,
) -> Float[Array, 'b h w c']:
  """The warp of images that are not rotated, as a product for each axis.

  Args:
    swapped: images whose rows become columns.
  """
  _, h, w, _ = images.shape
  if h == w:
    turned = swapped[:, None, None, None]
    images = jnp.where(turned, images.swapaxes(1, 2), images)
  m = jnp.where(swapped[:, None, None], inverse[:, 1::-1, :], inverse[:, :2, :])
  y, x = (_centered(n, inverse.dtype)[None] for n in (h, w))
  rows = _positions(m[:, 1, 1:2] * y + m[:, 1, 2:], h, margins.top)
  columns = _positions(m[:, 0, 0:1] * x + m[:, 0, 2:], w, margins.left)
  rows = axis_matrix(rows, wavelets.upsampling(h, margins.top, margins.bottom))
  columns = axis_matrix(columns, wavelets.upsampling(w, margins.left, margins.right))
  exact = lax.Precision.HIGHEST
  rows, columns = (x.astype(images.dtype) for x in (rows, columns))
  images = jnp.einsum('bph,bhwc->bpwc', rows, images, precision=exact)
  return jnp.einsum('bqw,bpwc->bpqc', columns, images, precision=exact)


def axis_matrix(
  positions: Float[Array, 'b p'], table: wavelets.Upsampling
) -> Float[Array, 'b n n']:
  """Matrices that upsample one axis, sample it at the positions and downsample it."""
  down = jnp.asarray(wavelets.downsampling(table.matrix.shape[1]), positions.dtype)
  sampled = rows_at(positions, table)
  return jnp.einsum('np,bpm->bnm', down, sampled, precision=lax.Precision.HIGHEST)


def rows_at(
  positions: Float[Array, '...'], table: wavelets.Upsampling
) -> Float[Array, '... n']:
  """Rows of a table, interpolated at the positions.

  A TPU takes about seven cycles to read a row, whatever its length: it multiplies the
  table by `hats` instead.
  """
  taps = jnp.asarray(table.matrix, positions.dtype)
  if platform() == 'tpu':
    return jnp.dot(hats(positions, table), taps, precision=lax.Precision.HIGH)
  row, part = _split(positions, table)
  part = part[..., None]
  return (1 - part) * taps[row] + part * taps[row + 1]


def hats(
  positions: Float[Array, '...'], table: wavelets.Upsampling
) -> Float[Array, '... rows']:
  """Weights of the table's rows at the positions: at most two of them are not 0."""
  row, part = _split(positions, table)
  shape = *positions.shape, len(table.matrix)
  rows = lax.broadcasted_iota(positions.dtype, shape, positions.ndim)
  return jnp.maximum(1 - jnp.abs((row + part)[..., None] - rows), 0)


def warp_chosen(
  images: Float[Array, 'b h w c'],
  inverse: Matrix,
  chosen: Bool[Array, ' b'],
  margins: Margins,
) -> Float[Array, 'b h w c']:
  """The images, of which the chosen ones are warped, a few at a time.

  Linear in the images. Its transpose runs the same loop. The number of turns does not
  depend on the draws, so that a planner can multiply by it; a turn without chosen
  images does nothing.
  """
  b, h, w, _ = images.shape
  if platform() == 'tpu' and h * w <= MOST_BY_PRODUCTS:
    form, size = warp_by_products, max(PIXELS_AT_ONCE // (h * w), 1)
  else:
    form, size = warp_points, IMAGES_AT_ONCE
  size = min(size, b)

  def forward(x: Array, inverse: Matrix) -> Array:
    return form(x, inverse, margins)

  def transpose(y: Array, inverse: Matrix) -> Array:
    (x,) = jax.linear_transpose(lambda x: forward(x, inverse), y)(y)
    return x

  def each(one: Callable[[Array, Matrix], Array], residuals: Any, x: Array) -> Array:
    chosen, inverse = residuals
    order = jnp.argsort(~chosen)
    ordered, inverse, number = x[order], inverse[order], chosen.sum()

    def body(i: Array, out: Array) -> Array:
      start = jnp.minimum(i * size, b - size)
      some = lambda x: lax.dynamic_slice_in_dim(x, start, size)
      update = lambda out: lax.dynamic_update_slice_in_dim(
        out, one(some(ordered), some(inverse)), start, 0
      )
      return lax.cond(i * size < number, update, lambda out: out, out)

    out = lax.fori_loop(0, -(-b // size), body, ordered)[jnp.argsort(order)]
    return jnp.where(chosen[:, None, None, None], out, x)

  return linear_call(
    partial(each, forward), partial(each, transpose), (chosen, inverse), images
  )


def warp_by_products(
  images: Float[Array, 'b h w c'], inverse: Matrix, margins: Margins
) -> Float[Array, 'b h w c']:
  """The warp of all images, without reading single pixels.

  Every sample has weights of all rows and of all columns. Compiled for a TPU those of
  the columns, and their products with the image, are not stored. These products have
  the default precision, that of the convolutions which read the images: on a TPU they
  read bfloat16.
  """
  b, h, w, c = images.shape
  rows = wavelets.upsampling(h, margins.top, margins.bottom)
  columns = wavelets.upsampling(w, margins.left, margins.right)
  down, right = sample_positions(inverse, h, w, margins)
  exact = lax.Precision.HIGHEST
  flat = lambda x: x.reshape(b, -1)
  by_row = rows_at(flat(down), rows).astype(images.dtype)
  by_column = hats(flat(right), columns).astype(images.dtype)
  taps = jnp.asarray(columns.matrix, images.dtype)
  large = jnp.einsum('kw,bhwc->bkhc', taps, images, precision=exact)
  sampled = jnp.einsum('bsk,bkhc->bshc', by_column, large)
  sampled = (by_row[..., None] * sampled).sum(2).reshape(*down.shape, c)
  down_rows, down_columns = wavelets.downsampling(h), wavelets.downsampling(w)
  return _separable(down_rows, sampled.swapaxes(0, 1), down_columns).swapaxes(0, 1)


def warp_points(
  images: Float[Array, 'b h w c'], inverse: Matrix, margins: Margins
) -> Float[Array, 'b h w c']:
  """The warp of all images, sampled point by point."""
  _, h, w, c = images.shape
  rows = wavelets.upsampling(h, margins.top, margins.bottom)
  columns = wavelets.upsampling(w, margins.left, margins.right)
  down, right = sample_positions(inverse, h, w, margins)
  cells = find_cells(down.swapaxes(0, 1), right.swapaxes(0, 1), rows, columns)
  large = _separable(rows.matrix, images.swapaxes(0, 1), columns.matrix)
  sampled = sample(large.reshape(1, len(large), -1, c), cells)
  small = _separable(wavelets.downsampling(h), sampled, wavelets.downsampling(w))
  return small.swapaxes(0, 1)


def _separable(
  rows: np.ndarray, images: Float[Array, 'h b w c'], columns: np.ndarray
) -> Float[Array, 'p b q c']:
  """Applies static matrices to the rows and to the columns of images.

  The rows of all images come first, so that either is one product of two matrices.
  The columns, which are transposed for it, are multiplied where there are fewer rows.
  """
  exact = lax.Precision.HIGHEST
  p, q = (jnp.asarray(m, images.dtype) for m in (rows, columns))
  by_row = lambda x: jnp.tensordot(p, x, 1, precision=exact)
  by_column = lambda x: jnp.dot(x.swapaxes(2, 3), q.T, precision=exact).swapaxes(2, 3)
  if len(rows) < len(images):
    return by_column(by_row(images))
  return by_row(by_column(images))


def sample_positions(
  inverse: Matrix, h: int, w: int, margins: Margins
) -> tuple[Float[Array, 'b p q'], Float[Array, 'b p q']]:
  """Rows and columns of the upsampled, reflected image, for p = 2h + 10, q = 2w + 10.

  These are the samples that the downsampling filter reads.
  """
  dtype = inverse.dtype
  x, y = _centered(w, dtype)[None, None, :], _centered(h, dtype)[None, :, None]
  m = inverse[..., None, None]
  rows = m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]
  columns = m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]
  return _positions(rows, h, margins.top), _positions(columns, w, margins.left)


def _centered(n: int, dtype: Any) -> Float[Array, ' p']:
  """The samples of an axis of n pixels, in pixels from its middle."""
  return jnp.asarray((np.arange(2 * n + 10) - (n + 4)) / 2, dtype)


def _positions(x: Array, n: int, before: int) -> Array:
  """Positions of `wavelets.Upsampling`, from pixels from the middle of n."""
  return 2 * (x + before) + n


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
  rows: Float[Array, 'p b q'],
  columns: Float[Array, 'p b q'],
  row_table: wavelets.Upsampling,
  column_table: wavelets.Upsampling,
) -> Cells:
  """The cells of samples at given positions of upsampled images; 0 beyond them.

  The images are beside each other: those of the tables' rows are 'p b q'.
  """
  (row, down), (column, right) = _split(rows, row_table), _split(columns, column_table)
  width = len(column_table.matrix)
  image = jnp.arange(rows.shape[1], dtype=jnp.int32)[None, :, None]
  return Cells((row * rows.shape[1] + image) * width + column, down, right)


def _split(x: Array, table: wavelets.Upsampling) -> tuple[Array, Array]:
  """The row of the table before each position, and the distance from it."""
  x = jnp.clip(x, 0, table.length - 1)
  low = jnp.minimum(jnp.floor(x), table.length - 2)
  return table.row(low).astype(jnp.int32), x - low


_PAIRS = lax.ScatterDimensionNumbers(
  update_window_dims=(3,), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
)


def sample(images: Float[Array, 'b h w c'], cells: Cells) -> Float[Array, 'b p q c']:
  """Bilinear samples. Linear in the images; the cells are constants.

  The transpose adds one tap after the other to one array: four scatters into arrays
  of their own take four times as long on a CPU. There the two taps of a row, which are
  beside each other, are added at once; a TPU takes many times as long for that.
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

  def add_pairs(cells: Cells, samples: Array) -> Array:
    right, down = (
      x[..., None].astype(samples.dtype) for x in (cells.right, cells.down)
    )
    pair = jnp.concatenate([(1 - right) * samples, right * samples], -1)
    flat = jnp.zeros(b * h * w * c, samples.dtype)
    for row, weight in ((0, 1 - down), (w, down)):
      start = (cells.pixel + row) * c
      flat = lax.scatter_add(flat, start[..., None], weight * pair, _PAIRS, mode=BOUNDS)
    return flat.reshape(-1, c)

  transpose = add_pairs if platform() == 'cpu' else add
  return linear_call(read, transpose, cells, images.reshape(-1, c))
