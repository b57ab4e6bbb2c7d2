"""Stride-1 convolutions in the form that is fastest on the device; NHWC and HWIO."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import winograd
from gan_jax.ops.platform import platform

NHWC = ('NHWC', 'HWIO', 'NHWC')
FEW_CHANNELS = 4  # up to so many channels a feature map counts as an image
CPU_CACHE_VALUES = 2**21  # size of a feature map of which two fit the caches of a CPU

Residuals = tuple[Array, Array]


def conv(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o']
) -> Float[Array, 'b h w o']:
  """Convolution of stride 1 with zero padding to the same size; k is odd."""
  size, _, c, o = kernel.shape
  if platform() == 'cpu':
    if o <= FEW_CHANNELS and size > 1:
      return _conv_to_few_channels(x, kernel)
    if use_winograd(x, kernel):
      return winograd.conv(x, kernel)
    if size > 1 or c <= FEW_CHANNELS:
      return _conv_chunked_gradient(x, kernel)
    return matmul(x, kernel[0, 0])
  if size == 1:
    return x @ kernel[0, 0]
  if platform() == 'tpu' and use_blocks(x, kernel):
    return _conv_few_channels(x, kernel)
  return _lax_conv(x, kernel, 1, size // 2)


def conv_stride2(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o'], pad: int
) -> Float[Array, 'b h2 w2 o']:
  """Convolution of stride 2 with `pad` zeros on every side."""
  return _lax_conv(x, kernel, 2, pad)


def _lax_conv(x: Array, kernel: Array, stride: int, pad: int) -> Array:
  steps, pads = (stride, stride), ((pad, pad), (pad, pad))
  return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=NHWC)


# Forms for CPUs.


@jax.custom_vjp
def matmul(
  x: Float[Array, '*batch c'], weight: Float[Array, 'c o']
) -> Float[Array, '*batch o']:
  """x @ weight, with a weight gradient of shape [c, o] from the start.

  JAX's own rule computes the transpose of that gradient, for which XLA:CPU transposes
  the larger factor.
  """
  return x @ weight


def _matmul_backward(residuals: Residuals, g: Array) -> tuple[Array, Array]:
  x, weight = residuals
  by_weight = x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
  return matmul(g, weight.T), by_weight


matmul.defvjp(lambda x, weight: (x @ weight, (x, weight)), _matmul_backward)


def use_winograd(x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o']) -> bool:
  """Whether Winograd's algorithm is the fastest on a CPU (experiments/peer_speed).

  It is for a 3x3 kernel, many pixels and many channels. A batch of symbolic size, as in
  an export, counts as small.
  """
  b, h, w, _ = x.shape
  fits = kernel.shape[:2] == (3, 3) and h % winograd.TILE == w % winograd.TILE == 0
  few = min(kernel.shape[2:])
  many = isinstance(b, int) and few >= 64 and b * h * w * few >= 2**19
  return fits and many and x.dtype == jnp.float32


@jax.custom_vjp
def _conv_chunked_gradient(x: Array, kernel: Array) -> Array:
  """`conv` whose kernel gradient is computed in chunks of images.

  XLA:CPU transposes both feature maps for it; batches beyond the cache are slow.
  """
  return _lax_conv(x, kernel, 1, len(kernel) // 2)


def _conv_chunked_gradient_backward(
  residuals: Residuals, g: Array
) -> tuple[Array, Array]:
  x, kernel = residuals
  n = max(CPU_CACHE_VALUES // math.prod(x.shape[1:]), 1)
  by_kernel = [
    jax.vjp(lambda k, i=i: _lax_conv(x[i : i + n], k, 1, len(k) // 2), kernel)[1](
      g[i : i + n]
    )[0]
    for i in range(0, len(x), n)
  ]
  by_x = conv(g, winograd.transpose_kernel(kernel))
  return by_x, sum(by_kernel[1:], by_kernel[0])


_conv_chunked_gradient.defvjp(
  lambda x, kernel: (_conv_chunked_gradient(x, kernel), (x, kernel)),
  _conv_chunked_gradient_backward,
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _extract_patches(x: Array, size: int) -> Array:
  """[b, h, w, c] -> [b, h, w, size * size * c]: the patch around each pixel."""
  (_, h, w, _), r = x.shape, size // 2
  x = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
  shifted = [x[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
  return jnp.concatenate(shifted, -1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _add_patches(y: Array, size: int) -> Array:
  """The transpose of `_extract_patches`: adds up the overlapping patches."""
  (b, h, w, c), r = y.shape, size // 2
  y = jnp.pad(y, ((0, 0), (r, r), (r, r), (0, 0)))
  y = y.reshape(b, h + 2 * r, w + 2 * r, size, size, c // size**2)
  shifted = [
    y[:, 2 * r - i : 2 * r - i + h, 2 * r - j : 2 * r - j + w, i, j]
    for i in range(size)
    for j in range(size)
  ]
  return sum(shifted[1:], shifted[0])


_extract_patches.defvjp(
  lambda x, size: (_extract_patches(x, size), None),
  lambda size, _, g: (_add_patches(g, size),),
)
_add_patches.defvjp(
  lambda y, size: (_add_patches(y, size), None),
  lambda size, _, g: (_extract_patches(g, size),),
)


def _conv_to_few_channels(x: Array, kernel: Array) -> Array:
  """`conv` with few output channels, as one matrix product and additions."""
  size, _, c, _ = kernel.shape
  taps = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(c, -1)
  return _add_patches(x @ taps, size)


# Forms for TPUs.


def use_blocks(x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o']) -> bool:
  """Whether `conv` has so few channels that most of a TPU's 128 lanes stay empty."""
  fits = kernel.shape[:2] == (3, 3) and x.shape[1] % 4 == x.shape[2] % 4 == 0
  return fits and min(kernel.shape[2:]) <= FEW_CHANNELS


