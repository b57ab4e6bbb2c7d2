"""ProGAN: progressive growing of GANs (Karras et al. 2018, arXiv:1710.10196)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax.models import losses, progressive
from gan_jax.models.augmentation import UNAUGMENTED, Augment
from gan_jax.models.base import (
  Batch,
  Blocks,
  Loss,
  Network,
  Phase,
  Variables,
  example_keys,
)
from gan_jax.models.first_map import SQUARE, check_first_map, first_map_key
from gan_jax.models.progressive import (
  ProgressiveDiscriminator,
  blend_images,
  dtype_at,
  one_hot,
)
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef
from gan_jax.nn.minibatch_discrimination import MinibatchDiscrimination
from gan_jax.nn.norms import BatchStatistics, LayerNorm, Norm, pixel_norm
from gan_jax.ops.block_convolution import up_conv
from gan_jax.ops.blocks import FeatureMap, leaky_relu, relu
from gan_jax.runtime.keys import REQUIRED, check_ranges, key

Activation = Callable[[Array], Array]


def identity(x: Array) -> Array:
  """x itself."""
  return x


class Generator(nn.Module):
  """z [b, dim_z], class weights [b, n], static res, alpha -> images [b, h, w, c].

  `widths` are the channels at 4x4, 8x8, ... The output layer is linear. During a fade
  the images of the two highest resolutions are blended.
  """

  res: int  # final
  widths: tuple[int, ...]
  channels: int = 3
  first_map: tuple[int, ...] = SQUARE
  normalize_z: bool = True  # pixel norm of z and the class weights together
  norm: bool = True  # pixel norm after each activation
  batch_norm: ModuleDef | None = None  # of (x, None, train), before each activation
  output: Activation = identity  # of the images
  relu: bool = False  # instead of leaky ReLU
  equalized: bool = True
  dtype: str = 'float32'
  bfloat16_from: int = 0  # resolution from which layers use bfloat16; 0: none

  @nn.compact
  def __call__(
    self,
    z: Float[Array, 'b dim_z'],
    weights: Float[Array, 'b n'],
    res: int,
    alpha: ArrayLike,
    train: bool = False,
  ) -> Float[Array, 'b h w c']:
    at = partial(dtype_at, dtype=self.dtype, bfloat16_from=self.bfloat16_from)
    layer = dict(bias=self.batch_norm is None, equalized=self.equalized)
    conv_ = partial(EqualizedConv, **layer)
    initializing = self.is_initializing()

    def finish(x: FeatureMap, name: str) -> Any:
      if self.batch_norm is not None:
        x = self.batch_norm(name=f'{name}_norm')(x, None, train)
      x = relu(x) if self.relu else leaky_relu(x)
      return pixel_norm(x) if self.norm else x

    x = jnp.concatenate([z, weights.astype(z.dtype)], -1)
    if self.normalize_z:
      x = pixel_norm(x)
    shape = (*self.first_map, self.widths[0])
    dense = EqualizedDense(shape, gain=2**0.5 / 4, dtype=at(4), name='dense', **layer)
    x = finish(dense(x), 'dense')
    x = finish(conv_(shape[-1], dtype=at(4), name='conv4')(x), 'conv4')
    size, images = 4, []
    while True:
      if 2 * size >= res or initializing:
        rgb = partial(EqualizedConv, equalized=self.equalized, dtype=at(size))
        image = rgb(self.channels, size=1, gain=1.0, name=f'rgb{size}')(x)
        images.append(image)
      if size == (self.res if initializing else res):
        break
      size *= 2
      width = self.widths[size.bit_length() - 3]
      name, conv = f'conv{size}', partial(conv_, width, dtype=at(size))
      up = conv(apply_kernel=up_conv, name=f'{name}_up')
      x = finish(up(x), f'{name}_up')
      x = finish(conv(name=name)(x), name)
    return blend_images(images, alpha, self.output)


class ProGANInputs(NamedTuple):
  """Random inputs of one forward pass, one row per example."""

  z: Float[Array, 'b dim_z']  # N(0, 1)
  labels: Int[Array, ' b']  # of the fakes in g_loss; in d_loss fakes have the reals'
  interpolation: Float[Array, ' b']  # uniform: where WGAN-GP is taken, real 0 to fake 1


@dataclasses.dataclass(frozen=True)
class ProGAN(progressive.ProgressiveGAN):
  """The ProGAN family. Fields are the keys of a config's model section.

  Widths are the channels at 1x1, 4x4, 8x8, ...; empty for the paper's. With classes the
  model is an AC-GAN: D also classifies images, and G is conditioned on a class.

  Raises:
    UserError: no network has such a resolution or so many widths.
  """

  res: int = key(
    REQUIRED, 'side of the images in pixels, a power of two; see first_map'
  )
  n_classes: int = key(
    0, 'number of classes, or length of label vectors; 0: unconditional', at_least=0
  )
  fake_labels: str = key(
    'data',
    "labels of the fakes in G's step: 'data', those of the iteration's real images, or "
    "'uniform' over the classes",
    choices=('data', 'uniform'),
  )
  channels: int = key(
    3, 'of the images: 1 (grey), 3 (RGB) or 4 (RGBA)', at_least=1, at_most=4
  )
  first_map: tuple[int, ...] = first_map_key()
  dim_z: int = key(512, 'length of the latent vector z', at_least=1)
  g_widths: tuple[int, ...] = key(
    (), "channels of G at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  d_widths: tuple[int, ...] = key(
    (), "channels of D at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  normalize_z: bool = key(True, 'pixel norm of z and the class together')
  g_norm: bool = key(True, 'pixel norm after each activation of G')
  g_batch_norm: bool = key(False, 'batch norm before each activation of G')
  g_relu: bool = key(False, 'ReLU in G instead of leaky ReLU')
  g_tanh: bool = key(False, 'tanh of the images of G')
  d_layer_norm: bool = key(False, 'layer norm before each activation of D')
  d_fused: bool = key(True, 'D downsamples before bias and activation; False: after')
  equalized: bool = key(True, 'equalized learning rate')
  mbstd_group: int = key(
    4, 'group size of the minibatch standard deviation; 1: none', at_least=0
  )
  mbdisc_kernels: int = key(
    0, 'kernels of minibatch discrimination in D; 0: none', at_least=0
  )
  gp_weight: float = key(10.0, 'weight of the gradient penalty (WGAN-GP)', at_least=0)
  gp_target: float = key(1.0, 'gradient norm that the penalty asks for', above=0)
  drift: float = key(1e-3, 'weight of the squared score of real images', at_least=0)
  class_weight: float = key(
    1.0, 'weight of the classification loss (AC-GAN)', at_least=0
  )
  dtype: str = key(
    'float32',
    'of activations and convolutions; float64 needs JAX_ENABLE_X64=1',
    choices=('float32', 'bfloat16', 'float64'),
  )
  bfloat16_from: int = key(
    0,
    'resolution from which the layers of G and D use bfloat16, whatever the dtype; '
    '0: none',
    at_least=0,
  )

  style_based: ClassVar[None] = None
  truncation_space: ClassVar[Literal['z']] = 'z'

  def __post_init__(self) -> None:
    check_ranges('model', self)
    check_first_map(self.first_map)
    progressive.check_resolutions(
      self.res, {'g_widths': self.g_widths, 'd_widths': self.d_widths}
    )

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each resolution; G's first dense layer is in that of 4x4."""
    first, *others = super().blocks_of(network)
    if network == 'g':
      first = ('dense', 'dense_*', *first)
    return (first, *others)

  @property
  def has_batch_stats(self) -> bool:
    """Whether G has batch norm."""
    return self.g_batch_norm

  @property
  def shares_batch_stats(self) -> bool:
    """Whether G has batch norm: its statistics are those of the global batch."""
    return self.g_batch_norm

  @property
  def generator(self) -> Generator:
    return self._generator(momentum=0.1)

  def _generator(self, momentum: float) -> Generator:
    """G, whose stored batch statistics move towards a batch's by `momentum`."""
    # eps as in Lasagne, with which the paper's networks were built.
    stats = partial(BatchStatistics, eps=1e-4, momentum=momentum, ddof=0)
    return Generator(
      res=self.res,
      widths=(self.g_widths or progressive.published_widths(self.res))[1:],
      channels=self.channels,
      first_map=self.first_map,
      normalize_z=self.normalize_z,
      norm=self.g_norm,
      batch_norm=partial(Norm, stats=stats) if self.g_batch_norm else None,
      output=jnp.tanh if self.g_tanh else identity,
      relu=self.g_relu,
      equalized=self.equalized,
      dtype=self.dtype,
      bfloat16_from=self.bfloat16_from,
    )

  @property
  def discriminator(self) -> ProgressiveDiscriminator:
    return ProgressiveDiscriminator(
      res=self.res,
      widths=self.d_widths or progressive.published_widths(self.res),
      outputs=1 + self.n_classes,
      group=self.mbstd_group,
      fused=self.d_fused,
      norm=LayerNorm if self.d_layer_norm else None,
      compare=partial(MinibatchDiscrimination, self.mbdisc_kernels)
      if self.mbdisc_kernels
      else None,
      equalized=self.equalized,
      dtype=self.dtype,
      bfloat16_from=self.bfloat16_from,
    )

  def init(self, key: PRNGKeyArray) -> tuple[Variables, Variables]:
    """Initial variables of G and D for all resolutions."""
    keys = jax.random.split(key)
    z, weights = jnp.zeros((1, self.dim_z)), jnp.zeros((1, self.n_classes))
    images = jnp.zeros((1, *self.size(), self.channels))
    g = self.generator.init(keys[0], z, weights, self.res, 1.0)
    return g, self.discriminator.init(keys[1], images, self.res, 1.0)

  def draw_inputs(
    self, key: PRNGKeyArray, index: Int[Array, ' b'], phase: Phase
  ) -> ProGANInputs:
    """z ~ N(0, 1), uniform labels and interpolations, by global example index."""
    del phase
    keys = [example_keys(jax.random.fold_in(key, i), index) for i in range(3)]
    return ProGANInputs(
      z=jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(keys[0]),
      labels=progressive.draw_labels(keys[1], self.n_classes),
      interpolation=jax.vmap(jax.random.uniform)(keys[2]),
    )

  def d_loss(
    self,
    g: Variables,
    d: Variables,
    batch: Batch,
    inputs: ProGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """WGAN-GP with drift, plus the cross-entropy of the classes of reals and fakes.

    The fakes have the labels of the reals.
    """
    weights = one_hot(batch.labels, self.n_classes)
    fake, g = self.generate_fakes(g, inputs.z, weights, phase)
    fake = jax.lax.stop_gradient(fake)
    real = progressive.blend_reals(batch, phase, fake.dtype, self.first_map)
    real_score, real_logits = self.discriminate(d, augment(real, 'real'), phase)
    fake_score, fake_logits = self.discriminate(d, augment(fake, 'fake'), phase)
    on_real, on_fake = losses.wasserstein_d(real_score, fake_score)
    penalty = losses.gradient_penalty(
      lambda x: self.discriminate(d, augment(x, 'between'), phase)[0],
      real,
      fake,
      inputs.interpolation,
      progressive.pixel_copies(self.res, phase),
      self.gp_target,
    )
    loss = on_real + on_fake + self.gp_weight * penalty
    loss += self.drift * losses.drift(real_score)
    metrics = {
      'd_real': -on_real,
      'd_fake': on_fake,
      'd_penalty': penalty,
      **augment.metrics(real_score),
    }
    if self.n_classes:
      classes = optax.softmax_cross_entropy(real_logits, weights).mean()
      classes += optax.softmax_cross_entropy(fake_logits, weights).mean()
      loss += self.class_weight * classes
      metrics['d_classes'] = classes
    return loss, (g, d, {'d_loss': loss, **metrics})

  def g_loss(
    self,
    g: Variables,
    d: Variables,
    inputs: ProGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """Minus the mean score of the fakes, plus the cross-entropy of their classes."""
    weights = one_hot(inputs.labels, self.n_classes)
    fake, g = self.generate_fakes(g, inputs.z, weights, phase)
    score, logits = self.discriminate(d, augment(fake, 'fake'), phase)
    loss = losses.wasserstein_g(score)
    if self.n_classes:
      classes = optax.softmax_cross_entropy(logits, weights).mean()
      loss += self.class_weight * classes
    return loss, (g, d, {'g_loss': loss})

  def latent_kernels(self, g: Variables) -> list[Float[Array, 'd outputs']]:
    """The kernel of the first layer, without the rows of the class."""
    return [g['params']['dense']['kernel'][: self.dim_z]]

  def generate(
    self,
    g: Variables,
    z: Float[Array, 'b dim_z'],
    labels: Num[Array, 'b ...'],
    psi: ArrayLike = 1.0,
    *,
    keys: PRNGKeyArray | None = None,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Float[Array, 'b h w c']:
    """Images from psi * z; about [-1, 1], not clipped.

    With `normalize_z` and no classes the length of z, and so psi, has no effect. There
    is no noise besides z: `keys` are not used.
    """
    del keys
    weights = one_hot(labels, self.n_classes)
    return self.generator.apply(g, psi * z, weights, res or self.res, alpha)

  def generate_fakes(
    self,
    g: Variables,
    z: Float[Array, 'b dim_z'],
    weights: Float[Array, 'b n'],
    phase: Phase,
  ) -> tuple[Float[Array, 'b h w c'], Variables]:
    """Fake images of a training step, with weights over the classes.

    Returns:
      The images, and g with updated batch statistics. Runs under the mesh axis if G
      has some.
    """
    fakes, updated = self.generator.apply(
      g, z, weights, phase.res, phase.alpha, True, mutable=['batch_stats']
    )
    return fakes, {**g, **updated}

  def standing_statistics(
    self, g: Variables, z: Float[Array, 'n b dim_z'], labels: Int[Array, 'n b']
  ) -> Variables:
    """g with the mean of the batch statistics of n batches."""
    if not self.g_batch_norm:
      return g
    fresh = self._generator(momentum=1.0)  # stores the statistics of the batch

    def one(batch: tuple[Array, Array]) -> Variables:
      z, labels = batch
      weights = one_hot(labels, self.n_classes)
      args = (z, weights, self.res, 1.0, True)
      return fresh.apply(g, *args, mutable=['batch_stats'])[1]

    stats = jax.lax.map(one, (z, labels))
    return {**g, **jax.tree.map(lambda s: s.mean(0), stats)}

  def discriminate(
    self, d: Variables, images: Float[Array, 'b h w c'], phase: Phase
  ) -> tuple[Float[Array, 'b 1'], Float[Array, 'b n']]:
    """Scores and class logits. Runs under the mesh axis."""
    out = self.discriminator.apply(d, images, phase.res, phase.alpha)
    return out[:, :1], out[:, 1:]
