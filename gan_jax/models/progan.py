"""ProGAN: progressive growing of GANs (Karras et al. 2018, arXiv:1710.10196)."""

import dataclasses
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gan_jax.models import losses, progressive
from gan_jax.models.base import Batch, Metrics, Phase, Variables, example_keys
from gan_jax.models.progressive import ProgressiveDiscriminator, lerp, one_hot
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, leaky_relu
from gan_jax.nn.norms import pixel_norm
from gan_jax.ops.resampling import up_conv, upsample


class Generator(nn.Module):
  """z [b, dim_z], class weights [b, n], static res, alpha -> images [b, res, res, c].

  `widths` are channels at 4x4, 8x8, ... The output is linear. During a fade the two
  highest resolutions blend as pictures.
  """

  res: int  # final
  widths: tuple[int, ...]
  channels: int = 3
  normalize_z: bool = True  # pixel norm over z and the class weights together
  norm: bool = True  # pixel norm after each activation
  relu: bool = False  # in place of the leaky one
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, z: Array, weights: Array, res: int, alpha: ArrayLike) -> Array:
    layer = dict(equalized=self.equalized, dtype=self.dtype)
    conv_ = partial(EqualizedConv, **layer)
    act = nn.relu if self.relu else leaky_relu
    settle = lambda x: pixel_norm(act(x)) if self.norm else act(x)
    everything = self.is_initializing()

    x = jnp.concatenate([z, weights.astype(z.dtype)], -1)
    if self.normalize_z:
      x = pixel_norm(x)
    shape = (4, 4, self.widths[0])
    x = settle(EqualizedDense(shape, gain=2**0.5 / 4, name='dense', **layer)(x))
    x = settle(conv_(shape[-1], name='conv4')(x))
    size, pictures = 4, []
    while True:
      if 2 * size >= res or everything:
        rgb = conv_(self.channels, size=1, gain=1.0, name=f'rgb{size}')
        pictures.append(rgb(x))
      if size == (self.res if everything else res):
        break
      size *= 2
      width = self.widths[size.bit_length() - 3]
      x = settle(conv_(width, apply_kernel=up_conv, name=f'conv{size}_up')(x))
      x = settle(conv_(width, name=f'conv{size}')(x))
    image = pictures[-1]
    if len(pictures) > 1:
      image = lerp(image, upsample(pictures[-2]), 1 - alpha)
    return image.astype(jnp.promote_types(image.dtype, jnp.float32))


class ProGANInputs(NamedTuple):
  """All that is random in one forward pass, example by example."""

  z: Array  # [b, dim_z], N(0, 1)
  labels: Array  # of the G step's fakes, int32 [b]; the D step's have the reals'
  mix: Array  # [b], uniform: where between real and fake the penalty is taken


