"""Normalization of activations, and statistics over images and batches; NHWC."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax import UserError
from gan_jax.nn.layers import ModuleDef
from gan_jax.ops import blocks
from gan_jax.ops.blocks import FeatureMap
from gan_jax.ops.reductions import (
  accumulation_dtype,
  image_sums,
  moments,
  scale_and_shift,
)
from gan_jax.runtime.mesh import AXIS

_EPS = 1e-8  # of ProGAN and StyleGAN

# Batch normalization.


class BatchStatistics(nn.Module):
  """Mean and 1 / standard deviation of each channel, [1, 1, 1, c].

  In training they are those of the global batch, or of a group of devices, and the
  stored statistics move towards them by `momentum`. With momentum 1 the stored
  statistics are the batch's, as standing statistics need. Outside training the stored
  ones are used.
  """

  eps: float = 1e-5
  momentum: float = 0.1
  ddof: int = 1  # of the stored variance: 1 in torch, 0 in BigGAN-PyTorch's `mybn`
  group: int = 0  # number of devices that share statistics; 0 for all

  @nn.compact
  def __call__(
    self, x: FeatureMap, train: bool
  ) -> tuple[Float[Array, '1 1 1 c'], Float[Array, '1 1 1 c']]:
    shape = (1, 1, 1, x.shape[-1])
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if train and not self.is_initializing():
      devices, count = lax.axis_size(AXIS), math.prod(x.shape[:-1])
      groups = None
      if self.group and self.group < devices:
        groups = [list(range(i, i + self.group)) for i in range(0, devices, self.group)]
        devices = self.group
      sums = (blocks.sum_pixels(x, s) for s in moments(blocks.values_of(x)))
      means = jnp.stack([s.sum(0, keepdims=True) for s in sums]) / count
      m, square = lax.pmean(means, AXIS, axis_index_groups=groups)
      v = square - jnp.square(m)
      count *= devices
      stored = v * (count / max(count - self.ddof, 1))
      mean.value = (1 - self.momentum) * mean.value + self.momentum * m
      var.value = (1 - self.momentum) * var.value + self.momentum * stored
    else:
      m, v = mean.value, var.value
    dtype = accumulation_dtype(x.dtype)
    return m.astype(dtype), lax.rsqrt(v + self.eps).astype(dtype)


class Norm(nn.Module):
  """Batch normalization with a gain and a bias per channel.

  `project(features, name=...)` computes gain - 1 and bias from the condition (BigGAN,
  appendix C). Without it both are parameters and the condition is not used.
  """

  stats: ModuleDef
  project: ModuleDef | None = None

  @nn.compact
  def __call__(self, x: FeatureMap, condition: Array | None, train: bool) -> FeatureMap:
    c = x.shape[-1]
    mean, scale = self.stats(name='stats')(x, train)
    if self.project is None:
      gain = self.param('gain', nn.initializers.ones, (1, 1, 1, c))
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, c))
    else:
      gain = 1 + self.project(c, name='gain')(condition)[:, None, None]
      bias = self.project(c, name='bias')(condition)[:, None, None]
    return scale_channels(
      x, mean, scale * gain.astype(scale.dtype), bias.astype(scale.dtype)
    )


# Normalization within one example.


class LayerNorm(nn.Module):
  """Normalizes all values of an example; then one gain, and a bias per channel.

  Source: Ba et al. 2016, arXiv:1607.06450, with the single gain of ProGAN's Theano
  version.
  """

  eps: float = 1e-4

  @nn.compact
  def __call__(self, x: Any) -> Any:
    axes = tuple(range(1, len(x.shape)))
    gain = self.param('gain', nn.initializers.ones, ())
    bias_shape = (1,) * (len(x.shape) - 1) + x.shape[-1:]
    bias = self.param('bias', nn.initializers.zeros, bias_shape)
    wide = blocks.values_of(x).astype(accumulation_dtype(x.dtype))
    centered = wide - wide.mean(axes, keepdims=True)
    variance = jnp.square(centered).mean(axes, keepdims=True)
    y = centered * (lax.rsqrt(variance + self.eps) * gain)
    y = blocks.like(x, y.astype(x.dtype))
    return blocks.add_bias(y, bias.astype(x.dtype))


def pixel_norm(x: Any) -> Any:
  """Scales channels to a root mean square of 1 (ProGAN, section 4.2).

  Args:
    x: vectors [b, c], or a feature map in either layout.
  """
  values = blocks.values_of(x)
  squares = jnp.square(values.astype(accumulation_dtype(x.dtype)))
  square = blocks.channel_means(x, squares)
  return blocks.like(x, values * lax.rsqrt(square + _EPS).astype(x.dtype))


@jax.custom_vjp
def image_statistics(
  x: Float[Array, 'b h w c'],
) -> tuple[Float[Array, 'b 1 1 c'], Float[Array, 'b 1 1 c']]:
  """Mean and variance of each channel of each image."""
  n, wide = x.shape[1] * x.shape[2], x.astype(accumulation_dtype(x.dtype))
  mean = image_sums(wide) / n
  return mean, image_sums(jnp.square(wide - mean)) / n


def _image_statistics_forward(
  x: Array,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
  mean, variance = image_statistics(x)
  return (mean, variance), (x, mean)


def _image_statistics_backward(
  residuals: tuple[Array, Array], g: tuple[Array, Array]
) -> tuple[Array]:
  (x, mean), (by_mean, by_variance) = residuals, g
  n = x.shape[1] * x.shape[2]
  total = by_mean + 2 * (x.astype(mean.dtype) - mean) * by_variance
  return ((total / n).astype(x.dtype),)


image_statistics.defvjp(_image_statistics_forward, _image_statistics_backward)


def map_statistics(
  x: FeatureMap,
) -> tuple[Float[Array, 'b 1 1 c'], Float[Array, 'b 1 1 c']]:
  """`image_statistics` of a map in either layout."""
  mean, variance = image_statistics(blocks.values_of(x))
  if not isinstance(x, blocks.PixelBlocks):
    return mean, variance
  pixels = x.size[0] * x.size[1]
  whole = blocks.sum_pixels(x, mean) / pixels
  variance += jnp.square(mean - blocks.repeat_channels(x, whole))
  return whole, blocks.sum_pixels(x, variance) / pixels


def instance_norm(
  x: FeatureMap, gain: ArrayLike = 1, bias: ArrayLike = 0
) -> FeatureMap:
  """Normalizes each channel of each image, then applies gain and bias [b, 1, 1, c].

  Source: StyleGAN, section 3 (AdaIN).
  """
  mean, variance = map_statistics(x)
  scale = lax.rsqrt(variance + _EPS)
  bias = jnp.broadcast_to(jnp.asarray(bias, scale.dtype), scale.shape)
  return scale_channels(x, mean, scale * jnp.asarray(gain, scale.dtype), bias)


def scale_channels(x: FeatureMap, mean: Array, scale: Array, bias: Array) -> FeatureMap:
  """`scale_and_shift` of a map in either layout."""
  each = (blocks.repeat_channels(x, a) for a in (mean, scale, bias))
  return blocks.like(x, scale_and_shift(blocks.values_of(x), *each))


def minibatch_stddev(
  x: Float[Array, 'b h w c'], group: int = 4, features: int = 1
) -> Float[Array, 'b h w c+features']:
  """Appends channels that hold the mean standard deviation of a group of examples.

  A group is `group` consecutive examples of the global batch, independent of the number
  of devices; a group that spans devices is gathered over the mesh axis. The original
  code uses strided groups, which is the same function of a permuted batch. Each of the
  `features` channels averages over its share of the channels and over all pixels.

  Raises:
    UserError: the global batch is not divisible by `group`.
  """
  b, h, w, c = x.shape
  devices = lax.axis_size(AXIS)
  group = min(group, b * devices)
  if b * devices % group:
    raise UserError(
      f'a batch of {b * devices} does not divide into groups of {group} for the '
      'minibatch standard deviation (model.mbstd_group).'
    )
  spans = b % group != 0
  y = lax.all_gather(x, AXIS, tiled=True) if spans else x
  wide = y.astype(accumulation_dtype(x.dtype))
  wide = wide.reshape(-1, group, h, w, features, c // features)
  variance = jnp.square(wide - wide.mean(1, keepdims=True)).mean(1)
  stddev = jnp.sqrt(variance + 1e-8).mean((1, 2, 4)).astype(x.dtype)
  stddev = jnp.repeat(stddev, group, axis=0)
  if spans:
    stddev = lax.dynamic_slice_in_dim(stddev, lax.axis_index(AXIS) * b, b)
  tiled = jnp.broadcast_to(stddev[:, None, None], (b, h, w, features))
  return jnp.concatenate([x, tiled], -1)
