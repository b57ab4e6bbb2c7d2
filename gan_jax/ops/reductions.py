"""Sums over pixels, images and rows, with gradients that suit each device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.ops.convolution import platform


def accumulation_dtype(dtype: Any) -> Any:
  """The type for sums and statistics: float32, or float64 where that is computed in."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
  """x [..., c] + bias [1, ..., c]; the bias's gradient adds up as a matrix product."""
  return x + bias


def _add_bias_backward(bias, g):
  rows = g.reshape(-1, g.shape[-1])
  ones, wide = jnp.ones(len(rows), g.dtype), accumulation_dtype(g.dtype)
  highest = lax.Precision.HIGHEST
  by_bias = jnp.dot(ones, rows, precision=highest, preferred_element_type=wide)
  return g, by_bias.astype(bias.dtype).reshape(bias.shape)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_backward)


def image_sums(x: Array) -> Array:
  """Over the pixels of each image: [b, h, w, c] -> [b, 1, 1, c].

  A CPU adds up faster by a product with ones than by XLA's reduction.
  """
  b, h, w, c = x.shape
  if platform() != 'cpu':
    return x.sum((1, 2), keepdims=True)
  rows = x.reshape(b, h * w, c)
  ones = jnp.ones((b, 1, h * w), x.dtype)
  highest = lax.Precision.HIGHEST
  return jnp.einsum('bon,bnc->boc', ones, rows, precision=highest)[:, None]


@jax.custom_vjp
def moments(x: Array) -> tuple[Array, Array]:
  """Sums of x and of its squares over the pixels of each image, at least float32."""
  wide = x.astype(accumulation_dtype(x.dtype))
  return image_sums(wide), image_sums(jnp.square(wide))


def _moments_backward(x, g):
  by_sum, by_squares = g
  return ((by_sum + 2 * x.astype(by_sum.dtype) * by_squares).astype(x.dtype),)


moments.defvjp(lambda x: (moments(x), x), _moments_backward)


@jax.custom_vjp
def scale_and_shift(x: Array, mean: Array, scale: Array, bias: Array) -> Array:
  """(x - mean) * scale + bias as x's type: [b, h, w, c], the others [b or 1, 1, 1, c].

  The gradients of all three are made of two sums over each image.
  """
  return ((x.astype(scale.dtype) - mean) * scale + bias).astype(x.dtype)


def _scale_and_shift_backward(saved, g):
  x, mean, scale, bias = saved
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
