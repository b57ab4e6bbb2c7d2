"""StyleGAN, version 1 (Karras et al. 2019, arXiv:1812.04948)."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax.models import losses, progressive
from gan_jax.models.augmentation import UNAUGMENTED, Augment, Role
from gan_jax.models.base import (
  Batch,
  Loss,
  Phase,
  SamplingDefaults,
  StyleBased,
  Variables,
  example_keys,
)
from gan_jax.models.progressive import lerp, one_hot
from gan_jax.models.stylegan_config import StyleGANConfig
from gan_jax.runtime.image_size import Size


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
class StyleGAN(StyleGANConfig):
  """The StyleGAN family. Fields are the keys of a config's model section."""

  truncation_space: ClassVar[Literal['w']] = 'w'

  @property
  def style_based(self) -> StyleBased:
    return self

  @property
  def sampling_defaults(self) -> SamplingDefaults:
    """psi as the original's `Gs.run`."""
    return SamplingDefaults(self.truncation_psi)

  def init(self, key: PRNGKeyArray) -> tuple[Variables, Variables]:
    """Initial variables of G and D for all resolutions.

    Besides `params`, G has the moving average of w in `moving` and one fixed noise per
    layer in `noise`, for images that do not change between calls.
    """
    keys = jax.random.split(key, 4)
    z, weights = jnp.zeros((1, self.dim_z)), jnp.zeros((1, self.n_classes))
    mapping = self.mapping.init(keys[0], z, weights)
    w = self.mapping.apply(mapping, z, weights)
    shapes = [(1, *size, 1) for size in self.sizes(self.res)]
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
    images = jnp.zeros((1, *self.size(), self.channels))
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
    real = progressive.blend_reals(batch, phase, fake.dtype, self.first_map)

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

    def layer(i: int, size: Size) -> Array:
      draw = lambda k: jax.random.normal(jax.random.fold_in(k, i), (*size, 1))
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