@dataclasses.dataclass(frozen=True)
class ProGAN(progressive.ProgressiveGAN):
  """The ProGAN family; fields are the model section of a config.

  Widths are channels at 1x1, 4x4, 8x8, ..., or empty for the paper's. Labels make
  it an AC-GAN: D classifies too, and G is asked for a class.

  Raises:
    UserError: a resolution or widths without a network.
  """

  res: int
  n_classes: int = 0
  channels: int = 3
  dim_z: int = 512
  g_widths: tuple[int, ...] = ()
  d_widths: tuple[int, ...] = ()
  normalize_z: bool = True
  g_norm: bool = True
  g_relu: bool = False
  d_fused: bool = True  # D pools before bias and activation; False: after
  equalized: bool = True
  mbstd_group: int = 4
  gp_weight: float = 10.0
  drift: float = 1e-3
  class_weight: float = 1.0
  dtype: str = 'float32'

  style_based: ClassVar[None] = None
  truncation_space: ClassVar[Literal['z']] = 'z'

  def __post_init__(self) -> None:
    progressive.check_resolutions(
      self.res, {'g_widths': self.g_widths, 'd_widths': self.d_widths}
    )

  @property
  def generator(self) -> Generator:
    return Generator(
      res=self.res,
      widths=(self.g_widths or progressive.published_widths(self.res))[1:],
      channels=self.channels,
      normalize_z=self.normalize_z,
      norm=self.g_norm,
      relu=self.g_relu,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  @property
  def discriminator(self) -> ProgressiveDiscriminator:
    return ProgressiveDiscriminator(
      res=self.res,
      widths=self.d_widths or progressive.published_widths(self.res),
      outputs=1 + self.n_classes,
      group=self.mbstd_group,
      fused=self.d_fused,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  def init(self, key: Array) -> tuple[Variables, Variables]:
    """Variables of G and D at every resolution, before any training."""
    keys = jax.random.split(key)
    z, weights = jnp.zeros((1, self.dim_z)), jnp.zeros((1, self.n_classes))
    images = jnp.zeros((1, self.res, self.res, self.channels))
    g = self.generator.init(keys[0], z, weights, self.res, 1.0)
    return g, self.discriminator.init(keys[1], images, self.res, 1.0)

  def draw_inputs(self, key: Array, index: Array, phase: Phase) -> ProGANInputs:
    """z ~ N(0, 1), labels and mix uniform, by global example index."""
    del phase
    keys = [example_keys(jax.random.fold_in(key, i), index) for i in range(3)]
    return ProGANInputs(
      z=jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(keys[0]),
      labels=progressive.draw_labels(keys[1], self.n_classes),
      mix=jax.vmap(jax.random.uniform)(keys[2]),
    )

  def d_loss(
    self, g: Variables, d: Variables, batch: Batch, draws: ProGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """WGAN-GP with drift; fakes have the reals' labels, and both are classified."""
    weights = self._weights(batch.labels)
    fake = jax.lax.stop_gradient(self._fake(g, draws.z, weights, phase))
    real = progressive.blend_reals(batch, phase, fake.dtype)
    real_score, real_logits = self._judge(d, real, phase)
    fake_score, fake_logits = self._judge(d, fake, phase)
    on_real, on_fake = losses.wasserstein_d(real_score, fake_score)
    penalty = losses.gradient_penalty(
      lambda x: self._judge(d, x, phase)[0],
      real,
      fake,
      draws.mix,
      progressive.pixel_copies(self.res, phase),
    )
    loss = on_real + on_fake + self.gp_weight * penalty
    loss += self.drift * losses.drift(real_score)
    metrics = {
      'd_real': -on_real,
      'd_fake': on_fake,
      'd_penalty': penalty,
    }
    if self.n_classes:
      classes = losses.cross_entropy(real_logits, weights)
      classes += losses.cross_entropy(fake_logits, weights)
      loss += self.class_weight * classes
      metrics['d_classes'] = classes
    return loss, (g, d, {'d_loss': loss, **metrics})

  def g_loss(
    self, g: Variables, d: Variables, draws: ProGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """Minus the mean score of the fakes, and how badly D sees their classes."""
    weights = self._weights(draws.labels)
    score, logits = self._judge(d, self._fake(g, draws.z, weights, phase), phase)
    loss = losses.wasserstein_g(score)
    if self.n_classes:
      loss += self.class_weight * losses.cross_entropy(logits, weights)
    return loss, (g, d, {'g_loss': loss})

  def generate(
    self,
    g: Variables,
    z: Array,
    labels: Array,
    psi: ArrayLike = 1.0,
    *,
    keys: Array | None = None,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Array:
    """Images about [-1, 1] (not clipped), NHWC, from psi * z.

    With `normalize_z` the length of z does not count: psi matters only to models
    that have labels or do without. Nothing is random here: `keys` are not used.
    """
    del keys
    weights = self._weights(labels)
    return self.generator.apply(g, psi * z, weights, res or self.res, alpha)

  def _weights(self, labels: Array) -> Array:
    return one_hot(labels, self.n_classes)

  def _fake(self, g: Variables, z: Array, weights: Array, phase: Phase) -> Array:
    return self.generator.apply(g, z, weights, phase.res, phase.alpha)

  def _judge(self, d: Variables, images: Array, phase: Phase) -> tuple[Array, Array]:
    """Scores [b, 1] and class logits [b, n_classes]."""
    out = self.discriminator.apply(d, images, phase.res, phase.alpha)
    return out[:, :1], out[:, 1:]
