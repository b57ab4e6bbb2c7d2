"""Progressive growing and the discriminator, which ProGAN and StyleGAN share.

The original codebases count levels of detail (lod) down from the final resolution R:
lod 0 is R, lod k is R / 2^k, and fractions blend two resolutions. A `Phase` has the
highest resolution in use and how far it has faded in, alpha in (0, 1]:

  res = R / 2^floor(lod),  alpha = 1 - (lod - floor(lod)).

Networks work at `res`. The originals repeat pixels up to R, which only changes the
scale of gradient penalties (`pixel_copies`). The layers of all resolutions up to R have
parameters from the start. Those beyond `res` are not used; their gradients are zero.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax import UserError
from gan_jax.models.base import (
  Batch,
  Blocks,
  Network,
  Phase,
  SamplingDefaults,
  Variables,
  to_float,
)
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef
from gan_jax.nn.norms import minibatch_stddev
from gan_jax.ops.activations import leaky_relu, relu
from gan_jax.ops.convolution import conv
from gan_jax.ops.resampling import blur, down_conv, downsample, upsample


def published_widths(
  res: int, base: int = 8192, decay: float = 1.0, most: int = 512
) -> tuple[int, ...]:
  """Channels of the papers' networks at 1x1, 4x4, 8x8, ..., res."""
  stages = range(res.bit_length() - 1)
  return tuple(min(int(base / 2 ** (s * decay)), most) for s in stages)


def check_resolutions(res: int, widths: dict[str, tuple[int, ...]]) -> None:
  """Checks the resolution and the tables of widths, by their config keys.

  Raises:
    UserError: the resolution is not a power of two from 4 up, or a table that is not
      empty has a different number of entries.
  """
  if res < 4 or res & (res - 1):
    raise UserError(f'model.res is {res}: growing takes powers of two from 4 up.')
  stages = res.bit_length() - 1
  for name, table in widths.items():
    if table and len(table) != stages:
      raise UserError(
        f'model.{name} has {len(table)} entries: model.res={res} needs {stages}, for '
        '1x1, 4x4 and each doubling.'
      )


