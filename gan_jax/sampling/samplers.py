"""Jitted samplers: latents from seeds, truncation, standing batch statistics."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from gan_jax.models.base import GAN, StyleBased, Variables, to_uint8
from gan_jax.runtime.mesh import AXIS

Sampler = jax.stages.Wrapped  # a jitted function, see make_sampler


@functools.partial(jax.jit, static_argnums=1)
def latents(
  seeds: UInt32[Array, ' n'] | np.ndarray, dim_z: int, truncation: ArrayLike = np.inf
) -> Float[Array, 'n dim_z']:
  """z of each seed, from a standard normal distribution truncated at +-truncation.

  A truncated normal has the distribution of a normal whose entries beyond the
  threshold are drawn again (BigGAN, section 3.1). `inf` does not truncate.
  """

  def latent(seed: Array) -> Array:
    key = jax.random.key(seed)
    # No float32 normal goes beyond 5, and truncated_normal needs a finite bound.
    bound = jnp.minimum(jnp.asarray(truncation, jnp.float32), 5)
    truncated = jax.random.truncated_normal(key, -bound, bound, (dim_z,))
    normal = jax.random.normal(key, (dim_z,))
    return jnp.where(jnp.isinf(truncation), normal, truncated)

  return jax.vmap(latent)(jnp.asarray(seeds))


@functools.partial(jax.jit, static_argnums=1)
def labels_from_seeds(
  seeds: UInt32[Array, ' n'] | np.ndarray, n_classes: int
) -> Int[Array, ' n']:
  """The label of each seed where none is given, uniform over the classes."""

  def label(seed: Array) -> Array:
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.randint(key, (), 0, max(n_classes, 1))

  return jax.vmap(label)(jnp.asarray(seeds))


def noise_keys(seeds: UInt32[Array, ' n']) -> PRNGKeyArray:
  """Keys [n] of the noise that each seed gives a StyleGAN besides z."""
  return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 2))(seeds)


def make_sampler(
  gan: GAN, mesh: Mesh, res: int = 0, stored_noise: bool = False
) -> Sampler:
  """A jitted function (g, z, classes, psi, seeds, alpha) -> images uint8 [n, h, w, c].

  The batch is sharded over the mesh. z is already truncated and psi is an input, so
  new truncation values compile nothing. The arguments of the jitted function:

    g: variables of the generator.
    z: float32 [n, dim_z].
    classes: float32 [n, n_classes], class weights; one-hot for a single class.
    psi: scalar, see `GAN.generate`.
    seeds: uint32 [n], seeds of the noise besides z. Only StyleGAN has such noise.
    alpha: scalar, how far `res` has faded in.

  Args:
    res: resolution of a growing GAN; 0: the final one.
    stored_noise: use the noise stored with the weights for all images.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def sample(
    g: Variables, z: Array, classes: Array, psi: Array, seeds: Array, alpha: Array
  ) -> Array:
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    keys = None if stored_noise else noise_keys(seeds)
    return to_uint8(gan.generate(g, z, labels, psi, keys=keys, res=res, alpha=alpha))

  shardings = (replicated, sharded, sharded, replicated, sharded, replicated)
  return jax.jit(sample, in_shardings=shardings, out_shardings=sharded)


def make_mapper(gan: StyleBased, mesh: Mesh) -> Sampler:
  """A jitted function (g, z, classes, psi [layers]) -> ws [n, layers, dim_w].

  The mapping network followed by truncation in w. g, z and classes are those of
  `make_sampler`; psi has one value per synthesis layer.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def map_latents(g: Variables, z: Array, classes: Array, psi: Array) -> Array:
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    return gan.truncate(g, gan.w(g, z, labels), psi)

  shardings = (replicated, sharded, sharded, replicated)
  return jax.jit(map_latents, in_shardings=shardings, out_shardings=sharded)


def make_truncator(gan: StyleBased, mesh: Mesh) -> Sampler:
  """A jitted function (g, w, psi [layers]) -> ws [n, layers, dim_w].

  Truncation of w [n, dim_w] or [n, layers, dim_w]; otherwise as `make_mapper`.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  shardings = (replicated, sharded, replicated)
  return jax.jit(gan.truncate, in_shardings=shardings, out_shardings=sharded)


