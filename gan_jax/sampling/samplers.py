"""The jitted samplers: seeds, latents, truncation, standing batch statistics."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from gan_jax.models.base import GAN, StyleBased, Variables, to_uint8
from gan_jax.runtime.mesh import AXIS

Sampler = Any  # a jitted function, see make_sampler


@functools.partial(jax.jit, static_argnums=1)
def latents(seeds: ArrayLike, dim_z: int, truncation: ArrayLike = np.inf) -> Array:
  """z [n, dim_z] of each seed; entries beyond +-truncation are drawn again.

  That is a normal cut at the threshold, drawn directly. `inf` does not truncate.
  """

  def one(seed):
    key = jax.random.key(seed)
    t = jnp.minimum(jnp.asarray(truncation, jnp.float32), 5)  # beyond: never used
    cut = jax.random.truncated_normal(key, -t, t, (dim_z,))
    return jnp.where(jnp.isinf(truncation), jax.random.normal(key, (dim_z,)), cut)

  return jax.vmap(one)(jnp.asarray(seeds))


@functools.partial(jax.jit, static_argnums=1)
def labels_from_seeds(seeds: ArrayLike, n_classes: int) -> Array:
  """The class a seed shows unless one is asked for, int32 [n], uniform."""

  def one(seed):
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.randint(key, (), 0, max(n_classes, 1))

  return jax.vmap(one)(jnp.asarray(seeds))


def make_sampler(
  gan: GAN, mesh: Mesh, res: int = 0, stored_noise: bool = False
) -> Sampler:
  """Compiles (g, z, classes, psi, seeds, alpha) -> pictures uint8 [n, h, w, c].

  The batch is split over the mesh. Truncation is in z and in psi, so sweeping it
  compiles nothing new. The compiled function takes

    g: variables of the generator.
    z: [n, dim_z]; classes [n, n_classes]: weights, one-hot for one class.
    psi: of `gan.generate`; a scalar, as is alpha, how far `res` has faded in.
    seeds: uint32 [n], of the noise beside z, where a family has any.

  Args:
    res: the resolution a growing run has come to; 0: the final one.
    stored_noise: draw all pictures with the noise that came with the weights.
  """
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def sample(g, z, classes, psi, seeds, alpha):
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    keys = None if stored_noise else noise_keys(seeds)
    return to_uint8(gan.generate(g, z, labels, psi, keys=keys, res=res, alpha=alpha))

  shardings = (whole, split, split, whole, split, whole)
  return jax.jit(sample, in_shardings=shardings, out_shardings=split)


def make_styles(gan: StyleBased, mesh: Mesh) -> Sampler:
  """Compiles (g, z, classes, psi [layers]) -> ws [n, layers, dim_w], truncated.

  z and classes as in `make_sampler`; psi is that of each layer.
  """
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def styles(g, z, classes, psi):
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    return gan.truncate(g, gan.w(g, z, labels), psi)

  return jax.jit(styles, in_shardings=(whole, split, split, whole), out_shardings=split)


def make_synthesizer(
  gan: StyleBased, mesh: Mesh, res: int = 0, stored_noise: bool = False
) -> Sampler:
  """Compiles (g, ws [n, layers, dim_w], seeds [n], alpha) -> uint8 [n, h, w, c].

  As `make_sampler`, from styles in place of z, classes and psi.
  """
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def sample(g, ws, seeds, alpha):
    noise = None if stored_noise else gan.fresh_noise(noise_keys(seeds), res or gan.res)
    return to_uint8(gan.synthesize(g, ws, noise, res=res, alpha=alpha))

  return jax.jit(sample, in_shardings=(whole, split, split, whole), out_shardings=split)


def noise_keys(seeds: Array) -> Array:
  """Of the noise that a seed draws beside z [n]."""
  return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 2))(seeds)


@functools.cache
def make_standing_statistics(gan: GAN, mesh: Mesh) -> Callable[..., Variables]:
  """Compiles `gan.standing_statistics`; z [n, b, dim_z], labels [n, b] are sharded."""
  specs = (P(), P(None, AXIS), P(None, AXIS))
  return jax.jit(
    jax.shard_map(
      gan.standing_statistics, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False
    )
  )


def standing_statistics(
  gan: GAN,
  mesh: Mesh,
  g: Variables,
  passes: int,
  batch: int,
  truncation: float = np.inf,
  psi: float = 1.0,
) -> Variables:
  """g with the batch statistics of this truncation, averaged over `passes` batches."""
  if not gan.has_batch_stats:
    return g
  seeds = np.uint32(2**32 - 1) - np.arange(passes * batch, dtype=np.uint32)
  z = psi * latents(seeds, gan.dim_z, truncation).reshape(passes, batch, -1)
  labels = labels_from_seeds(seeds, gan.n_classes).reshape(passes, batch)
  taken = []
  for i in range(passes):  # one at a time: a single program for any number of them
    g = make_standing_statistics(gan, mesh)(g, z[i : i + 1], labels[i : i + 1])
    taken.append(jax.device_get(g['batch_stats']))
  mean = lambda *stats: np.mean(stats, 0, dtype=np.float32)
  return {**g, 'batch_stats': jax.tree.map(mean, *taken)}


def run_in_batches(
  draw: Callable[..., ArrayLike], rows: Sequence[np.ndarray], batch: int
) -> Iterator[np.ndarray]:
  """draw(*rows) in batches, the last one shorter; every call has one and the same size.

  Args:
    draw: takes `batch` entries of each of the rows.
    rows: arrays of one length.
  """
  total = len(rows[0])
  for start in range(0, total, batch):
    n = min(batch, total - start)
    part = np.minimum(np.arange(start, start + batch), total - 1)
    yield np.asarray(draw(*(x[part] for x in rows)))[:n]
