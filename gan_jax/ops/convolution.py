"""Convolutions in forms that suit the device; NHWC and HWIO."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.ops import winograd

NHWC = ('NHWC', 'HWIO', 'NHWC')
_FEW = 4  # channels: those of pictures
_IN_CACHE = 2**21  # values of a map of which a CPU's caches keep two


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


def conv(x: Array, kernel: Array) -> Array:
  """Stride 1, zero padding to the same size, [k, k, c, o] with an odd k."""
  size, _, c, o = kernel.shape
  if platform() == 'cpu':
    if o <= _FEW and size > 1:
      return _added_up(x, kernel)
    if winograd_pays(x, kernel):
      return winograd.conv(x, kernel)
    if size > 1 or c <= _FEW:
      return _in_turns(x, kernel)
    return product(x, kernel[0, 0])
  if size == 1:
    return x @ kernel[0, 0]
  if platform() == 'tpu' and blocks_pay(x, kernel):
    return _in_blocks(x, kernel)
  return _plain(x, kernel, 1, size // 2)


def conv_by_two(x: Array, kernel: Array, pad: int) -> Array:
  """Stride 2; `pad` zeros on every side."""
  return _plain(x, kernel, 2, pad)


def _plain(x: Array, kernel: Array, stride: int, pad: int) -> Array:
  steps, pads = (stride, stride), ((pad, pad), (pad, pad))
  return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=NHWC)


# On a CPU.


@jax.custom_vjp
def product(x: Array, weight: Array) -> Array:
  """x @ weight, [..., c] and [c, o], whose gradients are products of rows as well.

  Differentiated by rule, the weight's would be its transpose's, turned over; and a CPU
  turns the larger factor over for it.
  """
  return x @ weight


def _product_backward(saved, g):
  x, weight = saved
  by_weight = x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
  return product(g, weight.T), by_weight


product.defvjp(lambda x, weight: (x @ weight, (x, weight)), _product_backward)


def winograd_pays(x: Array, kernel: Array) -> bool:
  """For pixels that outweigh the kernel, and channels that outweigh moving the pixels
  (experiments/peer_speed). A batch of any size, as in an export, counts as none."""
  b, h, w, _ = x.shape
  fits = kernel.shape[:2] == (3, 3) and h % winograd.TILE == w % winograd.TILE == 0
  few = min(kernel.shape[2:])
  many = isinstance(b, int) and few >= 64 and b * h * w * few >= 2**19
  return fits and many and x.dtype == jnp.float32


@jax.custom_vjp
def _in_turns(x: Array, kernel: Array) -> Array:
  """`conv`, whose kernel's gradient takes a few images at a time.

  A CPU turns both maps over for it, to channels first and batch last, in steps of a
  whole image; more of those than find room in its caches make it slower.
  """
  return _plain(x, kernel, 1, len(kernel) // 2)


def _in_turns_backward(saved, g):
  x, kernel = saved
  n = max(_IN_CACHE // math.prod(x.shape[1:]), 1)
  by_kernel = [
    jax.vjp(lambda k, i=i: _plain(x[i : i + n], k, 1, len(k) // 2), kernel)[1](
      g[i : i + n]
    )[0]
    for i in range(0, len(x), n)
  ]
  by_x = conv(g, winograd.transpose_kernel(kernel))
  return by_x, sum(by_kernel[1:], by_kernel[0])


_in_turns.defvjp(
  lambda x, kernel: (_in_turns(x, kernel), (x, kernel)), _in_turns_backward
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _patches(x: Array, size: int) -> Array:
  """[b, h, w, c] -> [b, h, w, size * size * c]: what a kernel sees at each pixel."""
  (_, h, w, _), r = x.shape, size // 2
  x = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
  seen = [x[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
  return jnp.concatenate(seen, -1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _overlapped(y: Array, size: int) -> Array:
  """The transpose of `_patches`: every pixel adds its patch to the map."""
  (b, h, w, c), r = y.shape, size // 2
  y = jnp.pad(y, ((0, 0), (r, r), (r, r), (0, 0)))
  y = y.reshape(b, h + 2 * r, w + 2 * r, size, size, c // size**2)
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


def _added_up(x: Array, kernel: Array) -> Array:
  """`conv` to the few channels of pictures, as one product and additions."""
  size, _, c, _ = kernel.shape
  taps = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(c, -1)
  return _overlapped(x @ taps, size)


# On a TPU.


def blocks_pay(x: Array, kernel: Array) -> bool:
  """Few channels leave most of a TPU's 128 lanes empty."""
  fits = kernel.shape[:2] == (3, 3) and x.shape[1] % 4 == x.shape[2] % 4 == 0
  return fits and min(kernel.shape[2:]) <= _FEW


@jax.custom_vjp
def _in_blocks(x: Array, kernel: Array) -> Array:
  """`conv` between pictures of a few channels and features, with a 3x3 kernel.

  What gives pictures, here or in the gradient, gives 4x4 pixels at a time.
  """
  return _blocks(x, kernel) if kernel.shape[-1] <= _FEW else _plain(x, kernel, 1, 1)


def _in_blocks_forward(x, kernel):
  return _in_blocks(x, kernel), (x, kernel)


def _in_blocks_backward(saved, g):
  x, kernel = saved
  form = _blocks if kernel.shape[-1] <= _FEW else partial(_plain, stride=1, pad=1)
  _, by_kernel = jax.vjp(lambda k: form(x, k), kernel)
  return _in_blocks(g, winograd.transpose_kernel(kernel)), by_kernel(g)[0]


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)


def _blocks(x: Array, kernel: Array) -> Array:
  """`conv` by one of stride 4: its 6x6 kernel is the 3x3 one in each of 16 places, and
  its 16 o outputs are 4x4 pixels."""
  b, h, w, _ = x.shape
  places = [(i, j) for i in range(4) for j in range(4)]
  wide = [jnp.pad(kernel, ((i, 3 - i), (j, 3 - j), (0, 0), (0, 0))) for i, j in places]
  pads = ((1, 1), (1, 1))
  y = lax.conv_general_dilated(
    x, jnp.concatenate(wide, -1), (4, 4), pads, dimension_numbers=NHWC
  )
  y = y.reshape(b, h // 4, w // 4, 4, 4, -1).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(b, h, w, -1)
