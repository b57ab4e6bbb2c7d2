"""StyleGAN, the first one (Karras et al. 2019, arXiv:1812.04948)."""

import dataclasses
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.models import losses, progressive
from gan_jax.models.base import (
  Batch,
  Metrics,
  Phase,
  StyleBased,
  Variables,
  example_keys,
)
from gan_jax.models.progressive import ProgressiveDiscriminator, lerp, one_hot
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef, leaky_relu
from gan_jax.nn.norms import instance_norm, pixel_norm
from gan_jax.ops.reductions import add_bias
from gan_jax.ops.resampling import blur, up_conv, upsample


class Mapping(nn.Module):
  """z [b, dim_z] and class weights [b, n] -> w [b, dim_w]; without layers z itself."""

  widths: tuple[int, ...]  # one a layer
  normalize_z: bool = True  # pixel norm over z and the embedded class together
  lrmul: float = 0.01
  relu: bool = False  # in place of the leaky one
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, z: Array, weights: Array) -> Array:
    x = z
    if weights.shape[-1]:
      shape = (weights.shape[-1], z.shape[-1])
      table = self.param('embedding', nn.initializers.normal(1.0), shape)
      x = jnp.concatenate([z, weights @ table], -1)
    if self.normalize_z:
      x = pixel_norm(x)
    for i, width in enumerate(self.widths):
      layer = EqualizedDense(
        (width,),
        lrmul=self.lrmul,
        equalized=self.equalized,
        dtype=self.dtype,
        name=f'dense{i}',
      )
      x = nn.relu(layer(x)) if self.relu else leaky_relu(layer(x))
    return x


class Epilogue(nn.Module):
  """What follows each conv: noise, bias, activation, norms, style (Figure 1b).

  noise [b or 1, h, w, 1] and w [b, dim_w], each None for a generator without.
  """

  style: ModuleDef
  pixel_norm: bool = False
  instance_norm: bool = True
  relu: bool = False

  @nn.compact
  def __call__(self, x: Array, noise: Array | None, w: Array | None) -> Array:
    shape = (1, 1, 1, x.shape[-1])
    if noise is not None:
      strength = self.param('strength', nn.initializers.zeros, shape)
      x += (noise @ strength[0, 0]).astype(x.dtype)
    x = add_bias(x, self.param('bias', nn.initializers.zeros, shape).astype(x.dtype))
    x = nn.relu(x) if self.relu else leaky_relu(x)
    if self.pixel_norm:
      x = pixel_norm(x)
    gain: ArrayLike = 1
    bias: ArrayLike = 0
    if w is not None:
      style = self.style((2 * x.shape[-1],), gain=1.0, name='style')(w)
      scale, bias = jnp.split(style[:, None, None], 2, axis=-1)
      gain = scale + 1
    return instance_norm(x, gain, bias) if self.instance_norm else x * gain + bias


