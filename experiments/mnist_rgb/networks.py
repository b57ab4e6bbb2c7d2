"""The small networks of ProGAN's mode test, after Metz et al. 2017, arXiv:1611.02163.

Sizes and layers as in the Theano version of ProGAN (`G_mnist_mode_recovery`
and `D_mnist_mode_recovery`), with its normalization and without growing.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from gan_jax.models.progan import ProGAN
from gan_jax.nn.layers import EqualizedConv, EqualizedDense
from gan_jax.nn.norms import minibatch_stddev, pixel_norm
from gan_jax.ops.activations import leaky_relu
from gan_jax.ops.resampling import downsample, up_conv
from gan_jax.runtime.keys import key

WIDTHS = (32, 16, 8)  # channels of G at 8x8, 16x16 and 32x32; of D before division
DIM_Z = 64


class Generator(nn.Module):
  """z [b, 64] -> images [b, 32, 32, 3] in (-1, 1). One convolution per resolution."""

  @nn.compact
  def __call__(self, z: Array, *_: object) -> Array:
    activate = lambda x: pixel_norm(jnp.where(x >= 0, x, 0.3 * x))
    x = EqualizedDense((4, 4, 64), gain=2**0.5 / 4, name='dense')(pixel_norm(z))
    x = activate(x)
    for i, width in enumerate(WIDTHS):
      x = activate(EqualizedConv(width, apply_kernel=up_conv, name=f'conv{i}')(x))
    return jnp.tanh(EqualizedConv(3, gain=1.0, name='rgb')(x))


class Discriminator(nn.Module):
  """Images [b, 32, 32, 3] -> scores [b, 1]. One convolution per resolution."""

  divisor: int  # of the number of channels
  group: int  # of the minibatch standard deviation

  @nn.compact
  def __call__(self, x: Array, *_: object) -> Array:
    for i, width in enumerate(reversed(WIDTHS)):
      conv = partial(EqualizedConv, width // self.divisor, name=f'conv{i}')
      x = downsample(leaky_relu(conv()(x)))
    if self.is_initializing():  # outside the mesh axis
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
    else:
      x = minibatch_stddev(x, self.group)
    return EqualizedDense((1,), gain=1.0, name='score')(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class CrippledGAN(ProGAN):
  """ProGAN's loss on the small networks; K / divisor in the words of Metz et al."""

  divisor: int = key(4, 'channels of D are divided by it', at_least=1)

  @property
  def generator(self) -> Generator:
    return Generator()

  @property
  def discriminator(self) -> Discriminator:
    return Discriminator(self.divisor, self.mbstd_group)
