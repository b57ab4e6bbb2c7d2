"""BigGAN and BigGAN-deep (Brock et al. 2019, arXiv:1809.11096, appendix B and C)."""

import dataclasses
import math
import re
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.models import losses
from gan_jax.models.base import (
  Batch,
  Metrics,
  Phase,
  Variables,
  apply_network,
  example_keys,
  to_float,
)
from gan_jax.nn.layers import Attention, Conv, Dense, Embed, ModuleDef, orthogonal_rows
from gan_jax.nn.norms import BatchStatistics, Norm
from gan_jax.nn.spectral_norm import init_spectral
from gan_jax.ops.convolution import conv
from gan_jax.ops.reductions import accumulation_dtype
from gan_jax.ops.resampling import down_conv, downsample, up_conv, upsample

# Published widths in units of ch: G's from the 4x4 map on, D's one a block. For
# BigGAN-deep D's first entry is the stem and the others are its stages.
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
  512: (1, 1, 2, 4, 8, 8, 16, 16),  # G's mirrored: BigGAN-PyTorch has none at 512
}
FINAL_MAP = {32: 8}  # the published 32 px discriminators stop pooling at 8x8
INITS = {'ortho': orthogonal_rows, 'N02': nn.initializers.normal(0.02)}


class GBlock(nn.Module):
  """Norm, ReLU, up, conv3x3, norm, ReLU, conv3x3; the shortcut is a 1x1 conv."""

  features: int
  conv: ModuleDef
  norm: ModuleDef

  @nn.compact
  def __call__(self, x: Array, condition: Array | None, train: bool) -> Array:
    h = nn.relu(self.norm(name='bn1')(x, condition, train))
    h = self.conv(self.features, apply_kernel=up_conv, name='conv1')(h)
    h = nn.relu(self.norm(name='bn2')(h, condition, train))
    h = self.conv(self.features, name='conv2')(h)
    return h + self.conv(self.features, size=1, apply_kernel=up_conv, name='conv_sc')(x)


class DeepGBlock(nn.Module):
  """A bottleneck of four convs; the skip drops channels, then upsamples."""

  features: int
  up: bool
  conv: ModuleDef
  norm: ModuleDef

  @nn.compact
  def __call__(self, x: Array, condition: Array | None, train: bool) -> Array:
    hidden = x.shape[-1] // 4
    h = nn.relu(self.norm(name='bn1')(x, condition, train))
    h = self.conv(hidden, size=1, name='conv1')(h)
    h = nn.relu(self.norm(name='bn2')(h, condition, train))
    h = self.conv(hidden, apply_kernel=up_conv if self.up else conv, name='conv2')(h)
    h = nn.relu(self.norm(name='bn3')(h, condition, train))
    h = self.conv(hidden, name='conv3')(h)
    h = nn.relu(self.norm(name='bn4')(h, condition, train))
    h = self.conv(self.features, size=1, name='conv4')(h)
    skip = x[..., : self.features]
    return h + (upsample(skip) if self.up else skip)


