"""Layers of the three families. Images are NHWC, kernels HWIO, embeddings [n, dim]."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.convolution import conv, platform

AXIS = 'data'  # the mesh axis that carries the batch

ModuleDef = Callable[..., Any]
Init = Callable[..., Array]


def widened(dtype: Any) -> Any:
  """The type for sums and statistics: float32, or float64 where that is computed in."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


# Weighted layers.


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
  """x [..., c] + bias [1, ..., c]; the bias's gradient adds up as a matrix product."""
  return x + bias


def _add_bias_backward(bias, g):
  rows = g.reshape(-1, g.shape[-1])
  ones, wide = jnp.ones(len(rows), g.dtype), widened(g.dtype)
  highest = lax.Precision.HIGHEST
  by_bias = jnp.dot(ones, rows, precision=highest, preferred_element_type=wide)
  return g, by_bias.astype(bias.dtype).reshape(bias.shape)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_backward)


def _normalized_product(
  module: nn.Module, name: str, x: Array, weight: Array
) -> tuple[Array, Array]:
  """x and weight in the module's type, with the weight's spectral scale in either.

  The larger of the two is left as it is: for a few images on a chip that is the
  weight, which then is read by the product alone. For a batch of any size, as in an
  export, the weight is scaled.
  """
  dtype: Any = module.dtype
  if module.has_variable('scales', name):
    scale = module.get_variable('scales', name)
    if isinstance(x.size, int) and weight.size > x.size:
      x = x.astype(scale.dtype) * scale
    else:
      weight = weight * scale
  return x.astype(dtype), weight.astype(dtype)


