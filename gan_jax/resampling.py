"""Convolutions that double or halve a map, in forms that suit the device."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.convolution import NHWC, conv, conv_by_two, platform


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
  A 1x1 kernel commutes with the repetition, or writes four pixels itself.
  """
  if kernel.shape[:2] == (1, 1):
    if platform() == 'tpu':
      return _four_times(x, kernel)
    return upsample(conv(x, kernel))
  form = up_form(platform(), *_images_and_width(x))
  return conv(upsample(x), kernel) if form == 'plain' else _doubled(form, x, kernel)


def down_conv(x: Array, kernel: Array) -> Array:
  """`downsample(conv(x, kernel))`, in the form that suits the device; folded it is one
  strided convolution, whose kernel is the mean of four shifted ones."""
  if kernel.shape[:2] == (1, 1):
    if platform() != 'tpu':
      return conv(downsample(x), kernel)
    four = jnp.broadcast_to(kernel / 4, (2, 2, *kernel.shape[2:]))
    return conv_by_two(x, four, 0)
  form = down_form(platform(), *_images_and_width(x))
  if form == 'plain':
    return downsample(conv(x, kernel))
  folded = _shifted_sum(kernel) / 4
  return _strided(x, folded) if form == 'phases' else conv_by_two(x, folded, 1)


def up_form(device: str, images: int, width: int) -> str:
  """The fastest form of `up_conv` for so many images of this width, on such a device.

  Folding pays where pictures outweigh kernels, which are the larger the smaller the
  map is. On a CPU it always does (experiments/throughput); on a TPU as estimated by
  its compiler (experiments/step_speed), for which a dilated convolution is only half
  filled by fewer than 16 images.
  """
  if device == 'cpu':
    return 'phases'
  if device != 'tpu' or images * width**2 < 2**11:
    return 'plain'
  return 'dilated' if images >= 16 else 'phases'


def down_form(device: str, images: int, width: int) -> str:
  """As `up_form`, for the input of `down_conv`."""
  if device == 'cpu':
    return 'phases'
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
  b, h, w, _ = x.shape

  def phase(i: int, j: int) -> Array:
    pads = ((1 - i, i), (1 - j, j))
    return lax.conv_general_dilated(
      x, kernels[i, j], (1, 1), pads, dimension_numbers=NHWC
    )

  if platform() == 'tpu':  # where adding zeros is cheaper than moving pixels
    zero = jnp.zeros((), x.dtype)
    none = (0, 0, 0)
    spread = [
      lax.pad(phase(i, j), zero, (none, (i, 1 - i, 1), (j, 1 - j, 1), none))
      for i in range(2)
      for j in range(2)
    ]
    return sum(spread[1:], spread[0])
  rows = [jnp.stack([phase(i, 0), phase(i, 1)], 3) for i in range(2)]
  return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, kernels.shape[-1])


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
    turned = _shifted_sum(kernel[::-1, ::-1].swapaxes(2, 3))
    return conv_by_two(g, turned, 1)

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


@jax.custom_vjp
def _strided(x: Array, kernel: Array) -> Array:
  """A 4x4 convolution of stride 2; its input gradient is the transposed one, which
  a CPU runs fastest as four 2x2 convolutions rather than as one over dilated zeros."""
  return conv_by_two(x, kernel, 1)


def _strided_forward(x, kernel):
  return _strided(x, kernel), (x, kernel)


def _strided_backward(saved, g):
  x, kernel = saved
  taps = kernel.swapaxes(2, 3)
  phases = [
    jnp.stack([taps[1 - i :: 2, 1 - j :: 2][::-1, ::-1] for j in range(2)])
    for i in range(2)
  ]
  _, by_kernel = jax.vjp(lambda k: conv_by_two(x, k, 1), kernel)
  return _interleaved(g, jnp.stack(phases)), by_kernel(g)[0]


_strided.defvjp(_strided_forward, _strided_backward)
