"""Networks of BigGAN and BigGAN-deep (arXiv:1809.11096, appendix B and C)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from gan_jax.models.first_map import SQUARE
from gan_jax.nn.layers import (
  Attention,
  Conv,
  Dense,
  Embed,
  ModuleDef,
  orthogonal_rows,
  sum_of_convs,
)
from gan_jax.nn.norms import BatchStatistics, Norm
from gan_jax.ops.activations import relu
from gan_jax.ops.convolution import conv
from gan_jax.ops.reductions import accumulation_dtype
from gan_jax.ops.resampling import down_conv, downsample, up_conv, upsample

# Published widths in units of ch: for G of the 4x4 map and of each doubling, for D of
# each block. For BigGAN-deep, D's first entry is the stem and the others are stages.
G_WIDTHS = {
  32: (4, 4, 4, 4),
  64: (16, 16, 8, 4, 2),
  128: (16, 16, 8, 4, 2, 1),
  256: (16, 16, 8, 8, 4, 2, 1),
  512: (16, 16, 8, 8, 4, 2, 1, 1),
}
D_WIDTHS = {
  32: (4, 4, 4, 4),
  64: (1, 2, 4, 8, 16),
  128: (1, 2, 4, 8, 16, 16),
  256: (1, 2, 4, 8, 8, 16, 16),
  512: (1, 1, 2, 4, 8, 8, 16, 16),  # G's in reverse: BigGAN-PyTorch has none for 512
}
FINAL_MAP = {32: 8}  # published discriminators for 32 pixels stop downsampling at 8x8
INITS = {
  'ortho': orthogonal_rows,
  'N02': nn.initializers.normal(0.02),
  'xavier': nn.initializers.xavier_uniform(),
}


class GBlock(nn.Module):
  """Norm, ReLU, upsample, conv 3x3, norm, ReLU, conv 3x3; shortcut: a 1x1 conv."""

  features: int
  conv: ModuleDef
  norm: ModuleDef

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], condition: Array | None, train: bool
  ) -> Float[Array, 'b 2*h 2*w features']:
    h = relu(self.norm(name='bn1')(x, condition, train))
    h = self.conv(self.features, apply_kernel=up_conv, name='conv1')(h)
    h = relu(self.norm(name='bn2')(h, condition, train))
    conv2 = partial(self.conv, self.features, name='conv2')
    conv_sc = partial(
      self.conv, self.features, size=1, apply_kernel=up_conv, name='conv_sc'
    )
    return sum_of_convs(conv2, h, conv_sc, x)


class DeepGBlock(nn.Module):
  """A bottleneck of four convs. The skip drops channels, then upsamples."""

  features: int
  up: bool
  conv: ModuleDef
  norm: ModuleDef

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], condition: Array | None, train: bool
  ) -> Float[Array, 'b h2 w2 features']:
    hidden = x.shape[-1] // 4
    h = relu(self.norm(name='bn1')(x, condition, train))
    h = self.conv(hidden, size=1, name='conv1')(h)
    h = relu(self.norm(name='bn2')(h, condition, train))
    h = self.conv(hidden, apply_kernel=up_conv if self.up else conv, name='conv2')(h)
    h = relu(self.norm(name='bn3')(h, condition, train))
    h = self.conv(hidden, name='conv3')(h)
    h = relu(self.norm(name='bn4')(h, condition, train))
    h = self.conv(self.features, size=1, name='conv4')(h)
    skip = x[..., : self.features]
    return h + (upsample(skip) if self.up else skip)


class _Conditioning(NamedTuple):
  """What the layers of a generator are conditioned on."""

  first: Array  # input of the first layer
  blocks: Sequence[Array | None]  # condition of each block
  project: ModuleDef | None  # condition -> gain and bias of a norm


class Generator(nn.Module):
  """z [b, dim_z] and labels -> images [b, h, w, channels] in (-1, 1).

  `widths` are the channels from the 4x4 map on; each further width is a block that
  upsamples. `deep` replaces them by the blocks of BigGAN-deep: (upsample?, features).
  Labels are int32 [b], or weights over the classes [b, n_classes].
  """

  widths: tuple[int, ...]
  deep: tuple[tuple[bool, int], ...] = ()
  channels: int = 3
  first_map: tuple[int, ...] = SQUARE
  n_classes: int = 0
  shared_dim: int = 0  # shared class embedding; 0: gain and bias per class in each norm
  hier: bool = True  # the first layer and each block get their own chunk of z
  attention: tuple[int, ...] = ()  # numbers of the blocks that attention follows
  stats: ModuleDef = BatchStatistics
  rgb_stats: ModuleDef = BatchStatistics
  init_kernel: str = 'ortho'
  remat: bool = False
  dtype: Any = 'float32'

  @nn.compact
  def __call__(
    self, z: Float[Array, 'b dim_z'], labels: Num[Array, 'b ...'], train: bool
  ) -> Float[Array, 'b h w c']:
    kernels = dict(init_kernel=INITS[self.init_kernel], dtype=self.dtype)
    conv_, dense = partial(Conv, **kernels), partial(Dense, **kernels)
    embed = partial(
      Embed,
      n=self.n_classes,
      init_embedding=INITS[self.init_kernel],
      dtype=self.dtype,
    )
    first, conditions, project = _conditioning(self, z, labels, dense, embed)
    shape = dict(conv=conv_, norm=partial(Norm, self.stats, project))

    height, width = self.first_map
    x = dense(height * width * self.widths[0], name='linear')(first)
    x = x.reshape(-1, height, width, self.widths[0])
    keep = nn.remat if self.remat else lambda module, **_: module
    for i, condition in enumerate(conditions):
      if self.deep:
        up, features = self.deep[i]
        block = keep(DeepGBlock, static_argnums=(3,))(
          features, up, name=f'block{i}', **shape
        )
      else:
        block = keep(GBlock, static_argnums=(3,))(
          self.widths[i + 1], name=f'block{i}', **shape
        )
      x = block(x, condition, train)
      if i in self.attention:
        x = Attention(conv_, name=f'attention{i}')(x)
    x = relu(Norm(self.rgb_stats, name='norm')(x, None, train))
    x = jnp.tanh(conv_(self.channels, name='rgb')(x))
    return x.astype(accumulation_dtype(x.dtype))


def _conditioning(
  net: Generator, z: Array, labels: Array, dense: ModuleDef, embed: ModuleDef
) -> _Conditioning:
  """Distributes z and the class embedding over the layers of a generator."""
  blocks = len(net.deep) or len(net.widths) - 1
  linear = partial(dense, bias=False)
  condition: Array | None = None
  project: ModuleDef | None = None
  if net.n_classes and net.shared_dim:
    condition, project = embed(net.shared_dim, name='shared')(labels), linear
  elif net.n_classes:
    condition, project = labels, embed

  def join(z: Array) -> Array:
    if condition is None:
      return z
    return jnp.concatenate([condition, z.astype(condition.dtype)], -1)

  if not net.hier:
    return _Conditioning(z, [condition] * blocks, project)
  if net.deep:
    joined = join(z)
    return _Conditioning(joined, [joined] * blocks, linear)
  first, *chunks = jnp.split(z, blocks + 1, axis=-1)
  return _Conditioning(first, [join(chunk) for chunk in chunks], linear)


class DBlock(nn.Module):
  """[ReLU,] conv 3x3, ReLU, conv 3x3, pool; the first block has no leading ReLU."""

  features: int
  hidden: int
  down: bool
  first: bool
  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 features']:
    apply_kernel = down_conv if self.down else conv
    h = x if self.first else relu(x)
    h = relu(self.conv(self.hidden, name='conv1')(h))
    conv2 = partial(self.conv, self.features, apply_kernel=apply_kernel, name='conv2')
    if self.down or x.shape[-1] != self.features:
      conv_sc = partial(
        self.conv, self.features, size=1, apply_kernel=apply_kernel, name='conv_sc'
      )
      return sum_of_convs(conv2, h, conv_sc, x)
    return conv2()(h) + x


class DeepDBlock(nn.Module):
  """A bottleneck of four convs. The skip pools, then a 1x1 conv adds channels."""

  features: int
  down: bool
  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 features']:
    hidden = self.features // 4
    h = self.conv(hidden, size=1, name='conv1')(relu(x))
    h = self.conv(hidden, name='conv2')(relu(h))
    h = self.conv(hidden, name='conv3')(relu(h))
    h, skip = relu(h), x
    if self.down:
      h, skip = downsample(h), downsample(skip)
    h = self.conv(self.features, size=1, name='conv4')(h)
    added = self.features - x.shape[-1]
    if added > 0:
      more = self.conv(added, size=1, name='conv_sc')(skip)
      skip = jnp.concatenate([skip, more], -1)
    return h + skip


class Discriminator(nn.Module):
  """Images [b, h, w, channels] and labels -> scores [b, 1].

  `widths` has one entry per block; the first `downs` blocks downsample. With `depth` it
  is BigGAN-deep's: a stem of the first width, then one stage of `depth` blocks for each
  further width, of which the first block downsamples.
  """

  widths: tuple[int, ...]
  downs: int
  depth: int = 0
  n_classes: int = 0
  wide: bool = True
  attention: tuple[int, ...] = ()  # numbers of the stages that attention follows
  init_kernel: str = 'ortho'
  remat: bool = False
  dtype: Any = 'float32'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], labels: Num[Array, 'b ...'], train: bool
  ) -> Float[Array, 'b 1']:
    del train  # D has no other state than the spectral collection
    init = INITS[self.init_kernel]
    conv_ = partial(Conv, init_kernel=init, dtype=self.dtype)
    keep: Callable[..., Any] = nn.remat if self.remat else lambda module: module
    x, widths = x.astype(self.dtype), self.widths
    if self.depth:
      x, widths = conv_(widths[0], name='stem')(x), widths[1:]
    for i, features in enumerate(widths):
      down = i < self.downs
      if self.depth:
        for j in range(self.depth):
          block = keep(DeepDBlock)(
            features, down and j == 0, conv_, name=f'block{i}_{j}'
          )
          x = block(x)
      else:
        hidden = features if self.wide else x.shape[-1]
        block = keep(DBlock)(features, hidden, down, i == 0, conv_, name=f'block{i}')
        x = block(x)
      if i in self.attention:
        x = Attention(conv_, name=f'attention{i}')(x)
    wide = accumulation_dtype(x.dtype)
    h = relu(x).astype(wide).sum((1, 2))
    score = Dense(1, init_kernel=init, dtype=wide, name='linear')(h)
    if self.n_classes:
      embed = Embed(h.shape[-1], self.n_classes, init, wide, name='embed')
      score += (embed(labels) * h).sum(-1, keepdims=True)
    return score
