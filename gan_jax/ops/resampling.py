"""Convolutions that double or halve a map, in forms that suit the device."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.ops.convolution import NHWC, conv, conv_by_two, platform, product
from gan_jax.ops.winograd import transpose_kernel


def upsample(x: Array) -> Array:
  """Nearest neighbour, [b, h, w, c] -> [b, 2h, 2w, c]."""
  b, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
  return x.reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
  """Mean over 2x2 boxes, [b, h, w, c] -> [b, h/2, w/2, c]."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def up_conv(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` for a 3x3 kernel, in the form that suits the device.

  Every output pixel of one parity sees only two distinct input rows and columns, so
  the 3x3 kernel folds into a 2x2 kernel for each parity: 4/9 of the multiplications.
  The parities share products: 1/4 of them. A 1x1 kernel commutes with the repetition,
  or writes four pixels itself.
  """
  if kernel.shape[:2] == (1, 1):
    if platform() == 'tpu':
      return _four_times(x, kernel)
    return upsample(conv(x, kernel))
  form = up_form(platform(), *_images_and_width(x))
  if form == 'plain':
    return conv(upsample(x), kernel)
  return _by_products(x, kernel) if form == 'products' else _doubled(form, x, kernel)


def down_conv(x: Array, kernel: Array) -> Array:
  """`downsample(conv(x, kernel))`, in the form that suits the device: one strided
  convolution, whose kernel is the mean of four shifted ones, or the products of
  `up_conv` the other way round."""
  if kernel.shape[:2] == (1, 1):
    if platform() != 'tpu':
      return conv(downsample(x), kernel)
    four = jnp.broadcast_to(kernel / 4, (2, 2, *kernel.shape[2:]))
    return conv_by_two(x, four, 0)
  form, o = down_form(platform(), *_images_and_width(x)), kernel.shape[-1]
  if form == 'plain':
    return downsample(conv(x, kernel))
  if form == 'products':
    return product(_gathered(x), _nine(kernel[::-1, ::-1] / 4, 0).reshape(-1, o))
  return conv_by_two(x, _shifted_sum(kernel) / 4, 1)


def up_form(device: str, images: int, width: int) -> str:
  """The fastest form of `up_conv` for so many images of this width, on such a device.

  Folding pays where pictures outweigh kernels, which are the larger the smaller the
  map is. On a CPU it always does (experiments/peer_speed); on a TPU as estimated by
  its compiler (experiments/step_speed), for which a dilated convolution is only half
  filled by fewer than 16 images.
  """
  if device == 'cpu':
    return 'products'
  if device != 'tpu' or images * width**2 < 2**11:
    return 'plain'
  return 'dilated' if images >= 16 else 'phases'


def down_form(device: str, images: int, width: int) -> str:
  """As `up_form`, for the input of `down_conv`."""
  if device == 'cpu':
    return 'products'
  return 'strided' if device == 'tpu' and images * width**2 >= 2**12 else 'plain'


def _images_and_width(x: Array) -> tuple[int, int]:
  """A batch of any size, as in an export, counts as 8."""
  return (x.shape[0] if isinstance(x.shape[0], int) else 8), x.shape[2]


def _shifted_sum(kernel: Array) -> Array:
  """3x3 -> 4x4: the kernel after nearest-2x, or four times that before a 2x2 mean."""
  padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  shifted = [padded[i : i + 4, j : j + 4] for i in range(2) for j in range(2)]
  return sum(shifted[1:], shifted[0])


def _parity_kernels(kernel: Array) -> Array:
  """3x3 -> [2, 2, 2, 2, c, o]: for each parity (i, j) of an output pixel its 2x2."""
  k0, k1, k2 = kernel
  rows = jnp.stack([jnp.stack([k0, k1 + k2]), jnp.stack([k0 + k1, k2])])
  k0, k1, k2 = jnp.moveaxis(rows, 2, 0)
  return jnp.stack([jnp.stack([k0, k1 + k2], 2), jnp.stack([k0 + k1, k2], 2)], 1)


def _interleaved(x: Array, kernels: Array) -> Array:
  """[b, h, w, c] -> [b, 2h, 2w, o]: pixels of parity (i, j) by the 2x2 kernels[i, j].

  Parity 0 looks one row (column) back, parity 1 one ahead.
  """

  def phase(i: int, j: int) -> Array:
    pads = ((1 - i, i), (1 - j, j))
    return lax.conv_general_dilated(
      x, kernels[i, j], (1, 1), pads, dimension_numbers=NHWC
    )

  zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
  spread = [  # a TPU adds zeros faster than it moves pixels
    lax.pad(phase(i, j), zero, (none, (i, 1 - i, 1), (j, 1 - j, 1), none))
    for i in range(2)
    for j in range(2)
  ]
  return sum(spread[1:], spread[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _doubled(form: str, x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` by the four parities of its pixels, or dilated.

  It is the transpose of a 4x4 convolution of stride 2, which its gradients are by.
  """
  if form == 'phases':
    return _interleaved(x, _parity_kernels(kernel))
  pads = ((2, 2), (2, 2))
  four = _shifted_sum(kernel)
  return lax.conv_general_dilated(x, four, (1, 1), pads, (2, 2), dimension_numbers=NHWC)


