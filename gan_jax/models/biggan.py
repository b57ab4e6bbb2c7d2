"""BigGAN and BigGAN-deep (Brock et al. 2019, arXiv:1809.11096)."""

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from gan_jax.models import losses
from gan_jax.models.augmentation import UNAUGMENTED, Augment
from gan_jax.models.base import (
  Batch,
  Loss,
  Phase,
  SamplingDefaults,
  Variables,
  apply_network,
  example_keys,
  to_float,
)
from gan_jax.models.biggan_config import BigGANConfig
from gan_jax.models.truncation_table import statistics_at, update_table
from gan_jax.nn.spectral_norm import init_spectral


class BigGANInputs(NamedTuple):
  """Random inputs of one forward pass, one row per example."""

  z: Float[Array, 'b dim_z']  # N(0, 1)
  labels: Int[Array, ' b']  # of the fakes


@dataclasses.dataclass(frozen=True)
class BigGAN(BigGANConfig):
  """The BigGAN family. Fields are the keys of a config's model section."""

  ema_lags: ClassVar[bool] = False
  grows: ClassVar[bool] = False
  normalize_z: ClassVar[bool] = False
  style_based: ClassVar[None] = None
  truncation_space: ClassVar[Literal['z']] = 'z'

  @property
  def group(self) -> int:
    """1: D does not compare examples."""
    return 1

  @property
  def sampling_defaults(self) -> SamplingDefaults:
    """No truncation, as BigGAN-PyTorch's sample.py; z scaled by psi is cut at 2.

    Published weights with a table of statistics over psi draw z within 2 at psi = 1
    too.
    """
    return SamplingDefaults(1.0, 2.0 if self.stats_rows else math.inf, 2.0)

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
    images = jnp.zeros((1, *self.size(), self.channels))
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
    self,
    g: Variables,
    d: Variables,
    batch: Batch,
    inputs: BigGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """Hinge loss. G runs in training mode, so its batch statistics are updated too."""
    del phase
    fake_labels = batch.labels if self.fake_labels == 'data' else inputs.labels
    fake, g = self.run_generator(g, inputs.z, fake_labels, train=True)
    fake = augment(jax.lax.stop_gradient(fake), 'fake')
    real = augment(to_float(batch.images, fake.dtype), 'real')
    if self.split_d:
      fake_score, d = self.run_discriminator(d, fake, fake_labels)
      real_score, d = self.run_discriminator(d, real, batch.labels)
    else:
      images = jnp.concatenate([fake, real])
      labels = jnp.concatenate([fake_labels, batch.labels])
      scores, d = self.run_discriminator(d, images, labels)
      fake_score, real_score = jnp.split(scores, [fake.shape[0]])
    on_real, on_fake = losses.hinge_d(real_score, fake_score)
    metrics = {
      'd_loss_real': on_real,
      'd_loss_fake': on_fake,
      'd_real': real_score.mean(),
      'd_fake': fake_score.mean(),
      **augment.metrics(real_score),
    }
    return on_real + on_fake, (g, d, metrics)

  def g_loss(
    self,
    g: Variables,
    d: Variables,
    inputs: BigGANInputs,
    phase: Phase,
    augment: Augment = UNAUGMENTED,
  ) -> Loss:
    """Hinge loss: minus the mean score of the fakes."""
    del phase
    fake, g = self.run_generator(g, inputs.z, inputs.labels, train=True)
    score, d = self.run_discriminator(d, augment(fake, 'fake'), inputs.labels)
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

  def latent_kernels(self, g: Variables) -> list[Float[Array, 'd outputs']]:
    """The kernels of the first layer and of each block's norms.

    Only a hierarchical G without depth has chunks; else one kernel has all outputs.
    """
    params = g['params']
    blocks = [params[f'block{i}'] for i in range(sum('block' in x for x in params))]
    kernels = [[params['linear']['kernel']]]
    if self.hier:
      names = ('gain', 'bias')
      kernels += [
        [norm[name]['kernel'] for norm in _norms(block) for name in names]
        for block in blocks
      ]
    joined = [jnp.concatenate(x, 1) for x in kernels]
    if self.depth or not self.hier:  # z comes after the class embedding
      return [jnp.concatenate([x[-self.dim_z :] for x in joined], 1)]
    size = self.dim_z // len(joined)
    return [
      jnp.pad(x[-size:], ((i * size, self.dim_z - (i + 1) * size), (0, 0)))
      for i, x in enumerate(joined)
    ]

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


def _norms(block: Variables) -> list[Variables]:
  """The parameters of a block's conditional norms, in order."""
  return [block[name] for name in sorted(block) if name.startswith('bn')]
