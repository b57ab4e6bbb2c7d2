"""Which arrays are sharded over the devices of the mesh, and how they get there."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax.runtime.mesh import AXIS

MIN_SHARDED_SIZE = 2**15  # entries of an array; smaller ones are not cut


def shard_axis(shape: tuple[int, ...], parts: int) -> int | None:
  """The axis along which an optimizer's or average's array is divided over the devices.

  The last but one, else the last, if it divides; None: every device has all of it.
  """
  if parts == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
    return None
  axes = [a for a in (len(shape) - 2, len(shape) - 1) if a >= 0]
  return next((a for a in axes if shape[a] % parts == 0), None)


def mean_shard(grad: Array, axis: int | None) -> Array:
  """The mean over the devices; of a gradient that is cut, this device's part."""
  if axis is None:
    return lax.pmean(grad, AXIS)
  total = lax.psum_scatter(grad, AXIS, scatter_dimension=axis, tiled=True)
  return total / lax.axis_size(AXIS)


def local_shard(x: Array, axis: int | None) -> Array:
  if axis is None:
    return x
  size = x.shape[axis] // lax.axis_size(AXIS)
  return lax.dynamic_slice_in_dim(x, lax.axis_index(AXIS) * size, size, axis)


def gather_shards(x: Array, axis: int | None) -> Array:
  return x if axis is None else lax.all_gather(x, AXIS, axis=axis, tiled=True)


def unshard(tree: Any, mesh: Mesh) -> Any:
  """Arrays on the mesh, of which some are cut, whole on every device: all processes
  of a run have to ask for it."""
  if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
    return tree
  return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
  """The same values on every device of the mesh, as global arrays."""
  sharding = NamedSharding(mesh, P())
  mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]

  def place(x):
    if not isinstance(x, jax.Array) or len(x.devices()) != len(mine):
      return jax.make_array_from_callback(
        np.shape(x), sharding, lambda _: np.asarray(x)
      )
    shards = {s.device: s.data for s in x.addressable_shards}
    return jax.make_array_from_single_device_arrays(
      x.shape, sharding, [shards[d] for d in mine]
    )

  return jax.tree.map(place, tree)


@dataclasses.dataclass(frozen=True)
class ShardAxis:
  """The axis along which a weight is divided over the mesh; None: it is all here."""

  axis: int | None
