"""Sharding over the mesh: which arrays are sharded, and moving arrays to the devices.

Functions on a single array inside `shard_map` take a `ShardAxis`; they are collectives
where that axis is not None.
"""

import dataclasses
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from gan_jax.runtime.mesh import AXIS

# Number of elements from which an array is sharded. Smaller ones are replicated: their
# collectives would cost more than the memory they save.
MIN_SHARDED_SIZE = 2**15

Tree = TypeVar('Tree')


@dataclasses.dataclass(frozen=True)
class ShardAxis:
  """The axis along which an array is sharded over the mesh; None if replicated."""

  axis: int | None

  @property
  def spec(self) -> P:
    return P() if self.axis is None else P(*[None] * self.axis, AXIS)


def shard_axis(shape: tuple[int, ...], n_shards: int) -> ShardAxis:
  """Chooses the axis along which an array of this shape is sharded.

  It is the last axis but one, or else the last axis, if divisible by `n_shards`. Arrays
  below `MIN_SHARDED_SIZE` are replicated, as is everything for one shard.
  """
  if n_shards == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
    return ShardAxis(None)
  axes = [a for a in (len(shape) - 2, len(shape) - 1) if a >= 0]
  return ShardAxis(next((a for a in axes if shape[a] % n_shards == 0), None))


def mean_shard(x: Array, axis: ShardAxis) -> Array:
  """The mean of x over the devices; only this device's shard where it is sharded."""
  if axis.axis is None:
    return lax.pmean(x, AXIS)
  total = lax.psum_scatter(x, AXIS, scatter_dimension=axis.axis, tiled=True)
  return total / lax.axis_size(AXIS)


def local_shard(x: Array, axis: ShardAxis) -> Array:
  """This device's shard of a replicated array."""
  if axis.axis is None:
    return x
  size = x.shape[axis.axis] // lax.axis_size(AXIS)
  return lax.dynamic_slice_in_dim(x, lax.axis_index(AXIS) * size, size, axis.axis)


def gather_shards(x: Array, axis: ShardAxis) -> Array:
  """The full array on every device, from each device's shard."""
  if axis.axis is None:
    return x
  return lax.all_gather(x, AXIS, axis=axis.axis, tiled=True)


def global_norm(tree: PyTree[Array], axes: PyTree[ShardAxis]) -> Array:
  """The Euclidean norm of all arrays of a tree, of which some are shards."""
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(axes), strict=True)
  squares = [(jnp.square(x).sum(), axis.axis is None) for x, axis in pairs]
  total = sum((s for s, replicated in squares if replicated), jnp.zeros(()))
  local = [s for s, replicated in squares if not replicated]
  if local:
    total += lax.psum(sum(local[1:], local[0]), AXIS)
  return jnp.sqrt(total)


def unshard(tree: Tree, mesh: Mesh) -> Tree:
  """Global arrays, replicated on every device.

  Collective: all processes must call it.
  """
  if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
    return tree
  return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(tree)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
  """Makes global arrays, replicated on every device of the mesh.

  Args:
    tree: arrays that have the same values on every process. Arrays that already are on
      all local devices are not copied.
  """
  sharding = NamedSharding(mesh, P())

  def place(x: Any) -> Array:
    if not isinstance(x, jax.Array) or len(x.devices()) != len(mesh.local_devices):
      return jax.make_array_from_callback(
        np.shape(x), sharding, lambda _: np.asarray(x)
      )
    copies = {s.device: s.data for s in x.addressable_shards}
    return jax.make_array_from_single_device_arrays(
      x.shape, sharding, [copies[d] for d in mesh.local_devices]
    )

  return jax.tree.map(place, tree)


def shard_batch(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[Array]:
  """Makes global arrays, sharded over the devices along the first axis.

  Args:
    batch: this process's arrays [local devices, ...].

  Returns:
    Arrays [devices, ...] of all processes.
  """
  sharding = NamedSharding(mesh, P(AXIS))

  def place(x: np.ndarray) -> Array:
    rows = [jax.device_put(x[i : i + 1], d) for i, d in enumerate(mesh.local_devices)]
    shape = (mesh.size, *x.shape[1:])
    return jax.make_array_from_single_device_arrays(shape, sharding, rows)

  return jax.tree.map(place, batch)
