"""Sums over pixels, images and rows, with gradients that are fast on each device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gan_jax.ops.platform import platform


def accumulation_dtype(dtype: DTypeLike) -> Any:
  """dtype of sums and statistics: float64 for float64, float32 for all others."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


@jax.custom_vjp
def add_bias(
  x: Float[Array, '*batch c'], bias: Float[Array, '*ones c']
) -> Float[Array, '*batch c']:
  """x + bias [1, ..., c]. The gradient of the bias is summed by a matrix product."""
  return x + bias


def _add_bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
  rows = g.reshape(-1, g.shape[-1])
  ones, wide = jnp.ones(len(rows), g.dtype), accumulation_dtype(g.dtype)
  highest = lax.Precision.HIGHEST
  by_bias = jnp.dot(ones, rows, precision=highest, preferred_element_type=wide)
  return g, by_bias.astype(bias.dtype).reshape(bias.shape)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_backward)


def image_sums(x: Float[Array, 'b h w c']) -> Float[Array, 'b 1 1 c']:
  """Sums over the pixels of each image.

  On a CPU by a product with ones, which is faster than XLA's reduction.
  """
  b, h, w, c = x.shape
  if platform() != 'cpu':
    return x.sum((1, 2), keepdims=True)
  rows = x.reshape(b, h * w, c)
  ones = jnp.ones((b, 1, h * w), x.dtype)
  highest = lax.Precision.HIGHEST
  return jnp.einsum('bon,bnc->boc', ones, rows, precision=highest)[:, None]


@jax.custom_vjp
def moments(
  x: Float[Array, 'b h w c'],
) -> tuple[Float[Array, 'b 1 1 c'], Float[Array, 'b 1 1 c']]:
  """Sums of x and of its squares over the pixels of each image, at least float32."""
  wide = x.astype(accumulation_dtype(x.dtype))
  return image_sums(wide), image_sums(jnp.square(wide))


def _moments_backward(x: Array, g: tuple[Array, Array]) -> tuple[Array]:
  by_sum, by_squares = g
  return ((by_sum + 2 * x.astype(by_sum.dtype) * by_squares).astype(x.dtype),)


moments.defvjp(lambda x: (moments(x), x), _moments_backward)


@jax.custom_vjp
def scale_and_shift(
  x: Float[Array, 'b h w c'],
  mean: Float[Array, '#b 1 1 c'],
  scale: Float[Array, '#b 1 1 c'],
  bias: Float[Array, '#b 1 1 c'],
) -> Float[Array, 'b h w c']:
  """(x - mean) * scale + bias, in the dtype of x.

  Two sums over each image give the gradients of mean, scale and bias.
  """
  return ((x.astype(scale.dtype) - mean) * scale + bias).astype(x.dtype)


def _scale_and_shift_backward(
  residuals: tuple[Array, ...], g: Array
) -> tuple[Array, ...]:
  x, mean, scale, bias = residuals
  wide = g.astype(scale.dtype)
  by_bias = image_sums(wide)
  by_scale = image_sums(wide * (x.astype(scale.dtype) - mean))
  fit = lambda total, like: total.sum(0, keepdims=True) if len(like) == 1 else total
  by_mean = fit(-scale * by_bias, mean)
  return (
    (wide * scale).astype(x.dtype),
    by_mean,
    fit(by_scale, scale),
    fit(by_bias, bias),
  )


scale_and_shift.defvjp(
  lambda *args: (scale_and_shift(*args), args), _scale_and_shift_backward
)