def pixel_copies(res: int, phase: Phase) -> int:
  """Number of pixels of the final resolution in one pixel of the phase's."""
  return (res // phase.res) ** 2


def lerp(
  a: Float[Array, '...'], b: Float[Array, '...'], t: ArrayLike
) -> Float[Array, '...']:
  """Linear interpolation from a (t = 0, exactly) to b (t = 1)."""
  return a + (b - a) * jnp.asarray(t, a.dtype)


def fade(images: Float[Array, 'b h w c'], alpha: ArrayLike) -> Float[Array, 'b h w c']:
  """Blends real images with their half-resolution version, as the networks do."""
  if images.shape[1] == 4:  # the lowest resolution
    return images
  return lerp(images, upsample(downsample(images)), 1 - alpha)


def blend_reals(
  batch: Batch, phase: Phase, dtype: DTypeLike
) -> Float[Array, 'b h w c']:
  """The batch's real images as D sees them: in [-1, 1], at phase.res, faded.

  Raises:
    UserError: the images have another resolution.
  """
  size = batch.images.shape[1:3]
  if size != (phase.res, phase.res):
    raise UserError(
      f'the batch has images of {size[0]}x{size[1]}, but training has come to '
      f'{phase.res}x{phase.res}: take data at the resolution of the phase.'
    )
  return fade(to_float(batch.images, dtype), phase.alpha)


def one_hot(labels: Num[Array, 'b ...'], n: int) -> Float[Array, 'b n']:
  """Class weights of integer labels [b]; weights [b, n] are returned as they are."""
  return jax.nn.one_hot(labels, n) if labels.ndim == 1 else labels


def draw_labels(keys: PRNGKeyArray, n_classes: int) -> Int[Array, ' b']:
  """One label per key [b], uniform over the classes; 0 without classes."""
  draw = lambda k: jax.random.randint(k, (), 0, max(n_classes, 1))
  return jax.vmap(draw)(keys)


class ProgressiveGAN:
  """The part of the GAN protocol that ProGAN and StyleGAN share."""

  ema_lags: ClassVar[bool] = True
  remat: ClassVar[bool | None] = None

  res: int
  mbstd_group: int

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each resolution."""
    sizes = self.block_sizes if network == 'g' else self.block_sizes[::-1]
    blocks = [(f'conv{size}', f'conv{size}_*', f'rgb{size}') for size in sizes]
    return tuple(blocks)

  @property
  def block_sizes(self) -> tuple[int, ...]:
    """4, 8, ..., res."""
    return tuple(4 << i for i in range(self.res.bit_length() - 2))

  @property
  def group(self) -> int:
    """Group size of the minibatch standard deviation."""
    return max(self.mbstd_group, 1)

  @property
  def sampling_defaults(self) -> SamplingDefaults:
    """No truncation."""
    return SamplingDefaults()

  @property
  def has_batch_stats(self) -> bool:
    """False: no batch statistics."""
    return False

  @property
  def shares_batch_stats(self) -> bool:
    """False: no batch statistics."""
    return False

  def standing_statistics(
    self, g: Variables, z: Float[Array, 'n b dim_z'], labels: Int[Array, 'n b']
  ) -> Variables:
    """g itself, which has no batch statistics."""
    del z, labels
    return g


class ProgressiveDiscriminator(nn.Module):
  """Images [b, res, res, c], static res, alpha -> outputs [b, outputs].

  `widths` are the channels at 1x1 (the hidden dense layer), 4x4, 8x8, ... Images enter
  at `res`. During a fade they also enter downsampled, one block later, and the feature
  maps are blended.
  """

  res: int  # final
  widths: tuple[int, ...]
  outputs: int = 1
  group: int = 4  # of the minibatch standard deviation
  features: int = 1  # channels of the minibatch standard deviation
  blur: tuple[int, ...] = ()  # filter before downsampling; (1, 2, 1) in StyleGAN
  fused: bool = True  # downsample inside the convolution; False: after the activation
  norm: ModuleDef | None = None  # before each activation but that of from-RGB layers
  compare: ModuleDef | None = None  # appends features that compare the examples
  relu: bool = False  # instead of leaky ReLU
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], res: int, alpha: ArrayLike
  ) -> Float[Array, 'b outputs']:
    weights = dict(equalized=self.equalized, dtype=self.dtype)
    conv_ = partial(EqualizedConv, bias=self.norm is None, **weights)
    dense = partial(EqualizedDense, **weights)
    act = relu if self.relu else leaky_relu
    widths = {2 << i: w for i, w in enumerate(self.widths)}  # at 2: the dense layer's
    initializing = self.is_initializing()

    def from_rgb(image: Array, size: int) -> Array:
      layer = EqualizedConv(widths[size], size=1, name=f'rgb{size}', **weights)
      return act(layer(image))

    def finish(x: Array, name: str) -> Array:
      return act(x if self.norm is None else self.norm(name=f'{name}_norm')(x))

    def block(x: Array, size: int) -> Array:
      name = f'conv{size}'
      x = finish(conv_(widths[size], name=name)(x), name)
      if self.blur:
        x = blur(x, self.blur)
      apply_kernel = down_conv if self.fused else conv
      layer = conv_(widths[size // 2], apply_kernel=apply_kernel, name=f'{name}_down')
      x = finish(layer(x), f'{name}_down')
      return x if self.fused else downsample(x)

    image, size = x, self.res if initializing else res
    x = from_rgb(image, size)
    while size > 4:
      x = block(x, size)
      if size == res or initializing:
        image = downsample(image)
        x = lerp(x, from_rgb(image, size // 2), 1 - alpha)
      size //= 2
    if self.group > 1 and not initializing:
      x = minibatch_stddev(x, self.group, self.features)
    elif self.group > 1:  # initialization runs outside the mesh axis
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features)))
    x = finish(conv_(widths[4], name='conv4')(x), 'conv4')
    x = x.reshape(len(x), -1)
    x = finish(dense((widths[2],), bias=self.norm is None, name='dense0')(x), 'dense0')
    if self.compare is not None:
      x = self.compare(name='compare')(x)
    x = dense((self.outputs,), gain=1.0, name='dense1')(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
