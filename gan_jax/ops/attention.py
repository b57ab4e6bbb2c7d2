"""Dot-product attention in the form that is fastest on the device."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.platform import device_kind, platform
from gan_jax.ops.reductions import accumulation_dtype

AttentionForm = Literal['products', 'flash']

# Scores held at a time. On other devices than GPUs they stay in fast memory: one image
# of 64 x 64 queries and 32 x 32 keys. On a GPU they are a batch's, up to 4 GiB.
MAX_SCORES = 2**22
GPU_MAX_SCORES = 2**30
FLASH_HEAD = 128  # largest head of cuDNN's flash attention on all GPUs that have it

# GPUs without cuDNN's flash attention, which needs compute capability 8.0.
_OLDER_GPUS = re.compile(
  r'\b(V100|P100|P40|P4|T4|M60|K80|TITAN|GTX|Quadro|RTX 20\d\d)\b|AMD|Radeon|gfx|MI\d00'
)

Residuals = tuple[Array, ...]


def attend(
  query: Float[Array, 'b q c'],
  key: Float[Array, 'b k c'],
  value: Float[Array, 'b k v'],
  max_scores: int | None = None,
  form: AttentionForm | None = None,
) -> Float[Array, 'b q v']:
  """softmax(query key^T) value, without a scale.

  The gradient recomputes the scores (FlashAttention, Dao et al. 2022,
  arXiv:2205.14135).

  Args:
    max_scores: upper bound of the scores in a chunk of several images; None for the
      device's. A batch of symbolic size, as in an export, is processed at once.
    form: None for the fastest form, `attention_form`. products: matrix products over
      chunks of images. flash: cuDNN's flash attention over the whole batch.
  """
  if (form or attention_form(platform(), query, value)) == 'flash':
    return _attend_flash(query, key, value)
  if max_scores is None:
    max_scores = GPU_MAX_SCORES if platform() == 'gpu' else MAX_SCORES
  return _attend(query, key, value, max_scores)


def attention_form(device: str, query: Array, value: Array) -> AttentionForm:
  """The fastest form of `attend`: 'flash' in 16 bits on an NVIDIA GPU that has it."""
  fits = device == 'gpu' and query.dtype in (jnp.bfloat16, jnp.float16)
  known = fits and isinstance(query.shape[0], int) and _heads(query, value) > 0
  return 'flash' if known and not _OLDER_GPUS.search(device_kind()) else 'products'


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query: Array, key: Array, value: Array, max_scores: int) -> Array:
  """`attend` in the form 'products'."""
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


_attend.defvjp(_attend_forward, _attend_backward)


# The form 'flash', for NVIDIA GPUs.


def _heads(query: Array, value: Array) -> int:
  """Number of heads that the values divide into; 0 if cuDNN has none of their size.

  All heads have the same queries and keys, which zeros extend to the values' size.
  """
  channels, least = value.shape[-1], query.shape[-1]
  for n in range(math.ceil(channels / FLASH_HEAD), channels // 8 + 1):
    size = channels // n
    if channels % n == 0 and size % 8 == 0 and size >= least:
      return n
  return 0


def _flash(query: Array, key: Array, value: Array) -> Array:
  """cuDNN's attention, whose gradient has no gradient; plain products elsewhere."""
  heads = _heads(query, value)
  size = value.shape[-1] // heads

  def extended(x: Array) -> Array:
    x = jnp.pad(x, ((0, 0), (0, 0), (0, size - x.shape[-1])))
    return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], heads, size))

  value = value.reshape(*value.shape[:2], heads, size)
  args = extended(query), extended(key), value
  if platform() == 'gpu':
    with _cudnn_of_another_machine():
      out = jax.nn.dot_product_attention(*args, scale=1.0, implementation='cudnn')
  else:
    scores = jnp.einsum('bqhc,bkhc->bhqk', *args[:2])
    out = jnp.einsum('bhqk,bkhc->bqhc', jax.nn.softmax(scores), value)
  return out.reshape(*out.shape[:2], -1)


@contextlib.contextmanager
def _cudnn_of_another_machine() -> Iterator[None]:
  """Without a GPU, a program for one is traced as if its cuDNN was installed here.

  JAX asks the local cuDNN for its version, and only to refuse old ones.
  """
  if jax.default_backend() == 'gpu':
    yield
    return
  from jax._src.cudnn import fused_attention_stablehlo as cudnn

  installed = cudnn.check_cudnn_version
  cudnn.check_cudnn_version = lambda: 91000
  try:
    yield
  finally:
    cudnn.check_cudnn_version = installed


@jax.custom_vjp
def _attend_flash(query: Array, key: Array, value: Array) -> Array:
  """`attend` in the form 'flash'.

  The gradient calls the same program, which the compiler merges with this one.
  """
  return jax.vjp(_flash, query, key, value)[0]


@jax.custom_vjp
def _flash_gradients(
  query: Array, key: Array, value: Array, g: Array
) -> tuple[Array, ...]:
  """cuDNN's gradients. Their own gradient, for penalties, is that of products."""
  return jax.vjp(_flash, query, key, value)[1](g)


def _products_gradients(
  query: Array, key: Array, value: Array, g: Array
) -> tuple[Array, ...]:
  products = partial(_attend, max_scores=GPU_MAX_SCORES)
  return jax.vjp(products, query, key, value)[1](g)


_attend_flash.defvjp(
  lambda *args: (_attend_flash(*args), args), lambda args, g: _flash_gradients(*args, g)
)
_flash_gradients.defvjp(
  lambda *args: (_flash_gradients(*args), args),
  lambda args, by: jax.vjp(_products_gradients, *args)[1](by),
)