class Synthesis(nn.Module):
  """w [b, layers, dim_w], noise, static res, alpha -> images [b, res, res, c].

  Two layers a resolution, from 4x4 on; `widths` are their channels. Noise is one
  [b or 1, h, w, 1] a layer, or () for a generator without. Without styles only the
  first w is used, as the input of the traditional generator.
  """

  res: int  # final
  widths: tuple[int, ...]
  channels: int = 3
  styles: bool = True
  const: bool = True  # start from a learned 4x4 map, not from w
  pixel_norm: bool = False
  instance_norm: bool = True
  blur: tuple[int, ...] = (1, 2, 1)  # after upsampling; () for none
  relu: bool = False
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, w: Array, noise: tuple[Array, ...], res: int, alpha: ArrayLike
  ) -> Array:
    weights = dict(equalized=self.equalized, dtype=self.dtype)
    conv_ = partial(EqualizedConv, **weights)
    epilogue = partial(
      Epilogue,
      style=partial(EqualizedDense, **weights),
      pixel_norm=self.pixel_norm,
      instance_norm=self.instance_norm,
      relu=self.relu,
    )
    everything = self.is_initializing()

    def finish(x: Array, layer: int) -> Array:
      return epilogue(name=f'layer{layer}')(
        x, noise[layer] if noise else None, w[:, layer] if self.styles else None
      )

    shape = (4, 4, self.widths[0])
    if self.const:
      start = self.param('const', nn.initializers.ones, (1, *shape))
      x = jnp.broadcast_to(start.astype(self.dtype), (w.shape[0], *shape))
    else:
      dense = partial(EqualizedDense, gain=2**0.5 / 4, bias=False, **weights)
      x = dense(shape, name='dense')(w[:, 0])
    x = finish(x, 0)
    x = finish(conv_(shape[-1], bias=False, name='conv4')(x), 1)
    size, layer, pictures = 4, 2, []
    while True:
      if 2 * size >= res or everything:
        rgb = conv_(self.channels, size=1, gain=1.0, name=f'rgb{size}')
        pictures.append(rgb(x))
      if size == (self.res if everything else res):
        break
      size *= 2
      layer_ = partial(conv_, self.widths[size.bit_length() - 3], bias=False)
      x = layer_(apply_kernel=up_conv, name=f'conv{size}_up')(x)
      if self.blur:
        x = blur(x, self.blur)
      x = finish(x, layer)
      x = finish(layer_(name=f'conv{size}')(x), layer + 1)
      layer += 2
    image = pictures[-1]
    if len(pictures) > 1:
      image = lerp(image, upsample(pictures[-2]), 1 - alpha)
    return image.astype(jnp.promote_types(image.dtype, jnp.float32))


class StyleGANInputs(NamedTuple):
  """All that is random in one forward pass; all but the cutoff example by example."""

  z: Array  # [b, dim_z], N(0, 1)
  z2: Array  # for the layers from the cutoff on
  labels: Array  # of the G step's fakes, int32 [b]; the D step's have the reals'
  noise: tuple[Array, ...]  # N(0, 1), [b, h, w, 1] a layer
  cutoff: Array  # one for the whole batch
  mix: Array  # [b], uniform: where between real and fake WGAN-GP is taken


