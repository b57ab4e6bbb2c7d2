"""BigGAN and BigGAN-deep (Brock et al. 2019, arXiv:1809.11096)."""

import dataclasses
import re
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax import UserError
from gan_jax.models import losses
from gan_jax.models.base import (
  Batch,
  Loss,
  Phase,
  Variables,
  apply_network,
  example_keys,
  to_float,
)
from gan_jax.models.biggan_networks import (
  D_WIDTHS,
  FINAL_MAP,
  G_WIDTHS,
  INITS,
  Discriminator,
  Generator,
)
from gan_jax.models.truncation_table import statistics_at, update_table
from gan_jax.nn.norms import BatchStatistics
from gan_jax.nn.spectral_norm import init_spectral


class BigGANInputs(NamedTuple):
  """Random inputs of one forward pass, one row per example."""

  z: Float[Array, 'b dim_z']  # N(0, 1)
  labels: Int[Array, ' b']  # of the fakes


class DeepBlock(NamedTuple):
  """One entry of `g_blocks`."""

  up: bool
  width: int  # in units of g_ch
  attention: bool


def parse_blocks(texts: tuple[str, ...]) -> list[DeepBlock] | None:
  """Parses `g_blocks`: '8', 'up 4' (upsamples) or 'up 4 attention'; None: malformed."""
  pattern = r'(?P<up>up )?(?P<width>[1-9]\d{0,3})(?P<attention> attention)?'
  matches = [re.fullmatch(pattern, text) for text in texts]
  if None in matches:
    return None
  return [
    DeepBlock(bool(m['up']), int(m['width']), bool(m['attention']))
    for m in matches
    if m
  ]


