"""The learned state of a run: its arrays, its start and how it lies on the devices."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Int32, PRNGKeyArray, PyTree, UInt32

from gan_jax.models.augmentation import OFF, Augmentation
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.sharding import shard_axis

# Fields whose large arrays are sharded under 'jit': no network reads them.
SHARDED_FIELDS = 'g_opt', 'd_opt', 'ema'


@struct.dataclass
class TrainState:
  """Everything that is learned: arrays only, donated to each step, one checkpoint."""

  step: Int32[Array, '']  # completed iterations
  images: UInt32[Array, '']  # real images shown to D; also the position in the data
  g: Variables
  d: Variables
  g_opt: optax.OptState
  d_opt: optax.OptState
  ema: Variables  # EMA of all collections of g
  # The probability of ADA and the signs that adjust it; {} if it is not adjusted.
  augment: dict[str, Array] = struct.field(default_factory=dict)


def init_state(
  gan: GAN,
  g_tx: optax.GradientTransformation,
  d_tx: optax.GradientTransformation,
  key: PRNGKeyArray,
  augmentation: Augmentation = OFF,
) -> TrainState:
  """The state before training. The EMA weights are a copy of G's weights."""
  g, d = gan.init(key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    images=jnp.zeros((), jnp.uint32),
    g=g,
    d=d,
    g_opt=g_tx.init(flatten_kernels(g['params'])),
    d_opt=d_tx.init(flatten_kernels(d['params'])),
    ema=jax.tree.map(jnp.copy, g),
    augment=augmentation.init_state(),
  )


def flatten_kernel(x: Array) -> Array:
  """A kernel [h, w, c, o] as a matrix [h * w * c, o]; up to two axes stay as they are.

  Shards of many rows are contiguous in the kernel's memory, so gathering them copies
  nothing.
  """
  return x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x


def flatten_kernels(params: PyTree[ArrayLike]) -> PyTree[Array]:
  """Parameters in the form that optimizers work on: see `flatten_kernel`."""
  return jax.tree.map(flatten_kernel, params)


def make_reset(
  g_tx: optax.GradientTransformation, d_tx: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState], TrainState]:
  """Makes a compiled function that resets the optimizers of a state (donated).

  A growing GAN calls it where a fade begins and ends: see
  `Config.resets_between`.
  """

  def reset(state: TrainState) -> TrainState:
    return dataclasses.replace(
      state,
      g_opt=g_tx.init(flatten_kernels(state.g['params'])),
      d_opt=d_tx.init(flatten_kernels(state.d['params'])),
    )

  return jax.jit(reset, donate_argnums=0, out_shardings=NamedSharding(mesh, P()))


def state_shardings(state: TrainState, mesh: Mesh, mapped: str) -> TrainState:
  """The sharding of every array of a state, or of its shapes.

  All arrays are replicated, except that 'jit' shards the large arrays of
  `SHARDED_FIELDS`: see `shard_axis`.
  """
  n_shards = mesh.size if mapped == 'jit' else 1

  def sharding(x: Array) -> NamedSharding:
    return NamedSharding(mesh, shard_axis(x.shape, n_shards).spec)

  replicated = jax.tree.map(lambda _: NamedSharding(mesh, P()), state)
  sharded = {f: jax.tree.map(sharding, getattr(state, f)) for f in SHARDED_FIELDS}
  return dataclasses.replace(replicated, **sharded)
