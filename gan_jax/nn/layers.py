"""Layers of the three families. Images are NHWC, kernels HWIO, embeddings [n, dim]."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from gan_jax.ops.attention import attend
from gan_jax.ops.convolution import conv
from gan_jax.ops.reductions import add_bias

ModuleDef = Callable[..., Any]
Init = Callable[..., Array]


# Weighted layers.


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
