"""Dot-product attention, a few images at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.ops.convolution import platform
from gan_jax.ops.reductions import accumulation_dtype

_MAX_SCORES = 2**22  # that are held at a time: those of 4096 queries and 1024 keys


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array) -> Array:
  """softmax(query key^T) value: [b, q, c], [b, k, c], [b, k, v] -> [b, q, v].

  A few images at a time, whose scores fit a processor's own memory, and which are
  computed again for the gradient (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
  A batch of any size, as in an export, is taken at once.
  """
  return _attend_forward(query, key, value)[0]


def _map_image_chunks(f: Callable[..., Any], *xs: Array) -> Any:
  """f(*xs), a few images at a time: queries [b, q, ...], keys [b, k, ...], others."""
  b, most = xs[0].shape[0], max(_MAX_SCORES // (xs[0].shape[1] * xs[1].shape[1]), 1)
  if not isinstance(b, int) or b <= most:
    return f(*xs)
  n = next(i for i in range(most, 0, -1) if b % i == 0)
  some = [x.reshape(b // n, n, *x.shape[1:]) for x in xs]
  return [y.reshape(b, *y.shape[2:]) for y in lax.map(lambda x: f(*x), some)]


def _scores(query, key):
  wide = accumulation_dtype(query.dtype)
  return jnp.einsum('bqc,bkc->bqk', query, key, preferred_element_type=wide)


def _weighted_values(query, key, value_1):
  """Values by the softmax of some images' scores, and the logarithm of its sum."""
  scores = _scores(query, key)
  most = scores.max(-1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value_1.dtype)
  wide = most.dtype
  out = jnp.einsum('bqk,bkc->bqc', weights, value_1, preferred_element_type=wide)
  out, total = out[..., :-1] / out[..., -1:], out[..., -1:]
  return out.astype(value_1.dtype), most + jnp.log(total)


def _weighted_values_key_major(query, key, value_1):
  """`_weighted` with a row for each key: a CPU compares rows faster than it searches
  them, and its product has few rows, not few columns."""
  scores = _scores(key, query)
  most = scores.max(1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value_1.dtype)
  wide = most.dtype
  out = jnp.einsum('bkc,bkq->bcq', value_1, weights, preferred_element_type=wide)
  out, log_total = out[:, :-1] / out[:, -1:], most + jnp.log(out[:, -1:])
  return out.astype(value_1.dtype).swapaxes(1, 2), log_total.swapaxes(1, 2)


def _attend_forward(query, key, value):
  # Softmax's sum is one more channel of the values, which the same product adds up.
  value_1 = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)

  weighted = _weighted_values_key_major if platform() == 'cpu' else _weighted_values
  out, log_total = _map_image_chunks(weighted, query, key, value_1)
  return out, (query, key, value, out, log_total)


def _shifted_scores(query, key, less):
  """Scores less a number for each query, which on a TPU the product itself takes off:
  in three channels, of which no product rounds the first two."""
  if platform() != 'tpu':
    return _scores(query, key) - less
  high = lax.reduce_precision(less, 8, 7)
  low = lax.reduce_precision(less - high, 8, 7)
  parts = [-x.astype(query.dtype) for x in (high, low, less - high - low)]
  ones = jnp.ones((*key.shape[:2], len(parts)), key.dtype)
  query = jnp.concatenate([query, *parts], -1)
  return _scores(query, jnp.concatenate([key, ones], -1))


def _attend_backward(saved, g):
  query, key, value, out, log_total = saved
  along = jnp.sum(g * out, -1, keepdims=True, dtype=log_total.dtype)
  # A TPU computes the exponential cheaper in each product that reads it than once
  # behind the product that makes it: it may not see that they are the same.
  apart = lax.optimization_barrier if platform() == 'tpu' else lambda x: x

  def some(query, key, value, g, log_total, along):
    first = apart(
      (_shifted_scores(query, key, log_total), _shifted_scores(g, value, along))
    )
    second = apart(first)
    third = apart(second)
    by_scores = lambda scores, by: (jnp.exp(scores) * by).astype(query.dtype)
    weights = jnp.exp(third[0]).astype(value.dtype)
    return (
      jnp.einsum('bqk,bkc->bqc', by_scores(*first), key),
      # A CPU multiplies by few columns slowly, by few rows fast.
      jnp.einsum('bqc,bqk->bck', query, by_scores(*second)).swapaxes(1, 2),
      jnp.einsum('bqc,bqk->bck', g, weights).swapaxes(1, 2),
    )

  return tuple(_map_image_chunks(some, query, key, value, g, log_total, along))


attend.defvjp(_attend_forward, _attend_backward)
