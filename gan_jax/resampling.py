"""Convolutions, and those that double or halve a map, in forms that suit the device."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax import winograd


def platform() -> str:
  """Of the devices of the mesh that is traced for, such as 'cpu', 'tpu' or 'gpu'.

  Outside a mesh this machine's; '' under a mesh of no devices in particular, for
  which every layer takes the form it is defined by.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.default_backend()
  device = mesh.abstract_device
  return device.platform if device else ''


def upsample(x: Array) -> Array:
  """Nearest neighbour, [b, h, w, c] -> [b, 2h, 2w, c]."""
  b, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
  return x.reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
  """Mean over 2x2 boxes, [b, h, w, c] -> [b, h/2, w/2, c]."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


_NHWC = ('NHWC', 'HWIO', 'NHWC')
_THIN = 4  # channels: those of pictures
_IN_CACHE = 2**21  # values of a map of which a CPU's caches keep two


def conv(x: Array, kernel: Array) -> Array:
  """Stride 1, zero padding to the same size, [k, k, c, o] with an odd k."""
  cpu, (size, _, c, o) = platform() == 'cpu', kernel.shape
  if size == 1 and not (cpu and c <= _THIN):
    return x @ kernel[0, 0]
  if cpu and o <= _THIN:
    return _thin(x, kernel)
  if cpu and winograd_pays(x, kernel):
    return winograd.conv(x, kernel)
  return _convolved(x, kernel, 1, size // 2)


def winograd_pays(x: Array, kernel: Array) -> bool:
  """On a CPU: for pictures that outweigh kernels, and channels that outweigh pictures
  (experiments/peer_speed). A batch of any size, as in an export, counts as none."""
  b, h, w, _ = x.shape
  fits = kernel.shape[:2] == (3, 3) and h % winograd.TILE == w % winograd.TILE == 0
  many = isinstance(b, int) and b * h * w >= 2**13
  return fits and many and min(kernel.shape[2:]) >= 256 and x.dtype == jnp.float32


def _convolved(x: Array, kernel: Array, stride: int, pad: int) -> Array:
  if platform() == 'cpu':
    return _in_turns(x, kernel, stride, pad)
  return _convolution(x, kernel, stride, pad)


def _convolution(x: Array, kernel: Array, stride: int, pad: int) -> Array:
  steps, pads = (stride, stride), ((pad, pad), (pad, pad))
  return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=_NHWC)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _in_turns(x: Array, kernel: Array, stride: int, pad: int) -> Array:
  """A convolution whose kernel's gradient takes a few images at a time.

  A CPU turns both maps over for it, to channels first and batch last, in steps of a
  whole image; more of those than find room in its caches make it several times slower.
  """
  return _convolution(x, kernel, stride, pad)


def _in_turns_forward(x, kernel, stride, pad):
  return _convolution(x, kernel, stride, pad), (x, kernel)


def _in_turns_backward(stride, pad, saved, g):
  x, kernel = saved
  if stride == 1:
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    by_x = conv(g, turned)
  else:
    by_x = jax.vjp(lambda x: _convolution(x, kernel, stride, pad), x)[1](g)[0]
  n = max(_IN_CACHE // math.prod(x.shape[1:]), 1)
  by_kernel = [
    jax.vjp(lambda k, i=i: _convolution(x[i : i + n], k, stride, pad), kernel)[1](
      g[i : i + n]
    )[0]
    for i in range(0, len(x), n)
  ]
  return by_x, sum(by_kernel[1:], by_kernel[0])


_in_turns.defvjp(_in_turns_forward, _in_turns_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _patches(x: Array, size: int) -> Array:
  """[b, h, w, c] -> [b, h, w, size * size * c]: what a kernel sees at each pixel."""
  (_, h, w, _), r = x.shape, size // 2
  x = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
  seen = [x[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
  return jnp.concatenate(seen, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _overlapped(y: Array, size: int) -> Array:
  """The transpose of `_patches`: every pixel adds its patch to the map."""
  (b, h, w, _), r = y.shape, size // 2
  y = jnp.pad(y, ((0, 0), (r, r), (r, r), (0, 0))).reshape(
    b, h + 2 * r, w + 2 * r, size, size, -1
  )
  moved = [
    y[:, 2 * r - i : 2 * r - i + h, 2 * r - j : 2 * r - j + w, i, j]
    for i in range(size)
    for j in range(size)
  ]
  return sum(moved[1:], moved[0])


_patches.defvjp(
  lambda x, size: (_patches(x, size), None), lambda size, _, g: (_overlapped(g, size),)
)
_overlapped.defvjp(
  lambda y, size: (_overlapped(y, size), None), lambda size, _, g: (_patches(g, size),)
)


def _thin(x: Array, kernel: Array) -> Array:
  """`conv` to the few channels of pictures, as one product and additions."""
  size, _, c, _ = kernel.shape
  turned = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(c, -1)
  return _overlapped(x @ turned, size)


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
  if up_form(platform(), x.shape[2]) == 'plain':
    return conv(upsample(x), kernel)
  return _phased(x, kernel)


def down_conv(x: Array, kernel: Array) -> Array:
  """`downsample(conv(x, kernel))`, in the form that suits the device; folded it is one
  strided convolution, whose kernel is the mean of four shifted ones."""
  if kernel.shape[:2] == (1, 1):
    if platform() != 'tpu':
      return conv(downsample(x), kernel)
    four = jnp.broadcast_to(kernel / 4, (2, 2, *kernel.shape[2:]))
    return _convolved(x, four, 2, 0)
  form = down_form(platform(), x.shape[2])
  if form == 'plain':
    return downsample(conv(x, kernel))
  folded = _shifted_sum(kernel) / 4
  return _strided(x, folded) if form == 'phases' else _convolved(x, folded, 2, 1)


def up_form(device: str, size: int) -> str:
  """The fastest form of `up_conv` for an input of this width on this kind of device.

  Folding pays where pictures outweigh kernels, which are the larger the smaller the
  map is. On a CPU it always does (experiments/throughput); on a TPU as estimated by
  its compiler (experiments/step_speed).
  """
  if device == 'cpu' or (device == 'tpu' and size > 8):
    return 'phases'
  return 'plain'


def down_form(device: str, size: int) -> str:
  """As `up_form`, for the input of `down_conv`."""
  if device == 'cpu':
    return 'phases'
  return 'strided' if device == 'tpu' and size > 16 else 'plain'


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
      x, kernels[i, j], (1, 1), pads, dimension_numbers=_NHWC
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


@jax.custom_vjp
def _phased(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` by the four parities of its pixels.

  It is the transpose of a 4x4 convolution of stride 2, which its gradients are by.
  """
  return _interleaved(x, _parity_kernels(kernel))


