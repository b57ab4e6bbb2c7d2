"""Convolutions of growing GANs, on plain feature maps and on blocks of pixels.

In blocks, a convolution of pixels is a convolution of blocks with few taps. Its kernel
holds each tap at all places of a block (`_Axis`). So is a convolution with upsampling,
downsampling or a blur, whose kernel has more taps. Only at the border a blur does not
compose with a convolution, as the map between them is zero outside (`_border_terms`).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import convolution, resampling
from gan_jax.ops.blocks import (
  PIXEL,
  FeatureMap,
  PixelBlocks,
  Size,
  block_size,
  blocks_to_image,
  image_to_blocks,
  size_of,
  to_pixels,
  values_of,
)
from gan_jax.ops.convolution import FEW_CHANNELS, NHWC
from gan_jax.ops.platform import platform
from gan_jax.ops.reductions import accumulation_dtype
from gan_jax.ops.winograd import transpose_kernel

Taps = tuple[int, ...]  # of a blur; () for none


def conv(x: FeatureMap, kernel: Float[Array, 'k k c o']) -> FeatureMap:
  """`convolution.conv`: stride 1 and zero padding to the same size; k is odd.

  A convolution to few channels gives an image, which is a plain array.
  """
  (_, h, w, c), (size, _, _, o) = x.shape, kernel.shape
  after = size_of(x)
  if not isinstance(x, PixelBlocks):
    after = block_size(platform(), h, w, o)
  if size_of(x) == after == PIXEL:
    return convolution.conv(to_pixels(x), kernel)
  if size == 1 and isinstance(x, PixelBlocks) and o <= FEW_CHANNELS:
    return blocks_to_image(x, kernel[0, 0])
  if size == 1 and not isinstance(x, PixelBlocks) and c <= FEW_CHANNELS:
    return image_to_blocks(x, kernel[0, 0], after)
  y = _blurred(x, kernel, (), after, _Step(1, 1, size // 2), first=True)
  return to_pixels(y) if o <= FEW_CHANNELS else y


def up_conv(
  x: FeatureMap, kernel: Float[Array, 'k k c o'], taps: Taps = ()
) -> FeatureMap:
  """`blur(conv(upsample(x), kernel), taps)`, without a blur for no taps."""
  _, h, w, _ = x.shape
  after = block_size(platform(), 2 * h, 2 * w, kernel.shape[-1])
  if size_of(x) == after == PIXEL:
    y = resampling.up_conv(to_pixels(x), kernel)
    return resampling.blur(y, taps) if taps else y
  step = _Step(1, 2, 2)
  four = resampling.shifted_sum(kernel)
  if taps and not _composes(taps):
    return blur(_blurred(x, four, (), after, step, first=False), taps)
  return _blurred(x, four, taps, after, step, first=False)


def down_conv(
  x: FeatureMap, kernel: Float[Array, 'k k c o'], taps: Taps = ()
) -> FeatureMap:
  """`downsample(conv(blur(x, taps), kernel))`, without a blur for no taps."""
  _, h, w, _ = x.shape
  after = block_size(platform(), h // 2, w // 2, kernel.shape[-1])
  if size_of(x) == after == PIXEL:
    y = resampling.blur(to_pixels(x), taps) if taps else to_pixels(x)
    return resampling.down_conv(y, kernel)
  if taps and not _composes(taps):
    x, taps = blur(x, taps), ()
  four = resampling.shifted_sum(kernel) / 4
  return _blurred(x, four, taps, after, _Step(2, 1, 1), first=True)


def blur(x: FeatureMap, taps: Taps) -> FeatureMap:
  """`resampling.blur`."""
  if not isinstance(x, PixelBlocks):
    return resampling.blur(x, taps)
  row = jnp.asarray(taps, x.dtype) / sum(taps)
  kernel = row[:, None, None, None] * row[None, :, None, None]
  kernel = kernel * jnp.eye(x.shape[-1], dtype=x.dtype)[None, None]
  step = _Step(1, 1, (len(taps) - 1) // 2)
  return _as_map(_window(x.values, kernel, x.size, x.size, (step, step)), x.size)


def downsample(x: FeatureMap) -> FeatureMap:
  """`resampling.downsample`."""
  _, h, w, c = x.shape
  after = block_size(platform(), h // 2, w // 2, c)
  if size_of(x) == after == PIXEL:
    return resampling.downsample(to_pixels(x))
  mean = jnp.broadcast_to(jnp.eye(c, dtype=x.dtype) / 4, (2, 2, c, c))
  return _blurred(x, mean, (), after, _Step(2, 1, 0), first=True)


def _as_map(values: Array, size: Size) -> FeatureMap:
  return values if size == PIXEL else PixelBlocks(values, size)


# Kernels over blocks.


class _Step(NamedTuple):
  """Where an output pixel r reads: tap t at r * stride + t - before.

  It reads the input with dilation - 1 zeros between its pixels.
  """

  stride: int
  dilation: int
  before: int


_SAME = _Step(1, 1, 0)


class _Axis(NamedTuple):
  """How a kernel over blocks moves along one axis."""

  stride: int  # in blocks
  pads: tuple[int, int]  # blocks of zeros


_Axes = tuple[_Axis, _Axis]  # of rows and of columns


def _window(
  values: Array, kernel: Array, inside: Size, outside: Size, steps: tuple[_Step, _Step]
) -> Array:
  """Convolves blocks with a kernel of pixels.

  Args:
    values: blocks of the input.
    kernel: of pixels.
    inside: the input's block.
    outside: the block of the result.
    steps: of rows and of columns.
  """
  sizes = zip(inside, outside, steps, strict=True)
  if any(s.stride * o < s.dilation * i for i, o, s in sizes):
    # More blocks come out than went in: the transpose of a strided convolution.
    row, column = (
      _Step(s.dilation, s.stride, n - 1 - s.before)
      for n, s in zip(kernel.shape, steps, strict=False)
    )
    kernel = transpose_kernel(kernel)
    wide, axes = _wide_kernel(kernel, outside, inside, (row, column))
    return _spread(axes, values, wide.astype(values.dtype))
  wide, axes = _wide_kernel(kernel, inside, outside, steps)
  wide = wide.astype(values.dtype)
  if axes[0].stride == axes[1].stride == 1:
    return _convolve(axes, values, wide)
  return _gather(axes, values, wide)


def _wide_kernel(
  kernel: Array, inside: Size, outside: Size, steps: tuple[_Step, _Step]
) -> tuple[Array, _Axes]:
  """The kernel over blocks, and how it moves."""
  places, axes = zip(
    *(
      _places(n, i, o, step)
      for n, i, o, step in zip(kernel.shape, inside, outside, steps, strict=False)
    ),
    strict=True,
  )
  rows, columns = (p.astype(kernel.dtype) for p in places)
  wide = jnp.einsum(
    'aixt,bjyu,tuco->abijcxyo', rows, columns, kernel, precision=lax.Precision.HIGHEST
  )
  a, b, i, j, c, x, y, o = wide.shape
  return wide.reshape(a, b, i * j * c, x * y * o), axes


def _places(
  taps: int, inside: int, outside: int, step: _Step
) -> tuple[np.ndarray, _Axis]:
  """Where the taps of a kernel of pixels are in one over blocks, along an axis.

  Returns:
    Zeros and ones [taps over blocks, pixel in, pixel out, taps], and the axis.
  """
  reads = [
    (divmod((r * step.stride + t - step.before) // step.dilation, inside), r, t)
    for r in range(outside)
    for t in range(taps)
    if (r * step.stride + t - step.before) % step.dilation == 0
  ]
  first, last = (f(block for (block, _), _, _ in reads) for f in (min, max))
  places = np.zeros((last - first + 1, inside, outside, taps))
  for (block, pixel), r, t in reads:
    places[block - first, pixel, r, t] = 1
  stride = step.stride * outside // (step.dilation * inside)
  return places, _Axis(stride, (-first, last - stride + 1))


def _convolve(axes: _Axes, x: Array, kernel: Array) -> Array:
  strides, pads = [a.stride for a in axes], [a.pads for a in axes]
  return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=NHWC)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(axes: _Axes, x: Array, kernel: Array) -> Array:
  """A convolution with strides, whose gradient by x is `_spread`."""
  return _convolve(axes, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(axes: _Axes, y: Array, kernel: Array) -> Array:
  """The transpose of `_gather` by x: one convolution per place between the strides.

  JAX's own transpose dilates y with zeros, which a TPU multiplies.
  """
  total: Any = 0
  for place in np.ndindex(*(axis.stride for axis in axes)):
    # A TPU adds zeros faster than it interleaves blocks.
    part, none = _spread_part(axes, place, y, kernel), (0, 0, 0)
    gaps = [
      (at, axis.stride - 1 - at, axis.stride - 1)
      for at, axis in zip(place, axes, strict=True)
    ]
    total += lax.pad(part, jnp.zeros((), y.dtype), (none, *gaps, none))
  return total


def _spread_part(axes: _Axes, place: tuple[int, ...], y: Array, kernel: Array) -> Array:
  """The blocks of x at one place between the strides of both axes."""
  pads = []
  for i, ((stride, (before, _)), at) in enumerate(zip(axes, place, strict=True)):
    start = (at + before) % stride
    kernel = lax.rev(lax.slice_in_dim(kernel, start, None, stride, axis=i), (i,))
    after = (at + before) // stride
    pads.append((kernel.shape[i] - 1 - after, after))
  kernel = kernel.swapaxes(2, 3)
  return lax.conv_general_dilated(y, kernel, (1, 1), pads, dimension_numbers=NHWC)


def _gather_backward(
  axes: _Axes, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  x, kernel = residuals
  _, by_kernel = jax.vjp(lambda k: _convolve(axes, x, k), kernel)
  return _spread(axes, g, kernel), by_kernel(g)[0]


def _spread_backward(
  axes: _Axes, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  y, kernel = residuals
  _, by_kernel = jax.vjp(lambda k: _convolve(axes, g, k), kernel)
  return _gather(axes, g, kernel), by_kernel(y)[0]


_gather.defvjp(
  lambda axes, x, kernel: (_gather(axes, x, kernel), (x, kernel)), _gather_backward
)
_spread.defvjp(
  lambda axes, y, kernel: (_spread(axes, y, kernel), (y, kernel)), _spread_backward
)


# A blur composed with a convolution.


def _composes(taps: Taps) -> bool:
  """Whether a blur is short enough for `_border_terms`."""
  return len(taps) == 3


def _blur_kernel(kernel: Array, taps: Taps, axis: int) -> Array:
  """The kernel that also blurs along an axis: two more taps."""
  pads = [(0, 0)] * kernel.ndim
  pads[axis] = 2, 2
  padded, size = jnp.pad(kernel, pads), kernel.shape[axis] + 2
  parts = [
    lax.slice_in_dim(padded, i, i + size, axis=axis) * (tap / sum(taps))
    for i, tap in enumerate(taps[::-1])
  ]
  return sum(parts[1:], parts[0])


def _blurred(
  x: FeatureMap, kernel: Array, taps: Taps, after: Size, step: _Step, first: bool
) -> FeatureMap:
  """Blur and convolution as one window over blocks.

  Args:
    x: the map.
    kernel: of pixels, without the blur.
    taps: of the blur; () for none.
    after: the block of the result.
    step: of the kernel.
    first: whether the blur comes before the convolution, else after it.
  """
  kernel = kernel.astype(accumulation_dtype(kernel.dtype))
  if not taps:
    y = _window(values_of(x), kernel, size_of(x), after, (step, step))
    return _as_map(y, after)
  wide = step._replace(before=step.before + 1)
  both = _blur_kernel(_blur_kernel(kernel, taps, 0), taps, 1)
  y = _window(values_of(x), both, size_of(x), after, (wide, wide))
  for term in _border_terms(x, kernel, taps, after, step, first):
    y += term
  return _as_map(y, after)


def _border_terms(
  x: FeatureMap, kernel: Array, taps: Taps, after: Size, step: _Step, first: bool
) -> Iterator[Array]:
  """What to add to the composed convolution of x at the four borders.

  One pixel beyond the border, the map between blur and convolution is zero. The
  composed kernel takes it for what the other operation gives there, which comes from
  the outermost pixels of x alone, and goes to the outermost pixels of the result.
  """
  shape = tuple(n * step.dilation // step.stride for n in x.shape[1:3])
  shape = tuple(n // k for n, k in zip(shape, after, strict=True))
  wide = step._replace(before=step.before + 1)
  n = step.dilation  # pixels that come of one pixel
  for end in range(2):
    tap = taps[2 if (end == 0) == first else 0] / -sum(taps)
    edge = 0 if (end == 0) == first else len(kernel) - 1
    row, column = _outermost(x, 0, end), _outermost(x, 1, end)
    by_row = kernel[edge : edge + 1] * tap
    if first:
      row = resampling.blur_along(row, taps, 2)
    y = _window(row, by_row, PIXEL, (1, n), (_SAME, step))
    y = y.reshape(y.shape[0], 1, -1, kernel.shape[-1])
    if not first:
      y = resampling.blur_along(y, taps, 2)
    yield _at_end(y, after, shape, 0, end)
    by_column = _blur_kernel(kernel[:, edge : edge + 1] * tap, taps, 0)
    y = _window(column, by_column, PIXEL, (n, 1), (wide, _SAME))
    yield _at_end(y, after, shape, 1, end)


def _outermost(x: FeatureMap, axis: int, end: int) -> Array:
  """The first (end 0) or last row (axis 0) or column of pixels, with that axis kept."""
  (b, _, _, c), values, size = x.shape, values_of(x), size_of(x)
  n = values.shape[1 + axis]
  strip = lax.slice_in_dim(values, end * (n - 1), end * (n - 1) + 1, axis=1 + axis)
  strip = strip.reshape(*strip.shape[:3], *size, c)
  at = end * (size[axis] - 1)
  strip = lax.slice_in_dim(strip, at, at + 1, axis=3 + axis)
  return strip.reshape(b, 1, -1, c) if axis == 0 else strip.reshape(b, -1, 1, c)


def _at_end(
  y: Array, after: Size, shape: tuple[int, ...], axis: int, end: int
) -> Array:
  """The blocks [b, *shape, n] that are zero outside a first or last row or column.

  Args:
    y: the row [b, 1, w, o] or column [b, h, 1, o], in any split of its last two axes.
    after: the block.
    shape: height and width in blocks.
    axis: 0 for a row, 1 for a column.
    end: 0 for the first, 1 for the last.
  """
  strip = (1, shape[1], 1, after[1]) if axis == 0 else (shape[0], 1, after[0], 1)
  y = _pad_end(y.reshape(y.shape[0], *strip, -1), 3 + axis, after[axis], end)
  # Few dimensions, so that the sum with a convolution fuses.
  return _pad_end(y.reshape(*y.shape[:3], -1), 1 + axis, shape[axis], end)


def _pad_end(y: Array, axis: int, n: int, end: int) -> Array:
  """Zeros after (end 0) or before the one entry along an axis, to n entries."""
  pads = [(0, 0, 0)] * y.ndim
  pads[axis] = (0, n - 1, 0) if end == 0 else (n - 1, 0, 0)
  return lax.pad(y, jnp.zeros((), y.dtype), pads)
