"""What ProGAN and StyleGAN share: progressive growing and the discriminator.

The original codebases count levels of detail down from the final resolution R: lod 0
is R, lod k is R / 2^k, and in between two resolutions blend. Here a phase has the
highest resolution in use and how far that has faded in, alpha in (0, 1]:

  res = R / 2^floor(lod),  alpha = 1 - (lod - floor(lod)).

Networks work at `res`; the originals repeat pixels up to R, which changes nothing but
the scale of gradient penalties (`copies`). Every layer up to R has its parameters from
the start; those beyond `res` do not enter, so their gradients are exactly zero.
"""

import math
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.models.base import Batch, Phase, Variables, to_float
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, leaky_relu
from gan_jax.nn.norms import minibatch_stddev
from gan_jax.ops.convolution import conv
from gan_jax.ops.resampling import blur, down_conv, downsample, upsample


def published_widths(
  res: int, base: int = 8192, decay: float = 1.0, most: int = 512
) -> tuple[int, ...]:
  """Channels of the papers' networks: at 1x1, 4x4, 8x8, ... up to res."""
  stages = range(res.bit_length() - 1)
  return tuple(min(int(base / 2 ** (s * decay)), most) for s in stages)


def check_resolutions(res: int, widths: dict[str, tuple[int, ...]]) -> None:
  """Raises a UserError for a resolution or a table of widths without a network."""
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
  """Pixels of the final resolution in a pixel of this phase."""
  return (res // phase.res) ** 2


def lerp(a: Array, b: Array, t: ArrayLike) -> Array:
  """From a (t = 0, exactly) to b."""
  return a + (b - a) * jnp.asarray(t, a.dtype)


def fade(images: Array, alpha: ArrayLike) -> Array:
  """Real pictures [b, h, w, c] with as little detail as the networks see or draw."""
  if images.shape[1] == 4:  # nothing below to fade from
    return images
  return lerp(images, upsample(downsample(images)), 1 - alpha)


def blend_reals(batch: Batch, phase: Phase, dtype) -> Array:
  """The batch's pictures as D sees them: [-1, 1] at phase.res, faded.

  Raises:
    UserError: pictures of another resolution.
  """
  size = batch.images.shape[1:3]
  if size != (phase.res, phase.res):
    raise UserError(
      f'the batch has pictures of {size[0]}x{size[1]}, but training has come to '
      f'{phase.res}x{phase.res}: take data at the resolution of the phase.'
    )
  return fade(to_float(batch.images, dtype), phase.alpha)


def one_hot(labels: Array, n: int) -> Array:
  """Class weights [b, n] of integer labels [b]; weights are passed through."""
  return jax.nn.one_hot(labels, n) if labels.ndim == 1 else labels


def draw_labels(key: Array, n_classes: int) -> Array:
  """A label of each key [b], uniform over the classes."""
  draw = lambda k: jax.random.randint(k, (), 0, max(n_classes, 1))
  return jax.vmap(draw)(key)


class ProgressiveGAN:
  """What ProGAN and StyleGAN say alike to the training step and the sampler."""

  ema_lags: ClassVar[bool] = True
  has_batch_stats: ClassVar[bool] = False
  shares_batch_stats: ClassVar[bool] = False
  remat: ClassVar[bool | None] = None
  psi_threshold: ClassVar[float] = math.inf

  mbstd_group: int

  @property
  def group(self) -> int:
    """Examples that minibatch standard deviation puts together."""
    return max(self.mbstd_group, 1)

  def standing_statistics(self, g: Variables, z: Array, labels: Array) -> Variables:
    """g itself: there are no batch statistics."""
    del z, labels
    return g


class ProgressiveDiscriminator(nn.Module):
  """Images [b, res, res, c], static res, alpha -> outputs [b, outputs].

  `widths` are channels at 1x1 (the hidden dense layer), 4x4, 8x8, ... The picture
  enters at `res` and, during a fade, halved, one block further down: features blend.
  """

  res: int  # final
  widths: tuple[int, ...]
  outputs: int = 1
  group: int = 4  # of the minibatch standard deviation
  features: int = 1  # of it
  blur: tuple[int, ...] = ()  # filter before pooling; StyleGAN's is (1, 2, 1)
  fused: bool = True  # pool inside the conv; else after bias and activation
  relu: bool = False  # in place of the leaky one
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, res: int, alpha: ArrayLike) -> Array:
    weights = dict(equalized=self.equalized, dtype=self.dtype)
    conv_, dense = partial(EqualizedConv, **weights), partial(EqualizedDense, **weights)
    act = nn.relu if self.relu else leaky_relu
    widths = {2 << i: w for i, w in enumerate(self.widths)}  # the 1x1 map's under 2
    everything = self.is_initializing()

    def from_rgb(image: Array, size: int) -> Array:
      return act(conv_(widths[size], size=1, name=f'rgb{size}')(image))

    image, size = x, self.res if everything else res
    x = from_rgb(image, size)
    while size > 4:
      below = size // 2
      x = act(conv_(widths[size], name=f'conv{size}')(x))
      if self.blur:
        x = blur(x, self.blur)
      down = conv_(
        widths[below],
        apply_kernel=down_conv if self.fused else conv,
        name=f'conv{size}_down',
      )
      x = act(down(x))
      if not self.fused:
        x = downsample(x)
      if size == res or everything:
        image = downsample(image)
        x = lerp(x, from_rgb(image, below), 1 - alpha)
      size = below
    if self.group > 1 and not everything:
      x = minibatch_stddev(x, self.group, self.features)
    elif self.group > 1:  # outside the mesh axis
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features)))
    x = act(conv_(widths[4], name='conv4')(x))
    x = x.reshape(len(x), -1)
    x = act(dense((widths[2],), name='dense0')(x))
    x = dense((self.outputs,), gain=1.0, name='dense1')(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