class Generator(nn.Module):
  """z [b, dim_z] and labels -> images [b, res, res, channels] in (-1, 1).

  `widths` are channels from the 4x4 map on; each further width is a block at twice
  the size. `deep` gives the blocks of BigGAN-deep instead: (up, features) each.
  Labels are int32 [b], or weights over the classes [b, n_classes].
  """

  widths: tuple[int, ...]
  deep: tuple[tuple[bool, int], ...] = ()
  channels: int = 3
  n_classes: int = 0
  shared_dim: int = 0  # 0: an own gain and bias for each class in every norm
  hier: bool = True  # a chunk of z for the first layer and for each block
  attention: tuple[int, ...] = ()  # after the blocks of these numbers
  stats: ModuleDef = BatchStatistics
  rgb_stats: ModuleDef = BatchStatistics
  init_kernel: str = 'ortho'
  remat: bool = False
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, z: Array, labels: Array, train: bool) -> Array:
    weights = dict(dtype=self.dtype)
    kernels = dict(init_kernel=INITS[self.init_kernel], **weights)
    conv_, dense = partial(Conv, **kernels), partial(Dense, **kernels)
    embed = partial(
      Embed, n=self.n_classes, init_embedding=INITS[self.init_kernel], **weights
    )
    blocks = len(self.deep) or len(self.widths) - 1

    condition, project = None, None
    if self.n_classes and self.shared_dim:
      condition = embed(self.shared_dim, name='shared')(labels)
      project = partial(dense, bias=False)
    elif self.n_classes:
      condition, project = labels, embed
    first, conditions = z, [condition] * blocks
    if self.deep and self.hier:
      first = z if condition is None else _join(condition, z)
      conditions, project = [first] * blocks, partial(dense, bias=False)
    elif self.hier:
      first, *chunks = jnp.split(z, blocks + 1, axis=-1)
      conditions = [c if condition is None else _join(condition, c) for c in chunks]
      project = partial(dense, bias=False)
    norm = partial(Norm, self.stats, project)

    x = dense(16 * self.widths[0], name='linear')(first)
    x = x.reshape(-1, 4, 4, self.widths[0])
    shape = dict(conv=conv_, norm=norm)
    keep = nn.remat if self.remat else lambda module, **_: module
    for i in range(blocks):
      if self.deep:
        up, features = self.deep[i]
        block = keep(DeepGBlock, static_argnums=(3,))(
          features, up, name=f'block{i}', **shape
        )
      else:
        block = keep(GBlock, static_argnums=(3,))(
          self.widths[i + 1], name=f'block{i}', **shape
        )
      x = block(x, conditions[i], train)
      if i in self.attention:
        x = Attention(conv_, name=f'attention{i}')(x)
    x = nn.relu(Norm(self.rgb_stats, name='norm')(x, None, train))
    x = jnp.tanh(conv_(self.channels, name='rgb')(x))
    return x.astype(accumulation_dtype(x.dtype))


def _moved_along(path: Any, table: Array, before: Array, after: Array) -> Array:
  """A table of statistics whose last row has moved: means shift, variances scale."""
  if path[-1].key == 'mean':
    return table + (after - before)[None]
  return table * (after / jnp.maximum(before, 1e-12))[None]


def _join(condition: Array, z: Array) -> Array:
  return jnp.concatenate([condition, z.astype(condition.dtype)], -1)


class DBlock(nn.Module):
  """[ReLU,] conv3x3, ReLU, conv3x3, pool; the first block sees the picture raw."""

  features: int
  hidden: int
  down: bool
  first: bool
  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Array) -> Array:
    apply_kernel = down_conv if self.down else conv
    h = x if self.first else nn.relu(x)
    h = nn.relu(self.conv(self.hidden, name='conv1')(h))
    h = self.conv(self.features, apply_kernel=apply_kernel, name='conv2')(h)
    if self.down or x.shape[-1] != self.features:
      sc = self.conv(self.features, size=1, apply_kernel=apply_kernel, name='conv_sc')
      x = sc(x)
    return h + x


class DeepDBlock(nn.Module):
  """A bottleneck of four convs; the skip pools, then a 1x1 conv adds channels."""

  features: int
  down: bool
  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Array) -> Array:
    hidden = self.features // 4
    h = self.conv(hidden, size=1, name='conv1')(nn.relu(x))
    h = self.conv(hidden, name='conv2')(nn.relu(h))
    h = self.conv(hidden, name='conv3')(nn.relu(h))
    h, skip = nn.relu(h), x
    if self.down:
      h, skip = downsample(h), downsample(skip)
    h = self.conv(self.features, size=1, name='conv4')(h)
    added = self.features - x.shape[-1]
    if added > 0:
      more = self.conv(added, size=1, name='conv_sc')(skip)
      skip = jnp.concatenate([skip, more], -1)
    return h + skip