@dataclasses.dataclass(frozen=True)
class StyleGAN(progressive.ProgressiveGAN):
  """The StyleGAN family; fields are the model section of a config.

  Widths are channels at 1x1, 4x4, 8x8, ..., or empty for the paper's. Table 1 of the
  paper: B is `mapping_layers=0, styles=False, const=False, noise=False,
  instance_norm=False, g_norm=True, mixing=0`; C adds mapping, styles and instance
  norm; D the constant; E noise; F mixing. Labels pick the output of D that counts.

  Raises:
    UserError: a resolution, widths or loss that do not exist.
  """

  res: int
  n_classes: int = 0
  channels: int = 3
  dim_z: int = 512
  dim_w: int = 512
  g_widths: tuple[int, ...] = ()
  d_widths: tuple[int, ...] = ()
  mapping_layers: int = 8
  mapping_width: int = 512
  mapping_lrmul: float = 0.01
  normalize_z: bool = True
  styles: bool = True
  const: bool = True
  noise: bool = True
  g_norm: bool = False  # pixel norm
  instance_norm: bool = True
  g_blur: tuple[int, ...] = (1, 2, 1)
  d_blur: tuple[int, ...] = (1, 2, 1)
  g_relu: bool = False
  mapping_relu: bool = False
  d_relu: bool = False
  equalized: bool = True
  mbstd_group: int = 4
  mbstd_features: int = 1
  mixing: float = 0.9  # how often the layers' w come from two z
  w_avg_beta: float = 0.995
  truncated_layers: int = 8  # psi acts on w of the layers below this one
  loss: str = 'logistic'  # non-saturating, with R1; or 'wgan', with WGAN-GP
  r1_gamma: float = 10.0
  gp_weight: float = 10.0
  drift: float = 1e-3
  dtype: str = 'float32'

  truncation_space: ClassVar[Literal['w']] = 'w'

  def __post_init__(self) -> None:
    progressive.check_resolutions(
      self.res, {'g_widths': self.g_widths, 'd_widths': self.d_widths}
    )
    if self.loss not in ('logistic', 'wgan'):
      raise UserError(f'model.loss is {self.loss!r}: allowed are logistic and wgan.')

  @property
  def style_based(self) -> StyleBased:
    return self

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
    """Layers of the synthesis network up to a resolution."""
    return 2 * res.bit_length() - 4

  def sizes(self, res: int) -> list[int]:
    """Width of the noise of each layer up to a resolution."""
    return [4 << i // 2 for i in range(self.layers(res))] if self.noise else []

  def init(self, key: Array) -> tuple[Variables, Variables]:
    """Variables of G and D at every resolution, before any training.

    Besides parameters G has the moving average of w and, for pictures that can be
    drawn again, a fixed noise for each layer.
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

  def draw_inputs(self, key: Array, index: Array, phase: Phase) -> StyleGANInputs:
    """Everything by global example index, and one cutoff from the step's key."""
    keys = [jax.random.fold_in(key, i) for i in range(7)]
    latents = lambda k: jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(
      example_keys(k, index)
    )
    n = self.layers(phase.res)
    swapped = jax.random.randint(keys[3], (), 1, n)
    mixes = jax.random.uniform(keys[4]) < self.mixing
    return StyleGANInputs(
      z=latents(keys[0]),
      z2=latents(keys[1]),
      labels=progressive.draw_labels(example_keys(keys[2], index), self.n_classes),
      noise=self.fresh_noise(example_keys(keys[5], index), phase.res),
      cutoff=jnp.where(mixes, swapped, n),
      mix=jax.vmap(jax.random.uniform)(example_keys(keys[6], index)),
    )

  def d_loss(
    self, g: Variables, d: Variables, batch: Batch, draws: StyleGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """Logistic with R1 on the reals, or WGAN-GP; fakes have the reals' labels."""
    weights = one_hot(batch.labels, self.n_classes)
    fake, g = self._fake(g, draws, weights, phase)
    fake = jax.lax.stop_gradient(fake)
    real = progressive.blend_reals(batch, phase, fake.dtype)
    critic = lambda x: self._score(d, x, weights, phase)
    copies = progressive.pixel_copies(self.res, phase)
    fake_score = critic(fake)
    if self.loss == 'logistic':
      real_score, penalty = losses.r1(critic, real, copies)
      on_real, on_fake = losses.logistic_d(real_score, fake_score)
      loss = on_real + on_fake + self.r1_gamma / 2 * penalty
    else:
      real_score = critic(real)
      on_real, on_fake = losses.wasserstein_d(real_score, fake_score)
      penalty = losses.gradient_penalty(critic, real, fake, draws.mix, copies)
      loss = on_real + on_fake + self.gp_weight * penalty
      loss += self.drift * losses.drift(real_score)
    metrics = {
      'd_loss': loss,
      'd_real': real_score.mean(),
      'd_fake': fake_score.mean(),
      'd_penalty': penalty,
    }
    return loss, (g, d, metrics)

  def g_loss(
    self, g: Variables, d: Variables, draws: StyleGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """Non-saturating logistic loss of G, or minus the mean score."""
    weights = one_hot(draws.labels, self.n_classes)
    fake, g = self._fake(g, draws, weights, phase)
    score = self._score(d, fake, weights, phase)
    wgan = self.loss == 'wgan'
    loss = (losses.wasserstein_g if wgan else losses.logistic_g)(score)
    return loss, (g, d, {'g_loss': loss})

  def w(self, g: Variables, z: Array, labels: Array) -> Array:
    """The mapping network: z [b, dim_z] and labels -> w [b, dim_w]."""
    params = {'params': g['params']['mapping']}
    return self.mapping.apply(params, z, one_hot(labels, self.n_classes))

  def truncate(self, g: Variables, w: Array, psi: ArrayLike, res: int = 0) -> Array:
    """w [b, dim_w] -> [b, layers, dim_w], drawn towards the average by psi.

    Only in the first `truncated_layers`, or by the psi [layers] of each; psi = 1
    changes nothing.
    """
    n = self.layers(res or self.res)
    if not jnp.ndim(psi):
      psi = jnp.where(jnp.arange(n) < self.truncated_layers, psi, 1.0)
    psi = jnp.asarray(psi)[None, :, None]
    return lerp(w[:, None], g['moving']['w_avg'][:, None], 1 - psi)

  def mix(self, w: Array, w2: Array, cutoff: ArrayLike, res: int = 0) -> Array:
    """[b, layers, dim_w]: w in the layers below the cutoff, w2 from there on."""
    layer = jnp.arange(self.layers(res or self.res))[None, :, None]
    return jnp.where(layer < cutoff, w[:, None], w2[:, None])

  def synthesize(
    self,
    g: Variables,
    ws: Array,
    noise: tuple[Array, ...] | None = None,
    *,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Array:
    """Images about [-1, 1] (not clipped), NHWC, from ws [b, layers, dim_w].

    noise: one [b or 1, h, w, 1] a layer; None: the noise stored with the weights.
    """
    res = res or self.res
    if noise is None:
      noise = tuple(g['noise'][f'layer{i}'] for i in range(len(self.sizes(res))))
    params = {'params': g['params']['synthesis']}
    return self.synthesis.apply(params, ws, noise, res, alpha)

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
    """Images about [-1, 1] (not clipped), NHWC; psi truncates w.

    keys: of each image's noise; None: the noise stored with the weights.
    """
    ws = self.truncate(g, self.w(g, z, labels), psi, res)
    noise = None if keys is None else self.fresh_noise(keys, res or self.res)
    return self.synthesize(g, ws, noise, res=res, alpha=alpha)

  def with_noise(self, g: Variables, strength: float) -> Variables:
    """g with the strengths of all noise times `strength`; 0 silences it."""
    if strength == 1:
      return g
    params = dict(g['params'])
    params['synthesis'] = {
      name: layer | {'strength': layer['strength'] * strength}
      if isinstance(layer, dict) and 'strength' in layer
      else layer
      for name, layer in params['synthesis'].items()
    }
    return {**g, 'params': params}

  def fresh_noise(self, keys: Array, res: int) -> tuple[Array, ...]:
    """Noise of every layer for each example's key [b]."""

    def layer(i: int, size: int) -> Array:
      draw = lambda k: jax.random.normal(jax.random.fold_in(k, i), (size, size, 1))
      return jax.vmap(draw)(keys)

    return tuple(layer(i, size) for i, size in enumerate(self.sizes(res)))

  def _fake(
    self, g: Variables, draws: StyleGANInputs, weights: Array, phase: Phase
  ) -> tuple[Array, Variables]:
    """Fakes of a training step, and g with its average of w moved on."""
    w = self.w(g, draws.z, weights)
    mean = jax.lax.stop_gradient(w).mean(0, keepdims=True)
    w_avg = lerp(mean, g['moving']['w_avg'], self.w_avg_beta)
    w2 = self.w(g, draws.z2, weights) if self.mixing else w
    ws = self.mix(w, w2, draws.cutoff, phase.res)
    fake = self.synthesize(g, ws, draws.noise, res=phase.res, alpha=phase.alpha)
    return fake, {**g, 'moving': {'w_avg': w_avg}}

  def _score(self, d: Variables, images: Array, weights: Array, phase: Phase) -> Array:
    """Scores [b, 1]; of several classes, the output of each image's own."""
    out = self.discriminator.apply(d, images, phase.res, phase.alpha)
    return (out * weights).sum(-1, keepdims=True) if self.n_classes else out
