"""Progressive growing and the discriminator, which ProGAN and StyleGAN share.

The original codebases count levels of detail (lod) down from the final resolution R:
lod 0 is R, lod k is R / 2^k, and fractions blend two resolutions. A `Phase` has the
highest resolution in use and how far it has faded in, alpha in (0, 1]:

  res = R / 2^floor(lod),  alpha = 1 - (lod - floor(lod)).

Networks work at `res`. The originals repeat pixels up to R, which only changes the
scale of gradient penalties (`pixel_copies`). The layers of all resolutions up to R have
parameters from the start. Those beyond `res` are not used; their gradients are zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

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
from gan_jax.models.first_map import SQUARE, ImageSize
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef
from gan_jax.nn.norms import minibatch_stddev
from gan_jax.ops import block_convolution
from gan_jax.ops.blocks import FeatureMap, leaky_relu, map_values, relu
from gan_jax.ops.reductions import accumulation_dtype
from gan_jax.ops.resampling import downsample, upsample
from gan_jax.runtime.image_size import size_at


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


def dtype_at(size: int, dtype: str, bfloat16_from: int) -> str:
  """dtype of the layers at a resolution: bfloat16 from `bfloat16_from` on, if not 0."""
  return 'bfloat16' if 0 < bfloat16_from <= size else dtype


def pixel_copies(res: int, phase: Phase) -> int:
  """Number of pixels of the final resolution in one pixel of the phase's."""
  return (res // phase.res) ** 2


def lerp(a: Any, b: Any, t: ArrayLike) -> Any:
  """Linear interpolation from a (t = 0, exactly) to b (t = 1), of arrays or maps."""
  return map_values(lambda a, b: a + (b - a) * jnp.asarray(t, a.dtype), a, b)


def blend_images(
  images: list[Float[Array, 'b h w c']],
  alpha: ArrayLike,
  output: Callable[[Array], Array] | None = None,
) -> Float[Array, 'b h w c']:
  """Images of the highest resolution, blended with those of the one below.

  Args:
    images: of the last resolutions, the highest last; one if nothing is blended.
    alpha: weight of the highest.
    output: applied to the blended images.

  Returns:
    The images, in float32 or float64.
  """
  image = images[-1]
  if len(images) > 1:
    below = upsample(images[-2])
    if below.dtype != image.dtype:
      below, image = (x.astype(accumulation_dtype(x.dtype)) for x in (below, image))
    image = lerp(image, below, 1 - alpha)
  image = output(image) if output is not None else image
  return image.astype(accumulation_dtype(image.dtype))


def fade(images: Float[Array, 'b h w c'], alpha: ArrayLike) -> Float[Array, 'b h w c']:
  """Blends real images with their half-resolution version, as the networks do."""
  return lerp(images, upsample(downsample(images)), 1 - alpha)


def blend_reals(
  batch: Batch, phase: Phase, dtype: DTypeLike, first_map: tuple[int, ...] = SQUARE
) -> Float[Array, 'b h w c']:
  """The batch's real images as D sees them: in [-1, 1], at phase.res, faded.

  Raises:
    UserError: the images have another resolution.
  """
  height, width = batch.images.shape[1:3]
  needed = size_at(first_map, phase.res)
  if (height, width) != needed:
    raise UserError(
      f'the batch has images of {width}x{height}, but training has come to '
      f'{needed[1]}x{needed[0]}: take data at the resolution of the phase.'
    )
  images = to_float(batch.images, dtype)
  return images if phase.res == 4 else fade(images, phase.alpha)


def one_hot(labels: Num[Array, 'b ...'], n: int) -> Float[Array, 'b n']:
  """Class weights of integer labels [b]; weights [b, n] are returned as they are."""
  return jax.nn.one_hot(labels, n) if labels.ndim == 1 else labels


def draw_labels(keys: PRNGKeyArray, n_classes: int) -> Int[Array, ' b']:
  """One label per key [b], uniform over the classes; 0 without classes."""
  draw = lambda k: jax.random.randint(k, (), 0, max(n_classes, 1))
  return jax.vmap(draw)(keys)


class ProgressiveGAN(ImageSize):
  """The part of the GAN protocol that ProGAN and StyleGAN share."""

  ema_lags: ClassVar[bool] = True
  grows: ClassVar[bool] = True
  remat: ClassVar[bool | None] = None

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
  """Images [b, h, w, c], static res, alpha -> outputs [b, outputs].

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
  bfloat16_from: int = 0  # resolution from which layers use bfloat16; 0: none

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], res: int, alpha: ArrayLike
  ) -> Float[Array, 'b outputs']:
    at = partial(dtype_at, dtype=self.dtype, bfloat16_from=self.bfloat16_from)
    conv_ = partial(
      EqualizedConv, bias=self.norm is None, equalized=self.equalized, dtype=at(4)
    )
    dense = partial(EqualizedDense, equalized=self.equalized, dtype=at(4))
    act = relu if self.relu else leaky_relu
    widths = {2 << i: w for i, w in enumerate(self.widths)}  # at 2: the dense layer's
    initializing = self.is_initializing()

    def from_rgb(image: Array, size: int) -> FeatureMap:
      layer = partial(EqualizedConv, widths[size], size=1, name=f'rgb{size}')
      return act(layer(equalized=self.equalized, dtype=at(size))(image))

    def finish(x: FeatureMap, name: str) -> Any:
      return act(x if self.norm is None else self.norm(name=f'{name}_norm')(x))

    def block(x: FeatureMap, size: int) -> FeatureMap:
      name, conv = f'conv{size}', partial(conv_, dtype=at(size))
      x = finish(conv(widths[size], name=name)(x), name)
      down = partial(block_convolution.down_conv, taps=self.blur)
      apply_kernel = down if self.fused else block_convolution.conv
      layer = conv(widths[size // 2], apply_kernel=apply_kernel, name=f'{name}_down')
      x = finish(layer(x), f'{name}_down')
      return x if self.fused else block_convolution.downsample(x)

    size = self.res if initializing else res
    x: Any = from_rgb(image, size)
    while size > 4:
      x = block(x, size)
      if size == res or initializing:
        image = downsample(image)
        rgb = from_rgb(image, size // 2)
        x = lerp(x.astype(rgb.dtype), rgb, 1 - alpha)
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
    return x.astype(accumulation_dtype(x.dtype))