@jax.custom_vjp
def _conv_few_channels(x: Array, kernel: Array) -> Array:
  """`conv` with a 3x3 kernel and few input or output channels.

  The direction that has few output channels, forward or gradient, computes blocks of
  4x4 pixels.
  """
  if kernel.shape[-1] <= FEW_CHANNELS:
    return _conv_blocks(x, kernel)
  return _lax_conv(x, kernel, 1, 1)


def _conv_few_channels_backward(residuals: Residuals, g: Array) -> tuple[Array, Array]:
  x, kernel = residuals
  form: Callable[..., Any] = partial(_lax_conv, stride=1, pad=1)
  if kernel.shape[-1] <= FEW_CHANNELS:
    form = _conv_blocks
  _, by_kernel = jax.vjp(lambda k: form(x, k), kernel)
  return _conv_few_channels(g, winograd.transpose_kernel(kernel)), by_kernel(g)[0]


_conv_few_channels.defvjp(
  lambda x, kernel: (_conv_few_channels(x, kernel), (x, kernel)),
  _conv_few_channels_backward,
)


def _conv_blocks(x: Array, kernel: Array) -> Array:
  """`conv` with a 3x3 kernel as a 6x6 convolution of stride 4.

  Its 16 o output channels are blocks of 4x4 pixels: the kernel at 16 offsets.
  """
  b, h, w, _ = x.shape
  offsets = [(i, j) for i in range(4) for j in range(4)]
  wide = [jnp.pad(kernel, ((i, 3 - i), (j, 3 - j), (0, 0), (0, 0))) for i, j in offsets]
  pads = ((1, 1), (1, 1))
  y = lax.conv_general_dilated(
    x, jnp.concatenate(wide, -1), (4, 4), pads, dimension_numbers=NHWC
  )
  y = y.reshape(b, h // 4, w // 4, 4, 4, -1).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(b, h, w, -1)
