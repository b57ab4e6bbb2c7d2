"""Normalisation of activations, and statistics over images and batches; NHWC."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.nn.layers import ModuleDef
from gan_jax.ops.reductions import (
  accumulation_dtype,
  image_sums,
  moments,
  scale_and_shift,
)
from gan_jax.runtime.mesh import AXIS

_EPS = 1e-8  # of the growing GANs

# Sums, and what is made of them.


class BatchStatistics(nn.Module):
  """Mean and 1 / deviation, [1, 1, 1, c], of the mesh's batch or of groups of devices.

  In training the stored statistics move by `momentum` towards the batch's; with
  momentum 1 they *are* the batch's, which is what standing statistics average.
  `ddof` is 1 for torch's stored variance, 0 for the one of BigGAN-PyTorch's `mybn`.
  """

  eps: float = 1e-5
  momentum: float = 0.1
  ddof: int = 1
  group: int = 0  # devices that share statistics; 0: all

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    shape = (1, 1, 1, x.shape[-1])
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if train and not self.is_initializing():
      devices, count = lax.axis_size(AXIS), x.size // x.shape[-1]
      groups = None
      if self.group and self.group < devices:
        groups = [list(range(i, i + self.group)) for i in range(0, devices, self.group)]
        devices = self.group
      means = jnp.stack([s.sum(0, keepdims=True) for s in moments(x)]) / count
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
  """Batch norm, then a gain and bias per channel: learned, or told by a condition.

  `project(features, name=...)` turns the condition into 1 + gain and bias
  (BigGAN, appendix C); without it both are plain parameters.
  """

  stats: ModuleDef
  project: ModuleDef | None = None

  @nn.compact
  def __call__(self, x: Array, condition: Array | None, train: bool) -> Array:
    c = x.shape[-1]
    mean, scale = self.stats(name='stats')(x, train)
    if self.project is None:
      gain = self.param('gain', nn.initializers.ones, (1, 1, 1, c))
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, c))
    else:
      gain = 1 + self.project(c, name='gain')(condition)[:, None, None]
      bias = self.project(c, name='bias')(condition)[:, None, None]
    return scale_and_shift(
      x, mean, scale * gain.astype(scale.dtype), bias.astype(scale.dtype)
    )


def pixel_norm(x: Array) -> Array:
  """Channels to a root mean square of 1, at each pixel (ProGAN, section 4.2)."""
  square = jnp.square(x.astype(accumulation_dtype(x.dtype))).mean(-1, keepdims=True)
  return x * lax.rsqrt(square + _EPS).astype(x.dtype)


@jax.custom_vjp
def image_statistics(x: Array) -> tuple[Array, Array]:
  """Mean and variance of each channel of each image: [b, h, w, c] -> [b, 1, 1, c]."""
  n, wide = x.shape[1] * x.shape[2], x.astype(accumulation_dtype(x.dtype))
  mean = image_sums(wide) / n
  return mean, image_sums(jnp.square(wide - mean)) / n


def _image_statistics_forward(x):
  mean, variance = image_statistics(x)
  return (mean, variance), (x, mean)


def _image_statistics_backward(saved, g):
  (x, mean), (by_mean, by_variance) = saved, g
  n = x.shape[1] * x.shape[2]
  moved = by_mean + 2 * (x.astype(mean.dtype) - mean) * by_variance
  return ((moved / n).astype(x.dtype),)


image_statistics.defvjp(_image_statistics_forward, _image_statistics_backward)


def instance_norm(x: Array, gain: ArrayLike = 1, bias: ArrayLike = 0) -> Array:
  """Each channel of each image to mean 0 and variance 1, [b, h, w, c]; then a gain
  and a bias, [b, 1, 1, c] (StyleGAN, section 3)."""
  mean, variance = image_statistics(x)
  scale = lax.rsqrt(variance + _EPS)
  bias = jnp.broadcast_to(jnp.asarray(bias, scale.dtype), scale.shape)
  return scale_and_shift(x, mean, scale * jnp.asarray(gain, scale.dtype), bias)


def minibatch_stddev(x: Array, group: int = 4, features: int = 1) -> Array:
  """Appends the mean standard deviation over groups of the batch as last channels.

  A group is `group` consecutive examples of the *global* batch, so that the number
  of devices changes nothing; a group that spans devices is gathered over the mesh
  axis. The original's groups are strided: the same function of a permuted batch.
  Each of `features` channels averages over its part of the channels and all pixels.
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
  wide = y.astype(jnp.promote_types(x.dtype, jnp.float32))
  wide = wide.reshape(-1, group, h, w, features, c // features)
  variance = jnp.square(wide - wide.mean(1, keepdims=True)).mean(1)
  stddev = jnp.sqrt(variance + 1e-8).mean((1, 2, 4)).astype(x.dtype)
  stddev = jnp.repeat(stddev, group, axis=0)
  if spans:
    stddev = lax.dynamic_slice_in_dim(stddev, lax.axis_index(AXIS) * b, b)
  tiled = jnp.broadcast_to(stddev[:, None, None], (b, h, w, features))
  return jnp.concatenate([x, tiled], -1)