def make_synthesizer(
  gan: StyleBased, mesh: Mesh, res: int = 0, stored_noise: bool = False
) -> Sampler:
  """A jitted function (g, ws, seeds, alpha) -> images uint8 [n, h, w, c].

  The synthesis network on ws [n, layers, dim_w]; otherwise as `make_sampler`.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def synthesize(g: Variables, ws: Array, seeds: Array, alpha: Array) -> Array:
    noise = None if stored_noise else gan.fresh_noise(noise_keys(seeds), res or gan.res)
    return to_uint8(gan.synthesize(g, ws, noise, res=res, alpha=alpha))

  shardings = (replicated, sharded, sharded, replicated)
  return jax.jit(synthesize, in_shardings=shardings, out_shardings=sharded)


def make_noisy_synthesizer(gan: StyleBased, mesh: Mesh, res: int = 0) -> Sampler:
  """A jitted function (g, ws, noise, alpha) -> images uint8 [n, h, w, c].

  `noise` has one [n, h, w, 1] per layer; otherwise as `make_synthesizer`.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def synthesize(
    g: Variables, ws: Array, noise: tuple[Array, ...], alpha: Array
  ) -> Array:
    return to_uint8(gan.synthesize(g, ws, noise, res=res, alpha=alpha))

  shardings = (replicated, sharded, sharded, replicated)
  return jax.jit(synthesize, in_shardings=shardings, out_shardings=sharded)


@functools.cache
def make_standing_statistics(gan: GAN, mesh: Mesh) -> Callable[..., Variables]:
  """Jitted `gan.standing_statistics`; z [n, b, dim_z] and labels [n, b] are sharded."""
  specs = (P(), P(None, AXIS), P(None, AXIS))
  return jax.jit(
    jax.shard_map(
      gan.standing_statistics,
      mesh=mesh,
      in_specs=specs,
      out_specs=P(),
      check_vma=False,
    )
  )


def standing_statistics(
  gan: GAN,
  mesh: Mesh,
  g: Variables,
  n_batches: int,
  batch: int,
  truncation: float = np.inf,
  psi: float = 1.0,
) -> Variables:
  """g with batch statistics averaged over batches at this truncation.

  BigGAN, appendix B. Returns g itself if its statistics do not depend on truncation.

  Args:
    n_batches: number of batches of latents.
    batch: latents per batch, a multiple of the number of devices.
  """
  if not gan.has_batch_stats:
    return g
  # Seeds from the far end: samples usually have small ones.
  seeds = np.uint32(2**32 - 1) - np.arange(n_batches * batch, dtype=np.uint32)
  z = psi * latents(seeds, gan.dim_z, truncation).reshape(n_batches, batch, -1)
  labels = labels_from_seeds(seeds, gan.n_classes).reshape(n_batches, batch)
  statistics = []
  for i in range(n_batches):  # one batch per call: one program for any number of them
    g = make_standing_statistics(gan, mesh)(g, z[i : i + 1], labels[i : i + 1])
    statistics.append(jax.device_get(g['batch_stats']))
  mean = lambda *xs: np.mean(xs, 0, dtype=np.float32)
  return {**g, 'batch_stats': jax.tree.map(mean, *statistics)}


def run_in_batches(
  function: Callable[..., ArrayLike], rows: Sequence[np.ndarray], batch: int
) -> Iterator[np.ndarray]:
  """Yields function(*rows) batch by batch; the last batch may be shorter.

  Every call has `batch` rows, so one program serves all: the last row is repeated
  where rows are missing, and the surplus outputs are dropped.

  Args:
    rows: arrays of equal length.
  """
  total = len(rows[0])
  for start in range(0, total, batch):
    n = min(batch, total - start)
    index = np.minimum(np.arange(start, start + batch), total - 1)
    yield np.asarray(function(*(x[index] for x in rows)))[:n]
