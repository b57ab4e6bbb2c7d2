"""StyleGAN, version 1 (Karras et al. 2019, arXiv:1812.04948)."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax import UserError
from gan_jax.models import losses, progressive
from gan_jax.models.augmentation import UNAUGMENTED, Augment, Role
from gan_jax.models.base import (
  Batch,
  Blocks,
  Loss,
  Network,
  Phase,
  SamplingDefaults,
  StyleBased,
  Variables,
  example_keys,
)
from gan_jax.models.progressive import ProgressiveDiscriminator, lerp, one_hot
from gan_jax.models.stylegan_networks import Mapping, Synthesis
from gan_jax.runtime.keys import REQUIRED, check_ranges, key


class StyleGANInputs(NamedTuple):
  """Random inputs of one forward pass, one row per example.

  The cutoff is a scalar where all examples share it.
  """

  z: Float[Array, 'b dim_z']  # N(0, 1)
  z2: Float[Array, 'b dim_z']  # of the layers from the cutoff on
  labels: Int[Array, ' b']  # of the fakes in g_loss; in d_loss fakes have the reals'
  noise: tuple[Float[Array, 'b h w 1'], ...]  # N(0, 1), one per layer
  cutoff: Int[Array, '*b']  # first layer of the second style; number of layers: none
  interpolation: Float[Array, ' b']  # uniform: where WGAN-GP is taken, real 0 to fake 1


@dataclasses.dataclass(frozen=True)
class StyleGAN(progressive.ProgressiveGAN):
  """The StyleGAN family. Fields are the keys of a config's model section.

  Widths are the channels at 1x1, 4x4, 8x8, ...; empty for the paper's. Rows of table 1
  of the paper: B is `mapping_layers=0, styles=False, const=False, noise=False,
  instance_norm=False, g_norm=True, mixing=0`; C adds mapping, styles and instance norm;
  D the constant; E noise; F mixing. With classes the label selects the output of D that
  is the score.

  Raises:
    UserError: no network has such a resolution or so many widths; an unknown loss.
  """

  res: int = key(REQUIRED, 'side of the images in pixels, a power of two')
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
  dim_z: int = key(512, 'length of the latent vector z', at_least=1)
  dim_w: int = key(512, 'length of the intermediate latent vector w', at_least=1)
  g_widths: tuple[int, ...] = key(
    (), "channels of G at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  d_widths: tuple[int, ...] = key(
    (), "channels of D at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  mapping_layers: int = key(8, 'layers of the mapping network; 0: w is z', at_least=0)
  mapping_width: int = key(
    512, 'width of the hidden layers of the mapping network', at_least=1
  )
  mapping_lrmul: float = key(
    0.01, 'learning rate of the mapping network, relative', above=0
  )
  normalize_z: bool = key(True, 'pixel norm of z before the mapping network')
  styles: bool = key(True, 'w modulates each layer; False: w is only the input of G')
  const: bool = key(True, 'G starts from a learned constant instead of w')
  noise: bool = key(True, 'noise is added in each layer')
  g_norm: bool = key(False, 'pixel norm after each activation of G')
  instance_norm: bool = key(True, 'instance norm before each style')
  g_blur: tuple[int, ...] = key((1, 2, 1), 'filter of G after upsampling; (): none')
  d_blur: tuple[int, ...] = key((1, 2, 1), 'filter of D before downsampling; (): none')
  g_relu: bool = key(False, 'ReLU in the synthesis network instead of leaky ReLU')
  mapping_relu: bool = key(False, 'ReLU in the mapping network instead of leaky ReLU')
  d_relu: bool = key(False, 'ReLU in D instead of leaky ReLU')
  equalized: bool = key(True, 'equalized learning rate')
  mbstd_group: int = key(
    4, 'group size of the minibatch standard deviation; 1: none', at_least=0
  )
  mbstd_features: int = key(
    1, 'features of the minibatch standard deviation', at_least=1
  )
  mixing: float = key(
    0.9, 'probability of style mixing in training', at_least=0, at_most=1
  )
  mixing_groups: int = key(
    1,
    'groups of a batch with a style mixing cutoff of their own, by turns of '
    "mbstd_group images; 1: one cutoff; the original's has one per GPU",
    at_least=1,
  )
  w_avg_beta: float = key(
    0.995, 'decay of the moving average of w, for truncation', at_least=0, at_most=1
  )
  truncation_psi: float = key(0.7, 'psi of samples where none is given')
  truncated_layers: int = key(8, 'first layers whose w is truncated by psi', at_least=0)
  loss: str = key(
    'logistic',
    "'logistic': non-saturating with R1; 'wgan': WGAN-GP",
    choices=('logistic', 'wgan'),
  )
  r1_gamma: float = key(10.0, 'weight of the R1 penalty', at_least=0)
  gp_weight: float = key(10.0, 'weight of the gradient penalty (WGAN-GP)', at_least=0)
  drift: float = key(
    1e-3, 'weight of the squared score of real images (WGAN-GP)', at_least=0
  )
  dtype: str = key(
    'float32',
    'of activations and convolutions; float64 needs JAX_ENABLE_X64=1',
    choices=('float32', 'bfloat16', 'float64'),
  )

  truncation_space: ClassVar[Literal['w']] = 'w'

  def __post_init__(self) -> None:
    check_ranges('model', self)
    progressive.check_resolutions(
      self.res, {'g_widths': self.g_widths, 'd_widths': self.d_widths}
    )
    for name in ('g_blur', 'd_blur'):
      taps = getattr(self, name)
      if taps and not sum(taps):
        raise UserError(f'model.{name} is {taps}: its sum, which scales it, is 0.')

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each resolution; the mapping network is in none."""
    blocks = super().blocks_of(network)
    if network == 'd':
      return blocks
    start: tuple[str, ...] = ('const', 'dense')
    return tuple(
      tuple(
        f'synthesis/{name}'
        for name in (
          *(() if i else start),
          *names,
          f'layer{2 * i}',
          f'layer{2 * i + 1}',
        )
      )
      for i, names in enumerate(blocks)
    )

  @property
  def style_based(self) -> StyleBased:
    return self

  @property
  def sampling_defaults(self) -> SamplingDefaults:
    """psi as the original's `Gs.run`."""
    return SamplingDefaults(self.truncation_psi)

  @property
  def mapping(self) -> Mapping:
    last = (self.dim_w,) if self.mapping_layers else ()
    return Mapping(
      widths=(self.mapping_width,) * (self.mapping_layers - 1) + last,
      normalize_z=self.normalize_z,
      lrmul=self.mapping_lrmul,
      relu=self.mapping_relu,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  @property
  def synthesis(self) -> Synthesis:
    return Synthesis(
      res=self.res,
      widths=(self.g_widths or progressive.published_widths(self.res))[1:],
      channels=self.channels,
      styles=self.styles,
      const=self.const,
      pixel_norm=self.g_norm,
      instance_norm=self.instance_norm,
      blur=self.g_blur,
      relu=self.g_relu,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  @property
  def discriminator(self) -> ProgressiveDiscriminator:
    return ProgressiveDiscriminator(
      res=self.res,
      widths=self.d_widths or progressive.published_widths(self.res),
      outputs=max(self.n_classes, 1),
      group=self.mbstd_group,
      features=self.mbstd_features,
      blur=self.d_blur,
      relu=self.d_relu,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  def layers(self, res: int) -> int:
    """Number of synthesis layers up to a resolution."""
    return 2 * res.bit_length() - 4

  def sizes(self, res: int) -> list[int]:
    """Height and width of each layer's noise up to a resolution; [] without noise."""
    return [4 << i // 2 for i in range(self.layers(res))] if self.noise else []

  def init(self, key: PRNGKeyArray) -> tuple[Variables, Variables]:
    """Initial variables of G and D for all resolutions.

    Besides `params`, G has the moving average of w in `moving` and one fixed noise per
    layer in `noise`, for images that do not change between calls.
    """
    keys = jax.random.split(key, 4)
    z, weights = jnp.zeros((1, self.dim_z)), jnp.zeros((1, self.n_classes))
    mapping = self.mapping.init(keys[0], z, weights)
    w = self.mapping.apply(mapping, z, weights)
    shapes = [(1, size, size, 1) for size in self.sizes(self.res)]
    noise = tuple(
      jax.random.normal(jax.random.fold_in(keys[1], i), shape)
      for i, shape in enumerate(shapes)
    )
    ws = jnp.stack([w] * self.layers(self.res), 1)
    synthesis = self.synthesis.init(keys[2], ws, noise, self.res, 1.0)
    g = {
      'params': {
        'mapping': mapping.get('params', {}),
        'synthesis': synthesis['params'],
      },
      'moving': {'w_avg': jnp.zeros((1, w.shape[-1]))},
    }
    if noise:
      g['noise'] = {f'layer{i}': n for i, n in enumerate(noise)}
    images = jnp.zeros((1, self.res, self.res, self.channels))
    return g, self.discriminator.init(keys[3], images, self.res, 1.0)

  def draw_inputs(
    self, key: PRNGKeyArray, index: Int[Array, ' b'], phase: Phase
  ) -> StyleGANInputs:
    """Everything by global example index; one cutoff for each of the mixing groups."""
    keys = [jax.random.fold_in(key, i) for i in range(7)]
    latents = lambda k: jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(
      example_keys(k, index)
    )
    n = self.layers(phase.res)
    return StyleGANInputs(
      z=latents(keys[0]),
      z2=latents(keys[1]),
      labels=progressive.draw_labels(example_keys(keys[2], index), self.n_classes),
      noise=self.fresh_noise(example_keys(keys[5], index), phase.res),
      cutoff=self._cutoffs(keys[3], keys[4], index, n),
      interpolation=jax.vmap(jax.random.uniform)(example_keys(keys[6], index)),
    )

  def _cutoffs(
    self, key: PRNGKeyArray, coin_key: PRNGKeyArray, index: Int[Array, ' b'], n: int
  ) -> Int[Array, '*b']:
    """The first layer of the second style, n (of n layers) where styles do not mix.

    Examples that D compares (`group`) are of one mixing group, as on one GPU.
    """

    def draw(key: PRNGKeyArray, coin_key: PRNGKeyArray) -> Array:
      cutoff = jax.random.randint(key, (), 1, n)
      mixes = jax.random.uniform(coin_key) < self.mixing
      return jnp.where(mixes, cutoff, n)

    if self.mixing_groups == 1:
      return draw(key, coin_key)
    group = index // self.group % self.mixing_groups
    return jax.vmap(draw)(example_keys(key, group), example_keys(coin_key, group))

  def d_loss(
    self,
    g: Variables,
    d: Variables,
    batch: Batch,
    inputs: StyleGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """Logistic loss with R1 at real images, or WGAN-GP with drift.

    The fakes have the labels of the reals.
    """
    weights = one_hot(batch.labels, self.n_classes)
    fake, g = self.generate_fakes(g, inputs, weights, phase)
    fake = jax.lax.stop_gradient(fake)
    real = progressive.blend_reals(batch, phase, fake.dtype)

    def critic(role: Role) -> losses.Critic:
      return lambda x: self.discriminate(d, augment(x, role), weights, phase)

    copies = progressive.pixel_copies(self.res, phase)
    fake_score = critic('fake')(fake)
    if self.loss == 'logistic':
      real_score, penalty = losses.r1(critic('real'), real, copies)
      on_real, on_fake = losses.logistic_d(real_score, fake_score)
      loss = on_real + on_fake + self.r1_gamma / 2 * penalty
    else:
      real_score = critic('real')(real)
      on_real, on_fake = losses.wasserstein_d(real_score, fake_score)
      penalty = losses.gradient_penalty(
        critic('between'), real, fake, inputs.interpolation, copies
      )
      loss = on_real + on_fake + self.gp_weight * penalty
      loss += self.drift * losses.drift(real_score)
    metrics = {
      'd_loss': loss,
      'd_real': real_score.mean(),
      'd_fake': fake_score.mean(),
      'd_penalty': penalty,
      **augment.metrics(real_score),
    }
    return loss, (g, d, metrics)

  def g_loss(
    self,
    g: Variables,
    d: Variables,
    inputs: StyleGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """Non-saturating logistic loss, or minus the mean score."""
    weights = one_hot(inputs.labels, self.n_classes)
    fake, g = self.generate_fakes(g, inputs, weights, phase)
    score = self.discriminate(d, augment(fake, 'fake'), weights, phase)
    wgan = self.loss == 'wgan'
    loss = (losses.wasserstein_g if wgan else losses.logistic_g)(score)
    return loss, (g, d, {'g_loss': loss})

  def w(
    self, g: Variables, z: Float[Array, 'b dim_z'], labels: Num[Array, 'b ...']
  ) -> Float[Array, 'b dim_w']:
    """The mapping network."""
    params = {'params': g['params']['mapping']}
    return self.mapping.apply(params, z, one_hot(labels, self.n_classes))

  def truncate(
    self, g: Variables, w: Float[Array, 'b ... dim_w'], psi: ArrayLike, res: int = 0
  ) -> Float[Array, 'b layers dim_w']:
    """One w per layer, moved towards the average w: psi = 0 gives it, 1 gives w.

    Args:
      w: [b, dim_w], or one per layer [b, layers, dim_w].
      psi: a scalar, for the first `truncated_layers` layers; or one value per layer.
    """
    n = self.layers(res or self.res)
    if not jnp.ndim(psi):
      psi = jnp.where(jnp.arange(n) < self.truncated_layers, psi, 1.0)
    psi = jnp.asarray(psi)[None, :, None]
    w = w[:, None] if w.ndim == 2 else w
    return lerp(w, g['moving']['w_avg'][:, None], 1 - psi)

  def mix(
    self,
    w: Float[Array, 'b dim_w'],
    w2: Float[Array, 'b dim_w'],
    cutoff: ArrayLike,
    res: int = 0,
  ) -> Float[Array, 'b layers dim_w']:
    """Style mixing: w in the layers below `cutoff`, w2 in the others.

    Args:
      cutoff: a scalar, or one value per example [b].
    """
    if jnp.ndim(cutoff):
      cutoff = jnp.asarray(cutoff)[:, None, None]
    layer = jnp.arange(self.layers(res or self.res))[None, :, None]
    return jnp.where(layer < cutoff, w[:, None], w2[:, None])

  def synthesize(
    self,
    g: Variables,
    ws: Float[Array, 'b layers dim_w'],
    noise: tuple[Array, ...] | None = None,
    *,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Float[Array, 'b h w c']:
    """Images from one w per layer; about [-1, 1], not clipped.

    Args:
      noise: one [b or 1, h, w, 1] per layer; None: the noise stored with the weights.
    """
    res = res or self.res
    if noise is None:
      noise = tuple(g['noise'][f'layer{i}'] for i in range(len(self.sizes(res))))
    params = {'params': g['params']['synthesis']}
    return self.synthesis.apply(params, ws, noise, res, alpha)

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
    """Images from z with w truncated by psi; about [-1, 1], not clipped.

    Args:
      keys: keys [b] of each image's noise; None: the noise stored with the weights.
    """
    ws = self.truncate(g, self.w(g, z, labels), psi, res)
    noise = None if keys is None else self.fresh_noise(keys, res or self.res)
    return self.synthesize(g, ws, noise, res=res, alpha=alpha)

  def latent_kernels(self, g: Variables) -> list[Float[Array, 'd outputs']]:
    """The kernels of the styles of each layer; of w as the input of G just one."""
    synthesis = g['params']['synthesis']
    if self.styles:
      names = [f'layer{i}' for i in range(self.layers(self.res))]
      return [synthesis[name]['style']['kernel'] for name in names]
    return [] if self.const else [synthesis['dense']['kernel']]

  def with_noise(self, g: Variables, strength: ArrayLike) -> Variables:
    """g with the noise strengths multiplied by `strength`; 0 switches noise off.

    Args:
      strength: of all layers, or one value per layer up to the final resolution.
    """
    factors = np.broadcast_to(strength, self.layers(self.res))
    if (factors == 1).all():
      return g
    params = dict(g['params'])
    params['synthesis'] = {
      name: layer | {'strength': layer['strength'] * float(factors[int(name[5:])])}
      if isinstance(layer, dict) and 'strength' in layer
      else layer
      for name, layer in params['synthesis'].items()
    }
    return {**g, 'params': params}

  def fresh_noise(
    self, keys: PRNGKeyArray, res: int
  ) -> tuple[Float[Array, 'b h w 1'], ...]:
    """Noise of every layer up to a resolution, from one key per example [b]."""

    def layer(i: int, size: int) -> Array:
      draw = lambda k: jax.random.normal(jax.random.fold_in(k, i), (size, size, 1))
      return jax.vmap(draw)(keys)

    return tuple(layer(i, size) for i, size in enumerate(self.sizes(res)))

  def generate_fakes(
    self,
    g: Variables,
    inputs: StyleGANInputs,
    weights: Float[Array, 'b n'],
    phase: Phase,
  ) -> tuple[Float[Array, 'b h w c'], Variables]:
    """Fake images of a training step, with weights over the classes.

    Returns:
      The images, and g with the updated moving average of w.
    """
    w = self.w(g, inputs.z, weights)
    mean = jax.lax.stop_gradient(w).mean(0, keepdims=True)
    w_avg = lerp(mean, g['moving']['w_avg'], self.w_avg_beta)
    w2 = self.w(g, inputs.z2, weights) if self.mixing else w
    ws = self.mix(w, w2, inputs.cutoff, phase.res)
    fake = self.synthesize(g, ws, inputs.noise, res=phase.res, alpha=phase.alpha)
    return fake, {**g, 'moving': {'w_avg': w_avg}}

  def discriminate(
    self,
    d: Variables,
    images: Float[Array, 'b h w c'],
    weights: Float[Array, 'b n'],
    phase: Phase,
  ) -> Float[Array, 'b 1']:
    """Scores, weighted over the outputs of the classes. Runs under the mesh axis."""
    out = self.discriminator.apply(d, images, phase.res, phase.alpha)
    return (out * weights).sum(-1, keepdims=True) if self.n_classes else out
