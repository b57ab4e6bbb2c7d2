"""Dot-product attention that holds the scores of a few images at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.platform import platform
from gan_jax.ops.reductions import accumulation_dtype

MAX_SCORES = 2**22  # held at a time; one image of 64 x 64 queries and 32 x 32 keys

Residuals = tuple[Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def attend(
  query: Float[Array, 'b q c'],
  key: Float[Array, 'b k c'],
  value: Float[Array, 'b k v'],
  max_scores: int = MAX_SCORES,
) -> Float[Array, 'b q v']:
  """softmax(query key^T) value, without a scale.

  Images are processed in chunks whose scores fit the fast memory of a processor. The
  gradient recomputes the scores (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
  A batch of symbolic size, as in an export, is processed at once.

  Args:
    max_scores: upper bound of the scores in a chunk of several images.
  """
  return _attend_forward(query, key, value, max_scores)[0]


def _map_image_chunks(f: Callable[..., Any], max_scores: int, *xs: Array) -> Any:
  """f(*xs) in chunks of images; the first two arrays are [b, q, ...], [b, k, ...]."""
  b = xs[0].shape[0]
  max_images = max(max_scores // (xs[0].shape[1] * xs[1].shape[1]), 1)
  if not isinstance(b, int) or b <= max_images:
    return f(*xs)
  n = next(i for i in range(max_images, 0, -1) if b % i == 0)
  chunks = [x.reshape(b // n, n, *x.shape[1:]) for x in xs]
  return [y.reshape(b, *y.shape[2:]) for y in lax.map(lambda x: f(*x), chunks)]


def _scores(query: Array, key: Array) -> Array:
  wide = accumulation_dtype(query.dtype)
  return jnp.einsum('bqc,bkc->bqk', query, key, preferred_element_type=wide)


def _weighted_values(query: Array, key: Array, value_1: Array) -> tuple[Array, Array]:
  """The softmax-weighted values, and the log of the softmax's denominator."""
  scores = _scores(query, key)
  most = scores.max(-1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value_1.dtype)
  wide = most.dtype
  out = jnp.einsum('bqk,bkc->bqc', weights, value_1, preferred_element_type=wide)
  out, total = out[..., :-1] / out[..., -1:], out[..., -1:]
  return out.astype(value_1.dtype), most + jnp.log(total)


def _weighted_values_key_major(
  query: Array, key: Array, value_1: Array
) -> tuple[Array, Array]:
  """`_weighted_values` with scores [b, k, q].

  XLA:CPU is faster at a maximum over rows than within them, and at a product with few
  rows than at one with few columns.
  """
  scores = _scores(key, query)
  most = scores.max(1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value_1.dtype)
  wide = most.dtype
  out = jnp.einsum('bkc,bkq->bcq', value_1, weights, preferred_element_type=wide)
  out, log_total = out[:, :-1] / out[:, -1:], most + jnp.log(out[:, -1:])
  return out.astype(value_1.dtype).swapaxes(1, 2), log_total.swapaxes(1, 2)


def _attend_forward(
  query: Array, key: Array, value: Array, max_scores: int
) -> tuple[Array, Residuals]:
  # A channel of ones appended to the values makes the product sum the denominator.
  value_1 = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)

  weighted = _weighted_values_key_major if platform() == 'cpu' else _weighted_values
  out, log_total = _map_image_chunks(weighted, max_scores, query, key, value_1)
  return out, (query, key, value, out, log_total)


def _shifted_scores(query: Array, key: Array, shift: Array) -> Array:
  """Scores minus `shift`, one value per query.

  On a TPU the product itself subtracts the shift, by three additional channels; the
  first two of them are exact in bfloat16.
  """
  if platform() != 'tpu':
    return _scores(query, key) - shift
  high = lax.reduce_precision(shift, 8, 7)
  low = lax.reduce_precision(shift - high, 8, 7)
  parts = [-x.astype(query.dtype) for x in (high, low, shift - high - low)]
  ones = jnp.ones((*key.shape[:2], len(parts)), key.dtype)
  query = jnp.concatenate([query, *parts], -1)
  return _scores(query, jnp.concatenate([key, ones], -1))


def _attend_backward(max_scores: int, residuals: Residuals, g: Array) -> Any:
  query, key, value, out, log_total = residuals
  mean_gradient = jnp.sum(g * out, -1, keepdims=True, dtype=log_total.dtype)
  # A TPU computes the exponential faster within each product that reads it than once
  # for all of them. The barrier hides that the three expressions are equal.
  separate = lax.optimization_barrier if platform() == 'tpu' else lambda x: x

  def chunk_gradients(
    query: Array,
    key: Array,
    value: Array,
    g: Array,
    log_total: Array,
    mean_gradient: Array,
  ) -> tuple[Array, Array, Array]:
    first = separate(
      (_shifted_scores(query, key, log_total), _shifted_scores(g, value, mean_gradient))
    )
    second = separate(first)
    third = separate(second)
    by_scores = lambda scores, by: (jnp.exp(scores) * by).astype(query.dtype)
    weights = jnp.exp(third[0]).astype(value.dtype)
    return (
      jnp.einsum('bqk,bkc->bqc', by_scores(*first), key),
      # XLA:CPU is slow at products with few columns and fast at those with few rows.
      jnp.einsum('bqc,bqk->bck', query, by_scores(*second)).swapaxes(1, 2),
      jnp.einsum('bqc,bqk->bck', g, weights).swapaxes(1, 2),
    )

  args = (query, key, value, g, log_total, mean_gradient)
  return tuple(_map_image_chunks(chunk_gradients, max_scores, *args))


attend.defvjp(_attend_forward, _attend_backward)