@dataclasses.dataclass(frozen=True)
class BigGAN:
  """The BigGAN family. Fields are the keys of a config's model section.

  Widths are in units of `g_ch` and `d_ch`; empty for the published ones of the
  resolution. G has one for the 4x4 map and one per doubling, D one per block. Attention
  follows the blocks whose output has one of the given resolutions.

  Raises:
    UserError: no network has such a size or combination of options.
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
  depth: int = 0  # blocks per stage: 2 gives BigGAN-deep, 0 BigGAN
  g_blocks: tuple[str, ...] = ()  # other blocks for BigGAN-deep's G: `parse_blocks`
  d_wide: bool = True
  split_d: bool = False  # D sees fakes and reals in two passes instead of one
  bn_eps: float = 1e-5
  rgb_bn_eps: float = 1e-5  # of the last norm, which BigGAN-PyTorch keeps at 1e-5
  bn_momentum: float = 0.1
  bn_ddof: int = 1
  bn_group: int = 0  # number of devices that share batch statistics; 0: all
  sn_eps: float = 1e-12
  g_sn_iterations: int = 1
  d_sn_iterations: int = 1
  stats_rows: int = 0  # rows of batch statistics as a table over psi; 0: no table
  g_sn_vectors: int = 1  # singular values followed, the first normalizes; 0: none
  d_sn_vectors: int = 1
  g_init: str = 'ortho'
  d_init: str = 'ortho'
  remat: bool = False
  dtype: str = 'float32'

  def __post_init__(self) -> None:
    self._check_widths()
    self._check_latents()
    self._check_blocks()
    self._check_inits()

  @property
  def _doublings(self) -> int:
    """How often G upsamples, from 4x4 to the final resolution."""
    return self.res.bit_length() - 3

  def _check_widths(self) -> None:
    if self.res < 16 or self.res & (self.res - 1):
      raise UserError(
        f'model.res is {self.res}: BigGAN needs a power of two from 16 up.'
      )
    tables = (
      ('g_widths', self.g_widths, G_WIDTHS),
      ('d_widths', self.d_widths, D_WIDTHS),
    )
    for name, widths, published in tables:
      if not widths and self.res not in published:
        known = ', '.join(map(str, published))
        raise UserError(
          f'model.{name} is empty and no widths are published for model.res='
          f'{self.res}: give them, or take one of {known}.'
        )
    n = self._doublings
    if self.g_widths and len(self.g_widths) != n + 1:
      raise UserError(
        f'model.g_widths has {len(self.g_widths)} entries: model.res={self.res} needs '
        f'{n + 1}, for 4x4 and each of {n} doublings.'
      )

  def _check_latents(self) -> None:
    chunks = self._doublings + 1
    if self.hier and not self.depth and self.dim_z % chunks:
      raise UserError(
        f'model.dim_z={self.dim_z} does not split into {chunks} equal chunks for '
        f'model.hier at model.res={self.res}: take a multiple of {chunks}.'
      )
    if self.hier and self.n_classes and not self.shared_dim:
      raise UserError(
        'model.hier needs model.shared_dim above 0, or model.n_classes=0: a chunk '
        'of z is joined to the shared class embedding.'
      )

  def _check_blocks(self) -> None:
    blocks = parse_blocks(self.g_blocks)
    if blocks is None or (blocks and not self.depth):
      raise UserError(
        f'model.g_blocks is {self.g_blocks}: with model.depth=2 a width, then blocks '
        "such as '8', 'up 4' or 'up 4 attention'."
      )
    ups = sum(block.up for block in blocks[1:])
    if blocks and ups != self._doublings:
      raise UserError(
        f'model.g_blocks upsamples {ups} times, but model.res={self.res} needs '
        f'{self._doublings}.'
      )
    if self.stats_rows == 1 or self.stats_rows < 0:
      raise UserError(f'model.stats_rows is {self.stats_rows}: 0, or 2 and more.')
    if self.depth and not self.hier:
      raise UserError('model.depth (BigGAN-deep) needs model.hier=True.')

  def _check_inits(self) -> None:
    for name, value in (('g_init', self.g_init), ('d_init', self.d_init)):
      if value not in INITS:
        raise UserError(f'model.{name} is {value!r}: allowed are {", ".join(INITS)}.')

  @property
  def generator(self) -> Generator:
    widths, deep, attention = self._generator_shape()
    statistics = partial(
      BatchStatistics,
      momentum=self.bn_momentum,
      ddof=self.bn_ddof,
      group=self.bn_group,
    )
    return Generator(
      widths=widths,
      deep=deep,
      channels=self.channels,
      n_classes=self.n_classes,
      shared_dim=self.shared_dim,
      hier=self.hier,
      attention=attention,
      stats=partial(statistics, self.bn_eps),
      rgb_stats=partial(statistics, self.rgb_bn_eps),
      init_kernel=self.g_init,
      remat=self.remat,
      dtype=self.dtype,
    )

  def _generator_shape(
    self,
  ) -> tuple[tuple[int, ...], tuple[tuple[bool, int], ...], tuple[int, ...]]:
    """`widths`, `deep` and `attention` of the generator."""
    if self.g_blocks:
      first, *blocks = parse_blocks(self.g_blocks) or []
      deep = tuple((block.up, self.g_ch * block.width) for block in blocks)
      widths = (self.g_ch * first.width, *(width for _, width in deep))
      return widths, deep, tuple(i for i, b in enumerate(blocks) if b.attention)
    widths = tuple(self.g_ch * w for w in self.g_widths or G_WIDTHS[self.res])
    sizes = [8 << i for i in range(len(widths) - 1)]
    attention = tuple(i for i, s in enumerate(sizes) if s in self.g_attention)
    deep = ()
    if self.depth:
      for before, after in zip(widths, widths[1:], strict=False):
        deep += ((False, before),) * (self.depth - 1) + ((True, after),)
      attention = tuple(self.depth * (i + 1) - 1 for i in attention)
    return widths, deep, attention

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
    """1: D does not compare examples."""
    return 1

  @property
  def has_batch_stats(self) -> bool:
    """False with a table over psi, which needs no standing statistics."""
    return not self.stats_rows

  @property
  def shares_batch_stats(self) -> bool:
    return self.bn_group != 1

  def init(self, key: PRNGKeyArray) -> tuple[Variables, Variables]:
    """Initial variables of G and D."""
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

  def draw_inputs(
    self, key: PRNGKeyArray, index: Int[Array, ' b'], phase: Phase
  ) -> BigGANInputs:
    """z ~ N(0, 1) and uniform labels, by global example index."""
    del phase
    keys = example_keys(key, index)
    z = jax.vmap(lambda k: jax.random.normal(k, (self.dim_z,)))(keys)
    if not self.n_classes:
      return BigGANInputs(z, jnp.zeros(index.shape, jnp.int32))
    keys = example_keys(jax.random.fold_in(key, 1), index)
    draw = lambda k: jax.random.randint(k, (), 0, self.n_classes)
    return BigGANInputs(z, jax.vmap(draw)(keys))

  def d_loss(
    self, g: Variables, d: Variables, batch: Batch, inputs: BigGANInputs, phase: Phase
  ) -> Loss:
    """Hinge loss. G runs in training mode, so its batch statistics are updated too."""
    del phase
    fake, g = self.run_generator(g, inputs.z, inputs.labels, train=True)
    fake = jax.lax.stop_gradient(fake)
    real = to_float(batch.images, fake.dtype)
    if self.split_d:
      fake_score, d = self.run_discriminator(d, fake, inputs.labels)
      real_score, d = self.run_discriminator(d, real, batch.labels)
    else:
      images = jnp.concatenate([fake, real])
      labels = jnp.concatenate([inputs.labels, batch.labels])
      scores, d = self.run_discriminator(d, images, labels)
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
    self, g: Variables, d: Variables, inputs: BigGANInputs, phase: Phase
  ) -> Loss:
    """Hinge loss: minus the mean score of the fakes."""
    del phase
    fake, g = self.run_generator(g, inputs.z, inputs.labels, train=True)
    score, d = self.run_discriminator(d, fake, inputs.labels)
    loss = losses.hinge_g(score)
    return loss, (g, d, {'g_loss': loss})

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
    """Images in [-1, 1] from psi * z and the stored batch statistics.

    There is one resolution and no noise besides z: `keys`, `res` and `alpha` are not
    used.
    """
    del keys, res, alpha
    g = self.at_truncation(g, psi)
    return self.run_generator(g, z * psi, labels, train=False)[0]

  def at_truncation(self, g: Variables, psi: ArrayLike) -> Variables:
    """g with the batch statistics of its table for psi; g itself without a table."""
    if not self.stats_rows:
      return g
    return {**g, 'batch_stats': statistics_at(g['batch_stats'], psi, self.stats_rows)}

  def standing_statistics(
    self, g: Variables, z: Float[Array, 'n b dim_z'], labels: Int[Array, 'n b']
  ) -> Variables:
    """g with the mean of the batch statistics of n batches (appendix B of the paper).

    Batch statistics depend on the truncation, so a sampler calls this for each
    threshold. Runs under the mesh axis. A g with a table over psi is returned as it is.
    """
    if self.stats_rows:
      return g
    # With momentum 1 the stored statistics are those of the batch.
    fresh = dataclasses.replace(self, bn_momentum=1.0)

    def one(g: Variables, batch: tuple[Array, Array]) -> tuple[Variables, Variables]:
      z, labels = batch
      _, g = fresh.run_generator(g, z, labels, train=True)
      return g, g['batch_stats']

    g, stats = jax.lax.scan(one, g, (z, labels))
    return {**g, 'batch_stats': jax.tree.map(lambda s: s.mean(0), stats)}

  def run_generator(
    self,
    g: Variables,
    z: Float[Array, 'b dim_z'],
    labels: Num[Array, 'b ...'],
    train: bool,
  ) -> tuple[Float[Array, 'b h w c'], Variables]:
    """Images in [-1, 1], and the updated g. Training runs under the mesh axis."""
    table = g['batch_stats'] if self.stats_rows and train else None
    if table is not None:  # training has no truncation: the last row
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
    if table is not None:
      table = update_table(table, g['batch_stats'], after['batch_stats'])
      after = {**after, 'batch_stats': table}
    return image, after

  def run_discriminator(
    self, d: Variables, images: Float[Array, 'b h w c'], labels: Num[Array, 'b ...']
  ) -> tuple[Float[Array, 'b 1'], Variables]:
    """Scores in training mode, and the updated d. Runs under the mesh axis."""
    return apply_network(
      self.discriminator,
      d,
      images,
      labels,
      train=True,
      eps=self.sn_eps,
      iterations=self.d_sn_iterations,
    )