def _doubled_forward(form, x, kernel):
  return _doubled(form, x, kernel), (x, kernel)


def _doubled_backward(form, saved, g):
  del form
  x, kernel = saved

  def transposed(kernel):
    return conv_by_two(g, _shifted_sum(transpose_kernel(kernel)), 1)

  by_x, by_kernel = jax.vjp(transposed, kernel)
  return by_x, by_kernel(x)[0]


_doubled.defvjp(_doubled_forward, _doubled_backward)


@jax.custom_vjp
def _four_times(x: Array, kernel: Array) -> Array:
  """`upsample(conv(x, kernel))` for a 1x1 kernel, which writes four pixels itself."""
  pads = ((1, 1), (1, 1))
  four = jnp.broadcast_to(kernel, (2, 2, *kernel.shape[2:]))
  return lax.conv_general_dilated(x, four, (1, 1), pads, (2, 2), dimension_numbers=NHWC)


def _four_times_forward(x, kernel):
  return _four_times(x, kernel), (x, kernel)


def _four_times_backward(saved, g):
  box = 1, 2, 2, 1
  four = lax.reduce_window(g, jnp.zeros((), g.dtype), lax.add, box, box, 'VALID')
  return jax.vjp(conv, *saved)[1](four)


_four_times.defvjp(_four_times_forward, _four_times_backward)


# On a CPU: nine products for four pixels.
#
# Along one axis, with taps k0, k1 and k2 and their sum s, the pixels made of x[i] are
# s x[i] - k0 x[i] + k0 x[i-1] and s x[i] - k2 x[i] + k2 x[i+1]: of three products.


def _nine(kernel: Array, axis: int) -> Array:
  """3x3 -> [9, c, o], or [c, 9, o]: s, k0 and k2 along the one axis and the other."""
  along = lambda k: [k[0] + k[1] + k[2], k[0], k[2]]
  return jnp.stack([tap for row in along(kernel) for tap in along(row)], axis)


def _by_products(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)`."""
  return _spread(product(x, _nine(kernel, 1).reshape(x.shape[-1], -1)))


@jax.custom_vjp
def _spread(y: Array) -> Array:
  """[b, h, w, 9o] -> [b, 2h, 2w, o]: the products, at the pixels they are part of."""
  b, h, w, c = y.shape
  y = y.reshape(b, h, w, 3, 3, c // 9)

  def along(axis: int, y: Array) -> Array:
    s, first, last = (y[..., i, :] for i in range(3))
    even = s - first + _neighbour(first, axis, -1)
    return jnp.stack([even, s - last + _neighbour(last, axis, 1)], axis + 1)

  return along(1, lax.optimization_barrier(along(2, y))).reshape(b, 2 * h, 2 * w, -1)


@jax.custom_vjp
def _gathered(x: Array) -> Array:
  """The transpose of `_spread`: [b, 2h, 2w, c] -> [b, h, w, 9c]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, c)

  def along(axis: int, even: Array, odd: Array) -> Array:
    first, last = _neighbour(even, axis, 1) - even, _neighbour(odd, axis, -1) - odd
    return jnp.stack([even + odd, first, last], axis + 2)

  y = lax.optimization_barrier(along(1, x[:, :, 0], x[:, :, 1]))
  return along(2, y[..., 0, :], y[..., 1, :]).reshape(b, h // 2, w // 2, -1)


def _neighbour(x: Array, axis: int, step: int) -> Array:
  """x[i + step] along an axis; zero beyond the border."""
  before, after = max(-step, 0), max(step, 0)
  pads = [(0, 0)] * x.ndim
  pads[axis] = before, after
  return lax.slice_in_dim(jnp.pad(x, pads), after, after + x.shape[axis], axis=axis)


_spread.defvjp(lambda y: (_spread(y), None), lambda _, g: (_gathered(g),))
_gathered.defvjp(lambda x: (_gathered(x), None), lambda _, g: (_spread(g),))


def blur(x: Array, taps: tuple[int, ...] = (1, 2, 1)) -> Array:
  """A separable low-pass filter with zero padding to the same size, [b, h, w, c].

  By shifts and additions, as its gradient is: XLA's depthwise convolutions are slow
  on CPU, and so are its transposed slices.
  """
  before = (len(taps) - 1) // 2
  return _blur(x, taps, before)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _blur(x: Array, taps: tuple[int, ...], before: int) -> Array:
  n, total = len(taps), sum(taps)
  for axis in (1, 2):
    pads = [(before, n - 1 - before) if a == axis else (0, 0) for a in range(4)]
    padded, size = jnp.pad(x, pads), x.shape[axis]
    shifted = [
      lax.slice_in_dim(padded, i, i + size, axis=axis) * (tap / total)
      for i, tap in enumerate(taps)
    ]
    x = sum(shifted[1:], shifted[0])
  return x


_blur.defvjp(
  lambda x, taps, before: (_blur(x, taps, before), None),
  lambda taps, before, _, g: (_blur(g, taps[::-1], len(taps) - 1 - before),),
)
