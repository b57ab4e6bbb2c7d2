"""Layers of the three families. Images are NHWC, kernels HWIO, embeddings [n, dim]."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num, PRNGKeyArray

from gan_jax.ops import block_convolution, blocks
from gan_jax.ops.attention import attend
from gan_jax.ops.blocks import FeatureMap
from gan_jax.ops.convolution import conv
from gan_jax.ops.platform import platform
from gan_jax.ops.pooling import max_pool
from gan_jax.ops.reductions import accumulation_dtype, add_bias

ModuleDef = Callable[..., Any]  # a module class, or a partial of one
Init = Callable[..., Array]  # key, shape, dtype -> array
ApplyKernel = Callable[[Array, Array], Array]  # feature map, kernel -> feature map
ApplyToMap = Callable[[FeatureMap, Array], FeatureMap]  # the same for maps in blocks


# BigGAN: layers whose weights can have a spectral scale.


def _normalized_product(
  module: nn.Module, name: str, x: Array, weight: Array
) -> tuple[Array, Array]:
  """x and weight in the module's dtype, the smaller one times the spectral scale.

  For a few images that is x, and the weight is read by the matrix
  product only. A batch of symbolic size, as in an export, counts as large.
  """
  dtype: Any = module.dtype
  if module.has_variable('scales', name):
    scale = module.get_variable('scales', name)
    if _scales_weight(x, weight.size):
      weight = weight * scale
    else:
      x = x.astype(scale.dtype) * scale
  return x.astype(dtype), weight.astype(dtype)


def _scales_weight(x: Array, weight_size: int) -> bool:
  return not isinstance(x.size, int) or weight_size <= x.size


def orthogonal_rows(
  key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, '...']:
  """Orthogonal initialization of a kernel reshaped to [inputs, outputs].

  The numbers are those of `nn.initializers.orthogonal`, which reads the diagonal with a
  gather.
  """
  inputs, outputs = math.prod(shape[:-1]), shape[-1]
  tall = max(inputs, outputs), min(inputs, outputs)
  q, r = jnp.linalg.qr(jax.random.normal(key, tall, dtype))
  index = jnp.arange(tall[1])
  diagonal = jnp.where(index[:, None] == index[None], r, -jnp.inf).max(
    0, initial=-jnp.inf
  )
  q *= jnp.sign(diagonal)[None]
  return (q if inputs >= outputs else q.T).reshape(shape)


def _fan_in_uniform(fan_in: int) -> Init:
  """Initializer uniform in +-1 / sqrt(fan_in)."""
  bound = fan_in**-0.5

  def init(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
  ) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def _add_bias(x: Array, bias: Array) -> Array:
  return add_bias(x, bias.astype(x.dtype))


class Conv(nn.Module):
  """Convolution with bias, [b, h, w, in] -> [b, h', w', features].

  `apply_kernel` is `conv`, `up_conv` or `down_conv`. The bias is initialized uniform in
  +-1 / sqrt(fan in), as in BigGAN-PyTorch. `apply_bias` adds it to a feature map.
  """

  features: int
  size: int = 3
  bias: bool = True
  apply_kernel: ApplyKernel = conv
  apply_bias: Callable[[Array, Array], Any] = _add_bias
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Any:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x = self.apply_kernel(*_normalized_product(self, 'kernel', x, kernel))
    if self.bias:
      init = _fan_in_uniform(self.size**2 * shape[2])
      bias = self.param('bias', init, (1, 1, 1, self.features))
      return self.apply_bias(x, bias)
    return x


def sum_of_convs(first: ModuleDef, x: Array, second: ModuleDef, y: Array) -> Array:
  """first()(x) + second()(y), of two partials of `Conv`.

  On a GPU the biases are added first: cuDNN adds one bias and a feature map to a
  convolution, and XLA would write that map again with its own bias.
  """
  if platform() != 'gpu':
    x = first()(x)
    return x + second()(y)
  apart = lambda x, bias: (x, bias)
  x, bias = first(apply_bias=apart)(x)
  y, other = second(apply_bias=apart)(y)
  return add_bias(x, (bias + other).astype(x.dtype)) + y


class Dense(nn.Module):
  """x @ kernel + bias, [b, in] -> [b, features]."""

  features: int
  bias: bool = True
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b c']) -> Float[Array, 'b o']:
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x, kernel = _normalized_product(self, 'kernel', x, kernel)
    x @= kernel
    if self.bias:
      init = _fan_in_uniform(shape[0])
      x += self.param('bias', init, (1, self.features)).astype(self.dtype)
    return x


class Embed(nn.Module):
  """Embedding of labels: integers [b], or weights over the classes [b, n]."""

  features: int
  n: int
  init_embedding: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, labels: Num[Array, 'b ...']) -> Float[Array, 'b features']:
    table = self.param('embedding', self.init_embedding, (self.n, self.features))
    if labels.ndim == 2:
      rows = labels.astype(self.dtype) @ table.astype(self.dtype)
    else:
      rows = table[labels].astype(self.dtype)
    if self.has_variable('scales', 'embedding'):
      rows *= self.get_variable('scales', 'embedding').astype(self.dtype)
    return rows


class Attention(nn.Module):
  """Self-attention with max-pooled keys and values (SAGAN, arXiv:1805.08318).

  On a GPU one product with all kernels, and one in the gradient, read x; and gamma
  multiplies the last kernel, so that its own gradient reads no feature map.
  """

  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    b, h, w, c = x.shape
    on_gpu, c8, wide = platform() == 'gpu', c // 8, accumulation_dtype(x.dtype)

    def project(features: int, name: str, apply_kernel: ApplyKernel = conv) -> Array:
      options = dict(size=1, bias=False, apply_kernel=apply_kernel, name=name)
      return self.conv(features, **options)(x)

    def pooled(x: Array) -> Array:
      return max_pool(x).reshape(b, (h // 2) * (w // 2), -1)

    if on_gpu and _scales_weight(x, c * c):
      kernel = partial(project, apply_kernel=lambda _, kernel: kernel)
      kernels = kernel(c8, 'theta'), kernel(c8, 'phi'), kernel(c // 2, 'g')
      projected = conv(x, jnp.concatenate(kernels, -1))
      query, rest = (
        projected[..., :c8].reshape(b, h * w, -1),
        pooled(projected[..., c8:]),
      )
      key, value = rest[..., :c8], rest[..., c8:]
    else:
      query = project(c8, 'theta').reshape(b, h * w, -1)
      key, value = pooled(project(c8, 'phi')), pooled(project(c // 2, 'g'))
    out = attend(query, key, value).reshape(b, h, w, c // 2)
    last = partial(self.conv, c, size=1, bias=False, name='o')
    gamma = self.param('gamma', nn.initializers.zeros, ())
    if on_gpu:
      scaled = lambda y, k: conv(y.astype(x.dtype), (k * gamma).astype(x.dtype))
      return x + last(dtype=wide, apply_kernel=scaled)(out)
    out = last()(out)
    return x + gamma.astype(x.dtype) * out


# ProGAN and StyleGAN: layers with equalized learning rate.


def _equalized_kernel(
  module: nn.Module, shape: tuple[int, ...], gain: float, lrmul: float, equalized: bool
) -> Array:
  """A kernel with standard deviation gain / sqrt(fan in) at initialization.

  With `equalized` the deviation is a run-time factor of parameters N(0, 1); without, it
  is that of the parameters. `lrmul` divides the parameters and multiplies the result.
  """
  he = gain * math.prod(shape[:-1]) ** -0.5
  stddev, factor = (1 / lrmul, he * lrmul) if equalized else (he / lrmul, lrmul)
  return module.param('kernel', nn.initializers.normal(stddev), shape) * factor


class EqualizedConv(nn.Module):
  """Convolution with equalized learning rate (ProGAN, section 4.1).

  `apply_kernel` is `conv`, `up_conv` or `down_conv` of `ops.block_convolution`: maps of
  few channels are in blocks of pixels on a TPU. The bias is initialized to 0.
  """

  features: int
  size: int = 3
  gain: float = 2**0.5
  bias: bool = True
  apply_kernel: ApplyToMap = block_convolution.conv
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: FeatureMap) -> FeatureMap:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = _equalized_kernel(self, shape, self.gain, 1.0, self.equalized)
    x = self.apply_kernel(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, self.features))
      x = blocks.add_bias(x, bias.astype(self.dtype))
    return x


class EqualizedDense(nn.Module):
  """Dense layer with equalized learning rate, [b, in] -> [b, *features].

  Features of several dimensions are a feature map with one bias per channel. `lrmul`
  scales the learning rate of kernel and bias.
  """

  features: tuple[int, ...]
  gain: float = 2**0.5
  lrmul: float = 1.0
  bias: bool = True
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b c']) -> Float[Array, 'b ...']:
    shape = (x.shape[-1], math.prod(self.features))
    kernel = _equalized_kernel(self, shape, self.gain, self.lrmul, self.equalized)
    x = x.astype(self.dtype) @ kernel.astype(self.dtype)
    x = x.reshape(-1, *self.features)
    if self.bias:
      bias_shape = (1,) * len(self.features) + self.features[-1:]
      bias = self.param('bias', nn.initializers.zeros, bias_shape) * self.lrmul
      x += bias.astype(self.dtype)
    return x