class Discriminator(nn.Module):
  """Images [b, res, res, channels] and labels -> scores [b, 1].

  `widths` has one entry a block, of which the first `downs` halve the map. With
  `depth` it is BigGAN-deep's: a stem of the first width, then stages of `depth`
  blocks for each further width, pooling in the first block of the stage.
  """

  widths: tuple[int, ...]
  downs: int
  depth: int = 0
  n_classes: int = 0
  wide: bool = True
  attention: tuple[int, ...] = ()  # after the stages of these numbers
  init_kernel: str = 'ortho'
  remat: bool = False
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, x: Array, labels: Array, train: bool) -> Array:
    del train  # nothing but the spectral collection moves in D
    init = INITS[self.init_kernel]
    conv_ = partial(Conv, init_kernel=init, dtype=self.dtype)
    keep = nn.remat if self.remat else lambda module: module
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
    h = nn.relu(x).astype(wide).sum((1, 2))
    score = Dense(1, init_kernel=init, dtype=wide, name='linear')(h)
    if self.n_classes:
      embed = Embed(h.shape[-1], self.n_classes, init, wide, name='embed')
      score += (embed(labels) * h).sum(-1, keepdims=True)
    return score


class BigGANInputs(NamedTuple):
  """Random inputs of one forward pass, one row per example."""

  z: Array  # [b, dim_z], N(0, 1)
  labels: Array  # of the fakes, int32 [b]