def orthogonal_rows(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Orthogonal initialisation of a kernel seen as [everything else, outputs]."""
  return nn.initializers.orthogonal()(key, shape, dtype)


def _fan_uniform(fan_in: int) -> Init:
  bound = fan_in**-0.5

  def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Conv(nn.Module):
  """Convolution with bias; `apply` is `conv`, `up_conv` or `down_conv`.

  The bias starts uniform in +-1/sqrt(fan in), as in BigGAN-PyTorch.
  """

  features: int
  size: int = 3
  bias: bool = True
  apply_kernel: Callable[[Array, Array], Array] = conv
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x = self.apply_kernel(*_normalized_product(self, 'kernel', x, kernel))
    if self.bias:
      init = _fan_uniform(self.size**2 * shape[2])
      bias = self.param('bias', init, (1, 1, 1, self.features))
      x = add_bias(x, bias.astype(self.dtype))
    return x


class Dense(nn.Module):
  """x @ kernel + bias, [b, in] -> [b, features]."""

  features: int
  bias: bool = True
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x, kernel = _normalized_product(self, 'kernel', x, kernel)
    x @= kernel
    if self.bias:
      init = _fan_uniform(shape[0])
      x += self.param('bias', init, (1, self.features)).astype(self.dtype)
    return x


class Embed(nn.Module):
  """Row lookup; labels are integers [b], or weights over the classes [b, n]."""

  features: int
  n: int
  init_embedding: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, labels: Array) -> Array:
    table = self.param('embedding', self.init_embedding, (self.n, self.features))
    if labels.ndim == 2:
      rows = labels.astype(self.dtype) @ table.astype(self.dtype)
    else:
      rows = table[labels].astype(self.dtype)
    if self.has_variable('scales', 'embedding'):
      rows *= self.get_variable('scales', 'embedding').astype(self.dtype)
    return rows


class Attention(nn.Module):
  """Self-attention over a feature map (SAGAN); keys and values are max-pooled 2x2."""

  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape

    def project(features: int, name: str) -> Array:
      return self.conv(features, size=1, bias=False, name=name)(x)

    query = project(c // 8, 'theta').reshape(b, h * w, -1)
    key = nn.max_pool(project(c // 8, 'phi'), (2, 2), (2, 2)).reshape(b, h * w // 4, -1)
    value = nn.max_pool(project(c // 2, 'g'), (2, 2), (2, 2)).reshape(b, h * w // 4, -1)
    out = attend(query, key, value).reshape(b, h, w, c // 2)
    out = self.conv(c, size=1, bias=False, name='o')(out)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return x + gamma.astype(x.dtype) * out


_SCORES = 2**22  # that are held at a time: those of 4096 queries and 1024 keys


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array) -> Array:
  """softmax(query key^T) value: [b, q, c], [b, k, c], [b, k, v] -> [b, q, v].

  A few images at a time, whose scores fit a processor's own memory, and which are
  computed again for the gradient (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
  A batch of any size, as in an export, is taken at once.
  """
  return _attend_forward(query, key, value)[0]


def _by_images(f: Callable[..., Any], *xs: Array) -> Any:
  """f(*xs), a few images at a time: queries [b, q, ...], keys [b, k, ...], others."""
  b, most = xs[0].shape[0], max(_SCORES // (xs[0].shape[1] * xs[1].shape[1]), 1)
  if not isinstance(b, int) or b <= most:
    return f(*xs)
  n = next(i for i in range(most, 0, -1) if b % i == 0)
  some = [x.reshape(b // n, n, *x.shape[1:]) for x in xs]
  return [y.reshape(b, *y.shape[2:]) for y in lax.map(lambda x: f(*x), some)]


def _scores(query, key):
  wide = widened(query.dtype)
  return jnp.einsum('bqc,bkc->bqk', query, key, preferred_element_type=wide)


def _weighted(query, key, value_1):
  """Values by the softmax of some images' scores, and the logarithm of its sum."""
  scores = _scores(query, key)
  most = scores.max(-1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value_1.dtype)
  wide = most.dtype
  out = jnp.einsum('bqk,bkc->bqc', weights, value_1, preferred_element_type=wide)
  out, total = out[..., :-1] / out[..., -1:], out[..., -1:]
  return out.astype(value_1.dtype), most + jnp.log(total)


def _weighted_by_rows(query, key, value_1):
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

  weighted = _weighted_by_rows if platform() == 'cpu' else _weighted
  out, log_total = _by_images(weighted, query, key, value_1)
  return out, (query, key, value, out, log_total)


def _scores_less(query, key, less):
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
    first = apart((_scores_less(query, key, log_total), _scores_less(g, value, along)))
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

  return tuple(_by_images(some, query, key, value, g, log_total, along))


attend.defvjp(_attend_forward, _attend_backward)


# The growing GANs: learning rates equalized at run time, and their normalisations.


def leaky_relu(x: Array) -> Array:
  return jnp.where(x >= 0, x, 0.2 * x)


def _equalized(
  module: nn.Module, shape: tuple[int, ...], gain: float, lrmul: float, equalized: bool
) -> Array:
  """A kernel of standard deviation gain / sqrt(fan in): by a factor at run time, or,
  without `equalized`, from the start. Stored values are 1 / lrmul times as large."""
  he = gain * math.prod(shape[:-1]) ** -0.5
  start, factor = (1 / lrmul, he * lrmul) if equalized else (he / lrmul, lrmul)
  return module.param('kernel', nn.initializers.normal(start), shape) * factor


class EqualizedConv(nn.Module):
  """Convolution with equalized learning rate (ProGAN, section 4.1); bias from 0."""

  features: int
  size: int = 3
  gain: float = 2**0.5
  bias: bool = True
  apply_kernel: Callable[[Array, Array], Array] = conv
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = _equalized(self, shape, self.gain, 1.0, self.equalized)
    x = self.apply_kernel(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, self.features))
      x = add_bias(x, bias.astype(self.dtype))
    return x


class EqualizedDense(nn.Module):
  """Dense layer with equalized learning rate, [b, in] -> [b, *features].

  Several features are a feature map, whose bias is one a channel. `lrmul` makes
  kernel and bias learn that much slower than the optimizer's rate.
  """

  features: tuple[int, ...]
  gain: float = 2**0.5
  lrmul: float = 1.0
  bias: bool = True
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], math.prod(self.features))
    kernel = _equalized(self, shape, self.gain, self.lrmul, self.equalized)
    x = x.astype(self.dtype) @ kernel.astype(self.dtype)
    x = x.reshape(-1, *self.features)
    if self.bias:
      one = (1,) * len(self.features) + self.features[-1:]
      bias = self.param('bias', nn.initializers.zeros, one) * self.lrmul
      x += bias.astype(self.dtype)
    return x


def blur(x: Array, taps: tuple[int, ...] = (1, 2, 1)) -> Array:
  """A separable low-pass filter with zero padding to the same size, [b, h, w, c].

  By shifts and additions, as its gradient is: XLA's depthwise convolutions are slow
  on CPU, and so are its transposed slices.
  """
  before = (len(taps) - 1) // 2
  return _blurred(x, taps, before)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _blurred(x: Array, taps: tuple[int, ...], before: int) -> Array:
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


_blurred.defvjp(
  lambda x, taps, before: (_blurred(x, taps, before), None),
  lambda taps, before, _, g: (_blurred(g, taps[::-1], len(taps) - 1 - before),),
)
