"""Upsampling, downsampling and their fusion with convolutions; NHWC and HWIO."""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import image_products
from gan_jax.ops.convolution import NHWC, conv, conv_stride2, matmul
from gan_jax.ops.platform import device_kind, platform
from gan_jax.ops.winograd import transpose_kernel

UpForm = Literal['plain', 'products', 'dilated', 'phases', 'transposed']
DownForm = Literal['plain', 'products', 'strided']


def upsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b 2*h 2*w c']:
  """Nearest-neighbour upsampling by 2."""
  b, h, w, c = x.shape
  if image_products.as_products(2 * w, c):
    return image_products.upsample(x)
  x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
  return x.reshape(b, 2 * h, 2 * w, c)


def downsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b h/2 w/2 c']:
  """Mean over boxes of 2x2 pixels."""
  b, h, w, c = x.shape
  if image_products.as_products(w, c):
    return image_products.downsample(x)
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def up_conv(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k k c o'],
  form: UpForm | None = None,
) -> Float[Array, 'b 2*h 2*w o']:
  """`conv(upsample(x), kernel)` for a 3x3 or 1x1 kernel.

  An output pixel of a 3x3 kernel depends on two distinct input rows and columns. The
  kernel therefore folds into a 2x2 kernel for each of the four pixel parities, with 4/9
  of the multiplications. Products that the parities share reduce them to 1/4.

  Args:
    form: how a 3x3 kernel is applied; None for the fastest form, `up_form`.
      plain: `upsample`, then `conv`. products: nine products per input pixel.
      dilated: one 4x4 convolution of the dilated input. phases: one 2x2 convolution per
      parity. transposed: 'dilated' as cuDNN's input gradient of a convolution.
  """
  if kernel.shape[:2] == (1, 1):
    if platform() == 'tpu':
      return _conv_1x1_upsample(x, kernel)
    return upsample(conv(x, kernel))
  form = form or up_form(platform(), *_images_and_width(x), device_kind())
  if form == 'plain':
    return conv(upsample(x), kernel)
  if form == 'products':
    return _upsample_conv_products(x, kernel)
  return _upsample_conv(form, x, kernel)


def down_conv(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k k c o'],
  form: DownForm | None = None,
) -> Float[Array, 'b h/2 w/2 o']:
  """`downsample(conv(x, kernel))` for a 3x3 or 1x1 kernel.

  Args:
    form: how a 3x3 kernel is applied; None for the fastest form, `down_form`.
      plain: `conv`, then `downsample`. strided: one 4x4 convolution of stride 2, whose
      kernel is the mean of four shifted ones. products: the transpose of `up_conv`'s.
  """
  if kernel.shape[:2] == (1, 1):
    if platform() != 'tpu':
      return conv(downsample(x), kernel)
    four = jnp.broadcast_to(kernel / 4, (2, 2, *kernel.shape[2:]))
    return conv_stride2(x, four, 0)
  form, o = form or down_form(platform(), *_images_and_width(x)), kernel.shape[-1]
  if form == 'plain':
    return downsample(conv(x, kernel))
  if form == 'products':
    products = _gather_products(x)
    return matmul(products, _nine_taps(kernel[::-1, ::-1] / 4, 0).reshape(-1, o))
  return conv_stride2(x, _opaque(shifted_sum(kernel) / 4), 1)


def up_form(device: str, images: int, width: int, kind: str = '') -> UpForm:
  """The fastest form of `up_conv`.

  Folding costs work for each kernel, so it pays where feature maps are larger than
  kernels. On a CPU it always pays (measured, experiments/peer_speed). The limits for
  TPUs are estimates of the compiler (experiments/step_speed): a dilated convolution of
  fewer than 16 images uses half of the TPU's matrix unit, and one on a TPU v4 takes
  twice the cycles of phases. The limit for GPUs is where the multiplications that are
  saved outweigh a kernel of 16 instead of 9 taps.

  Args:
    device: the platform.
    images: size of the batch.
    width: of the input in pixels.
    kind: the model of the device.
  """
  if device == 'cpu':
    return 'products'
  if device == 'gpu':
    return 'transposed' if images * width**2 >= 2**9 else 'plain'
  if device != 'tpu' or images * width**2 < 2**11:
    return 'plain'
  return 'dilated' if images >= 16 and kind != 'TPU v4' else 'phases'


def down_form(device: str, images: int, width: int) -> DownForm:
  """The fastest form of `down_conv`; arguments as in `up_form`, on any model."""
  if device == 'cpu':
    return 'products'
  least = {'tpu': 2**12, 'gpu': 2**11}.get(device)
  return 'strided' if least and images * width**2 >= least else 'plain'


