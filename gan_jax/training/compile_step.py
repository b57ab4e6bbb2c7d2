"""Compiles the training step for the devices of a mesh, by `jax.jit` or `jax.pmap`."""

import dataclasses
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import PRNGKeyArray

from gan_jax.models.augmentation import OFF, Augmentation
from gan_jax.models.base import GAN, Batch, Metrics, Phase
from gan_jax.ops import blocks
from gan_jax.runtime.environment import gpu_compiler_options, tpu_compiler_options
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import replicate
from gan_jax.training.step import StepConfig, train_step
from gan_jax.training.train_state import (
  SHARDED_FIELDS,
  TrainState,
  state_shardings,
)


class TrainStep(Protocol):
  """A compiled training step; see `compile_train_step`."""

  def __call__(
    self, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
  ) -> tuple[TrainState, Metrics]: ...

  def lower(
    self, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
  ) -> Any:
    """Lowers the step for such arguments, of which `state` may be shapes."""
    ...


def make_train_step(
  gan: GAN,
  g_tx: optax.GradientTransformation,
  d_tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  g_batch: int,
  d_steps: int = 1,
  g_accum: int = 0,
  simultaneous: bool = False,
  mapped: str = 'jit',
  noise_scale: bool = False,
  augmentation: Augmentation = OFF,
) -> TrainStep:
  """`compile_train_step` for the fields of a `StepConfig`."""
  config = StepConfig(
    gan,
    g_tx,
    d_tx,
    g_batch=g_batch,
    d_steps=d_steps,
    g_accum=g_accum,
    simultaneous=simultaneous,
    noise_scale=noise_scale,
    augmentation=augmentation,
  )
  return compile_train_step(config, mesh, mapped)


def compiler_options(gan: GAN, mesh: Mesh) -> dict[str, Any] | None:
  """Options of XLA with which a family's training step is compiled; None: none."""
  platform = mesh.devices.flat[0].platform
  if platform == 'gpu':
    return gpu_compiler_options(mesh.size)
  in_blocks = platform == 'tpu' and gan.grows and min(gan.size()) >= blocks.SMALLEST
  return tpu_compiler_options() if in_blocks else None


def compile_train_step(
  config: StepConfig, mesh: Mesh, mapped: str = 'jit'
) -> TrainStep:
  """Makes the training step for all devices of the mesh.

  The step takes a replicated state (donated), a batch [devices, d_steps * accum, b,
  ...] sharded over the devices, a key and a `Phase`. It returns the new state and
  scalar metrics. One compile per resolution.

  With 'pmap' the state stays replicated. With 'jit' each device keeps and updates one
  shard of the large arrays of g_opt, d_opt and ema (`unshard` gathers them). Without
  arrays of `MIN_SHARDED_SIZE` both give the same bits.
  """
  if mapped == 'jit':
    return _JitStep(dataclasses.replace(config, n_shards=mesh.size), mesh)
  step: Any = jax.pmap(
    partial(train_step, config),
    AXIS,
    in_axes=(None, 0, None, None),
    out_axes=None,
    axis_size=mesh.size,
    devices=tuple(mesh.devices.flat),
    donate_argnums=0,
  )
  if jax.process_count() == 1:
    return step
  return _MultiProcessPmapStep(step, mesh)


class _JitStep:
  """A step by `jit(shard_map)`; a state that is still replicated is sharded first."""

  def __init__(self, config: StepConfig, mesh: Mesh) -> None:
    self._mesh = mesh
    self._shardings: dict[str, Any] = {}  # of SHARDED_FIELDS, known at the first call

    def per_device(
      state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
    ) -> tuple[TrainState, Metrics]:
      batch = jax.tree.map(lambda x: x[0], batch)
      return train_step(config, state, batch, key, phase)

    def step(
      state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
    ) -> tuple[TrainState, Metrics]:
      specs = jax.tree.map(lambda s: s.spec, state_shardings(state, mesh, 'jit'))
      mapped_step = jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(specs, P(AXIS), P(), P()),
        out_specs=(specs, P()),
        check_vma=False,
      )
      return mapped_step(state, batch, key, phase)

    options = compiler_options(config.gan, mesh)
    self._step: Any = jax.jit(step, donate_argnums=0, compiler_options=options)

  def __call__(
    self, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
  ) -> tuple[TrainState, Metrics]:
    return self._step(self._shard(state), batch, key, phase)

  def lower(self, state: TrainState, *args: Any) -> Any:
    shapes = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state,
      state_shardings(state, self._mesh, 'jit'),
    )
    return self._step.lower(shapes, *args)

  def _cache_size(self) -> int:
    return self._step._cache_size()

  def _shard(self, state: TrainState) -> TrainState:
    if not self._shardings:
      shardings = state_shardings(state, self._mesh, 'jit')
      self._shardings = {f: getattr(shardings, f) for f in SHARDED_FIELDS}
    fields = {f: getattr(state, f) for f in SHARDED_FIELDS}
    pairs = zip(jax.tree.leaves(fields), jax.tree.leaves(self._shardings), strict=True)
    if all(x.sharding.is_equivalent_to(s, x.ndim) for x, s in pairs):
      return state
    sharded = jax.jit(lambda x: x, out_shardings=self._shardings)(fields)
    return dataclasses.replace(state, **sharded)


class _MultiProcessPmapStep:
  """A pmapped step of several processes, with a state of global arrays.

  pmap returns the arrays of this process only, and lowers from values, not shapes.
  """

  def __init__(self, step: Any, mesh: Mesh) -> None:
    self._step, self._mesh = step, mesh

  def __call__(
    self, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
  ) -> tuple[TrainState, Metrics]:
    return replicate(self._step(state, batch, key, phase), self._mesh)

  def lower(self, state: TrainState, *args: Any) -> Any:
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    return self._step.lower(zeros, *args)