def _phased_forward(x, kernel):
  return _phased(x, kernel), (x, kernel)


def _phased_backward(saved, g):
  x, kernel = saved

  def transposed(kernel):
    turned = _shifted_sum(kernel[::-1, ::-1].swapaxes(2, 3))
    return _convolved(g, turned, 2, 1)

  by_x, by_kernel = jax.vjp(transposed, kernel)
  return by_x, by_kernel(x)[0]


_phased.defvjp(_phased_forward, _phased_backward)


@jax.custom_vjp
def _four_times(x: Array, kernel: Array) -> Array:
  """`upsample(conv(x, kernel))` for a 1x1 kernel, which writes four pixels itself."""
  pads = ((1, 1), (1, 1))
  four = jnp.broadcast_to(kernel, (2, 2, *kernel.shape[2:]))
  return lax.conv_general_dilated(
    x, four, (1, 1), pads, (2, 2), dimension_numbers=_NHWC
  )


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
  return _convolved(x, kernel, 2, 1)


def _strided_forward(x, kernel):
  return _strided(x, kernel), (x, kernel)


def _strided_backward(saved, g):
  x, kernel = saved
  taps = kernel.swapaxes(2, 3)
  phases = [
    jnp.stack([taps[1 - i :: 2, 1 - j :: 2][::-1, ::-1] for j in range(2)])
    for i in range(2)
  ]
  _, by_kernel = jax.vjp(lambda k: _convolved(x, k, 2, 1), kernel)
  return _interleaved(g, jnp.stack(phases)), by_kernel(g)[0]


_strided.defvjp(_strided_forward, _strided_backward)