def _opaque(kernel: Array) -> Array:
  """A folded kernel that XLA:GPU does not look into.

  It would move the reversal of the input gradient into the sum, and no longer see that
  cuDNN has that gradient: it would write the dilated feature map instead.
  """
  return lax.optimization_barrier(kernel) if platform() == 'gpu' else kernel


def _images_and_width(x: Array) -> tuple[int, int]:
  """Batch size of x, and the width of a square map of as many pixels.

  A batch of symbolic size, as in an export, counts 8.
  """
  width = math.isqrt(x.shape[1] * x.shape[2])
  return (x.shape[0] if isinstance(x.shape[0], int) else 8), width


def shifted_sum(kernel: Array) -> Array:
  """3x3 -> 4x4 kernel: the sum of the kernel at four offsets.

  It convolves after nearest-neighbour upsampling; divided by 4, before a 2x2 mean.
  """
  padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  shifted = [padded[i : i + 4, j : j + 4] for i in range(2) for j in range(2)]
  return sum(shifted[1:], shifted[0])


def _parity_kernels(kernel: Array) -> Array:
  """3x3 -> [2, 2, 2, 2, c, o]: the 2x2 kernel of output pixels of each parity."""
  k0, k1, k2 = kernel
  rows = jnp.stack([jnp.stack([k0, k1 + k2]), jnp.stack([k0 + k1, k2])])
  k0, k1, k2 = jnp.moveaxis(rows, 2, 0)
  return jnp.stack([jnp.stack([k0, k1 + k2], 2), jnp.stack([k0 + k1, k2], 2)], 1)