@dataclasses.dataclass(frozen=True)
class BigGAN:
  """The BigGAN family; fields are the model section of a config.

  Widths come from the published tables in units of `g_ch` and `d_ch`, unless given:
  one for the 4x4 map and one per doubling for G, one per block for D. Attention
  follows the blocks whose output has one of the named resolutions.

  Raises:
    UserError: a size or combination that has no network, in one sentence.
  """

  ema_lags: ClassVar[bool] = False
  style_based: ClassVar[None] = None
  truncation_space: ClassVar[Literal['z']] = 'z'
  psi_threshold: ClassVar[float] = 2.0

  res: int
  n_classes: int = 0
  channels: int = 3
  dim_z: int = 128
  shared_dim: int = 128
  hier: bool = True
  g_ch: int = 64
  d_ch: int = 64
  g_widths: tuple[int, ...] = ()
  d_widths: tuple[int, ...] = ()
  g_attention: tuple[int, ...] = ()
  d_attention: tuple[int, ...] = ()
  depth: int = 0  # 2 gives BigGAN-deep: blocks a stage
  g_blocks: tuple[str, ...] = ()  # G's of BigGAN-deep, if others: see `_deep_blocks`
  d_wide: bool = True
  split_d: bool = False  # D sees fakes and reals in two passes instead of one
  bn_eps: float = 1e-5
  rgb_bn_eps: float = 1e-5  # of the last norm; BigGAN-PyTorch's stays at 1e-5
  bn_momentum: float = 0.1
  bn_ddof: int = 1
  bn_group: int = 0  # devices that share batch statistics; 0: the whole mesh
  sn_eps: float = 1e-12
  g_sn_iterations: int = 1
  d_sn_iterations: int = 1
  stats_rows: int = 0  # batch statistics are a table over psi, of so many rows
  g_sn_vectors: int = 1  # singular values followed; the first is divided by; 0: none
  d_sn_vectors: int = 1
  g_init: str = 'ortho'
  d_init: str = 'ortho'
  remat: bool = False
  dtype: str = 'float32'

  def __post_init__(self):
    if self.res < 16 or self.res & (self.res - 1):
      raise UserError(
        f'model.res is {self.res}: BigGAN needs a power of two from 16 up.'
      )
    for name, table in (('g_widths', G_WIDTHS), ('d_widths', D_WIDTHS)):
      if not getattr(self, name) and self.res not in table:
        known = ', '.join(map(str, table))
        raise UserError(
          f'model.{name} is empty and no widths are published for model.res='
          f'{self.res}: give them, or take one of {known}.'
        )
    stages = self.res.bit_length() - 3
    if self.g_widths and len(self.g_widths) != stages + 1:
      raise UserError(
        f'model.g_widths has {len(self.g_widths)} entries: model.res={self.res} needs '
        f'{stages + 1}, for 4x4 and each of {stages} doublings.'
      )
    slots = stages + 1
    if self.hier and not self.depth and self.dim_z % slots:
      raise UserError(
        f'model.dim_z={self.dim_z} does not split into {slots} equal chunks for '
        f'model.hier at model.res={self.res}: take a multiple of {slots}.'
      )
    if self.hier and self.n_classes and not self.shared_dim:
      raise UserError(
        'model.hier needs model.shared_dim above 0, or model.n_classes=0: a chunk '
        'of z is joined to the shared class embedding.'
      )
    if self.g_blocks and sum('up' in b for b in self._deep_blocks()[1:]) != stages:
      raise UserError(
        f'model.g_blocks doubles another number of times than {stages}, which '
        f'model.res={self.res} needs.'
      )
    if self.stats_rows == 1 or self.stats_rows < 0:
      raise UserError(f'model.stats_rows is {self.stats_rows}: 0, or 2 and more.')
    if self.depth and not self.hier:
      raise UserError('model.depth (BigGAN-deep) needs model.hier=True.')
    for name in ('g_init', 'd_init'):
      if getattr(self, name) not in INITS:
        raise UserError(
          f'model.{name} is {getattr(self, name)!r}: allowed are {", ".join(INITS)}.'
        )

  @property
  def generator(self) -> Generator:
    units = self.g_widths or G_WIDTHS[self.res]
    widths = tuple(self.g_ch * w for w in units)
    sizes = [8 << i for i in range(len(widths) - 1)]
    attention = tuple(i for i, s in enumerate(sizes) if s in self.g_attention)
    deep: tuple[tuple[bool, int], ...] = ()
    if self.depth:
      for before, after in zip(widths, widths[1:], strict=False):
        deep += ((False, before),) * (self.depth - 1) + ((True, after),)
      attention = tuple(self.depth * (i + 1) - 1 for i in attention)
    if self.g_blocks:
      first, *blocks = self._deep_blocks()
      deep = tuple(('up' in b, self.g_ch * int(b['width'])) for b in blocks)
      widths = (self.g_ch * int(first['width']), *(width for _, width in deep))
      attention = tuple(i for i, b in enumerate(blocks) if 'attention' in b)
    statistics = dict(momentum=self.bn_momentum, ddof=self.bn_ddof, group=self.bn_group)
    return Generator(
      widths=widths,
      deep=deep,
      channels=self.channels,
      n_classes=self.n_classes,
      shared_dim=self.shared_dim,
      hier=self.hier,
      attention=attention,
      stats=partial(BatchStatistics, self.bn_eps, **statistics),
      rgb_stats=partial(BatchStatistics, self.rgb_bn_eps, **statistics),
      init_kernel=self.g_init,
      remat=self.remat,
      dtype=self.dtype,
    )

  @property
  def discriminator(self) -> Discriminator:
    units = self.d_widths or D_WIDTHS[self.res]
    blocks = len(units) - bool(self.depth)
    final = 4 if self.d_widths else FINAL_MAP.get(self.res, 4)
    downs = min((self.res // final).bit_length() - 1, blocks)
    sizes = [self.res >> min(i + 1, downs) for i in range(blocks)]
    return Discriminator(
      widths=tuple(self.d_ch * w for w in units),
      downs=downs,
      depth=self.depth,
      n_classes=self.n_classes,
      wide=self.d_wide,
      attention=tuple(i for i, s in enumerate(sizes) if s in self.d_attention),
      init_kernel=self.d_init,
      remat=self.remat,
      dtype=self.dtype,
    )

  @property
  def group(self) -> int:
    """D sees each example for itself."""
    return 1

  @property
  def has_batch_stats(self) -> bool:
    """False with a table of statistics over psi: it needs no standing statistics."""
    return not self.stats_rows

  @property
  def shares_batch_stats(self) -> bool:
    return self.bn_group != 1

  def _deep_blocks(self) -> list[dict[str, str]]:
    """`g_blocks` taken apart.

    The first is the width of the 4x4 map, the others are blocks such as '8', 'up 4'
    (at twice the size) or 'up 4 attention'; widths are in units of `g_ch`.
    """
    pattern = r'(?P<up>up )?(?P<width>[1-9]\d{0,3})(?P<attention> attention)?'
    found = [re.fullmatch(pattern, text) for text in self.g_blocks]
    if None in found or not self.depth:
      raise UserError(
        f'model.g_blocks is {self.g_blocks}: with model.depth=2 a width, then blocks '
        "such as '8', 'up 4' or 'up 4 attention'."
      )
    return [{k: v for k, v in m.groupdict().items() if v} for m in found if m]

  def init(self, key: Array) -> tuple[Variables, Variables]:
    """Variables of G and D, before any training."""
    keys = jax.random.split(key, 4)
    z = jnp.zeros((1, self.dim_z))
    labels = jnp.zeros(1, jnp.int32)
    images = jnp.zeros((1, self.res, self.res, self.channels))
    g = self.generator.init(keys[0], z, labels, train=False)
    d = self.discriminator.init(keys[1], images, labels, train=False)
    g['spectral'] = {}
    if self.g_sn_vectors:
      g['spectral'] = init_spectral(
        keys[2], g['params'], ('kernel',), self.g_sn_vectors
      )
    if self.stats_rows:
      g['batch_stats'] = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (self.stats_rows, *x.shape)), g['batch_stats']
      )
    d['spectral'] = init_spectral(
      keys[3], d['params'], ('kernel', 'embedding'), self.d_sn_vectors
    )
    return g, d

  def draw_inputs(self, key: Array, index: Array, phase: Phase) -> BigGANInputs:
    """z ~ N(0, 1) and labels uniform over the classes, by global example index."""
    del phase
    keys = example_keys(key, index)
    z = jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(keys)
    if not self.n_classes:
      return BigGANInputs(z, jnp.zeros(index.shape, jnp.int32))
    keys = example_keys(jax.random.fold_in(key, 1), index)
    draw = lambda k: jax.random.randint(k, (), 0, self.n_classes)
    return BigGANInputs(z, jax.vmap(draw)(keys))

  def d_loss(
    self, g: Variables, d: Variables, batch: Batch, draws: BigGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """Hinge loss; G runs in training mode, so its statistics move as well."""
    del phase
    fake, g = self._run_g(g, draws.z, draws.labels, train=True)
    fake = jax.lax.stop_gradient(fake)
    real = to_float(batch.images, fake.dtype)
    if self.split_d:
      fake_score, d = self._run_d(d, fake, draws.labels)
      real_score, d = self._run_d(d, real, batch.labels)
    else:
      images = jnp.concatenate([fake, real])
      labels = jnp.concatenate([draws.labels, batch.labels])
      scores, d = self._run_d(d, images, labels)
      fake_score, real_score = jnp.split(scores, [fake.shape[0]])
    on_real, on_fake = losses.hinge_d(real_score, fake_score)
    metrics = {
      'd_loss_real': on_real,
      'd_loss_fake': on_fake,
      'd_real': real_score.mean(),
      'd_fake': fake_score.mean(),
    }
    return on_real + on_fake, (g, d, metrics)

  def g_loss(
    self, g: Variables, d: Variables, draws: BigGANInputs, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]:
    """Hinge loss of G: minus the mean score of its fakes."""
    del phase
    fake, g = self._run_g(g, draws.z, draws.labels, train=True)
    score, d = self._run_d(d, fake, draws.labels)
    loss = losses.hinge_g(score)
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
    """Images in [-1, 1], NHWC, from the stored statistics and psi * z.

    There is one resolution and no other noise: `keys`, `res`, `alpha` are not used.
    """
    del keys, res, alpha
    return self._run_g(self.at_truncation(g, psi), z * psi, labels, train=False)[0]

  def at_truncation(self, g: Variables, psi: ArrayLike) -> Variables:
    """g with the row of its table of batch statistics for z cut at 2 and scaled by psi.

    Of rows i and i + 1 around psi * (rows - 1) the *lower* one gets the fractional
    weight, the other way round than interpolation does: such are the statistics that
    the published outputs were made with (pytorch-pretrained-BigGAN, model.py). Which
    row a psi on the grid falls on is decided there in float64, and here as well.
    """
    if not self.stats_rows:
      return g
    last = self.stats_rows - 1
    grid = [math.modf(k / last / (1 / last)) for k in range(self.stats_rows)]
    # In steps of 2^-20 of a row, so that no compiler can contract what comes after.
    steps = jnp.clip(jnp.asarray(psi, jnp.float32), 0, 1) * np.float32(last * 2**20)
    place = jnp.round(steps).astype(jnp.int32)
    nearest = (place + 2**19) >> 20
    on_grid = jnp.abs(place - (nearest << 20)) < 16
    on = jnp.array([(int(k), int(p * 2**20)) for p, k in grid], jnp.int32)[nearest]
    lower = jnp.where(on_grid, on[0], place >> 20)
    part = jnp.where(on_grid, on[1], place & (2**20 - 1)) * np.float32(2**-20)
    part = jnp.where(part == 0, 1.0, part)  # whole rows are taken whole
    number = jnp.arange(self.stats_rows)
    weights = jnp.where(number == lower, part, 0.0)
    weights += jnp.where(number == lower + 1, 1 - part, 0.0)

    def row(table):  # a product, which has the same bits wherever it stands
      of_rows = weights.astype(table.dtype)
      return jnp.tensordot(of_rows, table, 1, precision=jax.lax.Precision.HIGHEST)

    return {**g, 'batch_stats': jax.tree.map(row, g['batch_stats'])}

  def standing_statistics(self, g: Variables, z: Array, labels: Array) -> Variables:
    """Standing statistics: those of batches z [n, b, dim_z], labels [n, b], averaged.

    Batch statistics depend on the truncation, so a sampler takes them anew at each
    threshold (appendix B of the paper). To be called under the mesh axis. A table
    over psi has them already: such a g is handed back as it is.
    """
    if self.stats_rows:
      return g
    fresh = dataclasses.replace(self, bn_momentum=1.0)  # stored == the batch's own

    def one(g, batch):
      z, labels = batch
      _, g = fresh._run_g(g, z, labels, train=True)
      return g, g['batch_stats']

    g, stats = jax.lax.scan(one, g, (z, labels))
    return {**g, 'batch_stats': jax.tree.map(lambda s: s.mean(0), stats)}

  def _run_g(self, g: Variables, z: Array, labels: Array, train: bool):
    table = g['batch_stats'] if self.stats_rows and train else None
    if table is not None:  # training is without truncation: the last row's
      g = {**g, 'batch_stats': jax.tree.map(lambda x: x[-1], table)}
    image, after = apply_network(
      self.generator,
      g,
      z,
      labels,
      train=train,
      eps=self.sn_eps,
      iterations=self.g_sn_iterations,
    )
    if table is not None:  # and the other rows move along
      table = jax.tree_util.tree_map_with_path(
        _moved_along, table, g['batch_stats'], after['batch_stats']
      )
      after = {**after, 'batch_stats': table}
    return image, after

  def _run_d(self, d: Variables, images: Array, labels: Array):
    return apply_network(
      self.discriminator,
      d,
      images,
      labels,
      train=True,
      eps=self.sn_eps,
      iterations=self.d_sn_iterations,
    )