def _conv_parities(x: Array, kernels: Array) -> Array:
  """[b, h, w, c] -> [b, 2h, 2w, o]: kernels[i, j] gives the pixels of parity (i, j).

  Parity 0 reads the previous row (column), parity 1 the next one.
  """

  def pixels(i: int, j: int) -> Array:
    pads = ((1 - i, i), (1 - j, j))
    return lax.conv_general_dilated(
      x, kernels[i, j], (1, 1), pads, dimension_numbers=NHWC
    )

  zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
  dilated = [  # a TPU adds zeros faster than it interleaves pixels
    lax.pad(pixels(i, j), zero, (none, (i, 1 - i, 1), (j, 1 - j, 1), none))
    for i in range(2)
    for j in range(2)
  ]
  return sum(dilated[1:], dilated[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _upsample_conv(form: UpForm, x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` in the form 'phases', 'dilated' or 'transposed'.

  All equal the transpose of a 4x4 convolution of stride 2, which gives the gradients.
  """
  if form == 'phases':
    return _conv_parities(x, _parity_kernels(kernel))
  pads = ((2, 2), (2, 2))
  if form == 'transposed':
    four = _opaque(shifted_sum(kernel[::-1, ::-1]))[::-1, ::-1]
  else:
    four = shifted_sum(kernel)
  return lax.conv_general_dilated(x, four, (1, 1), pads, (2, 2), dimension_numbers=NHWC)


def _upsample_conv_forward(
  form: UpForm, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _upsample_conv(form, x, kernel), (x, kernel)


def _upsample_conv_backward(
  form: UpForm, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  del form
  x, kernel = residuals

  def transposed(kernel: Array) -> Array:
    return conv_stride2(g, _opaque(shifted_sum(transpose_kernel(kernel))), 1)

  by_x, by_kernel = jax.vjp(transposed, kernel)
  return by_x, by_kernel(x)[0]


_upsample_conv.defvjp(_upsample_conv_forward, _upsample_conv_backward)


@jax.custom_vjp
def _conv_1x1_upsample(x: Array, kernel: Array) -> Array:
  """`upsample(conv(x, kernel))` for a 1x1 kernel, as a dilated 2x2 convolution."""
  pads = ((1, 1), (1, 1))
  four = jnp.broadcast_to(kernel, (2, 2, *kernel.shape[2:]))
  return lax.conv_general_dilated(x, four, (1, 1), pads, (2, 2), dimension_numbers=NHWC)


def _conv_1x1_upsample_backward(
  residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  box = 1, 2, 2, 1
  four = lax.reduce_window(g, jnp.zeros((), g.dtype), lax.add, box, box, 'VALID')
  return jax.vjp(conv, *residuals)[1](four)


_conv_1x1_upsample.defvjp(
  lambda x, kernel: (_conv_1x1_upsample(x, kernel), (x, kernel)),
  _conv_1x1_upsample_backward,
)


# The form 'products', for CPUs: nine products per input pixel.
#
# Along one axis, a kernel with taps k0, k1, k2 and their sum s makes two output pixels
# of input pixel i:
#   even: s x[i] - k0 x[i] + k0 x[i-1]
#   odd:  s x[i] - k2 x[i] + k2 x[i+1]
# They need the three products s x, k0 x and k2 x of each input pixel.


def _nine_taps(kernel: Array, axis: int) -> Array:
  """3x3 -> [9, c, o] (axis 0) or [c, 9, o] (axis 1): s, k0 and k2 along both axes."""
  three = lambda k: [k[0] + k[1] + k[2], k[0], k[2]]
  return jnp.stack([tap for row in three(kernel) for tap in three(row)], axis)


def _upsample_conv_products(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)`."""
  taps = _nine_taps(kernel, 1).reshape(x.shape[-1], -1)
  return _scatter_products(matmul(x, taps))


@jax.custom_vjp
def _scatter_products(y: Array) -> Array:
  """[b, h, w, 9 o] -> [b, 2h, 2w, o]: adds each product to its output pixels."""
  b, h, w, c = y.shape
  y = y.reshape(b, h, w, 3, 3, c // 9)

  def along(axis: int, y: Array) -> Array:
    s, first, last = (y[..., i, :] for i in range(3))
    even = s - first + _shift(first, axis, -1)
    return jnp.stack([even, s - last + _shift(last, axis, 1)], axis + 1)

  return along(1, lax.optimization_barrier(along(2, y))).reshape(b, 2 * h, 2 * w, -1)


@jax.custom_vjp
def _gather_products(x: Array) -> Array:
  """[b, 2h, 2w, c] -> [b, h, w, 9 c]: the transpose of `_scatter_products`."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, c)

  def along(axis: int, even: Array, odd: Array) -> Array:
    first, last = _shift(even, axis, 1) - even, _shift(odd, axis, -1) - odd
    return jnp.stack([even + odd, first, last], axis + 2)

  y = lax.optimization_barrier(along(1, x[:, :, 0], x[:, :, 1]))
  return along(2, y[..., 0, :], y[..., 1, :]).reshape(b, h // 2, w // 2, -1)


def _shift(x: Array, axis: int, step: int) -> Array:
  """x[i + step] along an axis, with zeros beyond the border."""
  before, after = max(-step, 0), max(step, 0)
  pads = [(0, 0)] * x.ndim
  pads[axis] = before, after
  return lax.slice_in_dim(jnp.pad(x, pads), after, after + x.shape[axis], axis=axis)


_scatter_products.defvjp(
  lambda y: (_scatter_products(y), None), lambda _, g: (_gather_products(g),)
)
_gather_products.defvjp(
  lambda x: (_gather_products(x), None), lambda _, g: (_scatter_products(g),)
)


def blur(
  x: Float[Array, 'b h w c'], taps: tuple[int, ...] = (1, 2, 1)
) -> Float[Array, 'b h w c']:
  """Separable low-pass filter with zero padding to the same size.

  `taps` are normalized to a sum of 1. Forward and gradient are shifts and additions:
  XLA:CPU is slow at depthwise convolutions and at transposed slices, and cuDNN at the
  second derivatives of depthwise convolutions.
  """
  before = (len(taps) - 1) // 2
  return _blur(x, taps, before)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _blur(x: Array, taps: tuple[int, ...], before: int) -> Array:
  n, total = len(taps), sum(taps)
  if platform() == 'gpu':  # one kernel; for two, a feature map more is written and read
    (_, h, w, _), ends = x.shape, (before, n - 1 - before)
    padded = jnp.pad(x, ((0, 0), ends, ends, (0, 0)))
    terms = [
      padded[:, i : i + h, j : j + w] * (row * column / total**2)
      for i, row in enumerate(taps)
      for j, column in enumerate(taps)
    ]
    return sum(terms[1:], terms[0])
  return blur_along(blur_along(x, taps, 1, before), taps, 2, before)


def blur_along(
  x: Float[Array, 'b h w c'], taps: tuple[int, ...], axis: int, before: int = 1
) -> Float[Array, 'b h w c']:
  """`blur` along one axis, where the first tap reads `before` pixels back."""
  n, total = len(taps), sum(taps)
  pads = [(before, n - 1 - before) if a == axis else (0, 0) for a in range(4)]
  padded, size = jnp.pad(x, pads), x.shape[axis]
  shifted = [
    lax.slice_in_dim(padded, i, i + size, axis=axis) * (tap / total)
    for i, tap in enumerate(taps)
  ]
  return sum(shifted[1:], shifted[0])


_blur.defvjp(
  lambda x, taps, before: (_blur(x, taps, before), None),
  lambda taps, before, _, g: (_blur(g, taps[::-1], len(taps) - 1 - before),),
)
