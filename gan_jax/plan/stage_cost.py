"""Memory, time and FLOPs of a training step, for one stage of a config."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from gan_jax.config import Config, Stage
from gan_jax.models.base import Batch, Phase
from gan_jax.plan.chips import Chip
from gan_jax.plan.compilation import compile_cached
from gan_jax.plan.flops import step_flops
from gan_jax.plan.gpus import Gpu
from gan_jax.runtime.image_size import format_size
from gan_jax.runtime.mesh import AXIS
from gan_jax.training.compile_step import compile_train_step, compiler_options
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.stages import step_config
from gan_jax.training.train_state import TrainState, init_state, state_shardings

Row = dict[str, Any]  # the figures of one stage, ready for JSON


class StepInputs(NamedTuple):
  """Arguments of a compiled training step, as shapes with shardings."""

  state: TrainState
  batch: Batch
  key: Array
  phase: Phase


def step_inputs(config: Config, stage: Stage, mesh: Mesh) -> StepInputs:
  """Shapes of the inputs of a stage's training step, placed on the mesh."""
  gan = config.gan
  k, b, _ = config.shape(stage, mesh.size)
  replicated, sharded = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  state, key = jax.eval_shape(
    lambda: (
      init_state(gan, *txs, jax.random.key(0), config.augment),
      jax.random.key(0),
    )
  )
  state, key = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), (state, key)
  )
  pixels = (mesh.size, k, b, *gan.size(stage.res), gan.channels)
  shape: Any = jax.ShapeDtypeStruct
  batch = Batch(
    shape(pixels, np.uint8, sharding=sharded),
    shape(pixels[:3], np.int32, sharding=sharded),
  )
  phase = config.schedule.phase_at(stage.after + 1, gan.res)
  return StepInputs(state, batch, key, phase)


def total_bytes(tree: PyTree) -> int:
  """Bytes of all arrays of a tree."""
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def bytes_per_device(tree: PyTree, shardings: PyTree) -> int:
  """Bytes of the arrays on one device, given their shardings."""
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
  return sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in pairs)


def stage_row(
  config: Config, stage: Stage, mesh: Mesh, chip: Chip | Gpu, cache: Path
) -> Row:
  """All figures of a stage's training step on one device.

  Args:
    config: the config.
    stage: one of its stages.
    mesh: the devices to compile for.
    chip: figures of one device.
    cache: folder of compiled programs; see `compile_cached`.

  Raises:
    UserError: the batch does not divide by the devices.
  """
  gan, train = config.gan, config.train
  k, b, _ = config.shape(stage, mesh.size)
  fixed = step_config(config, stage, mesh.size)
  step = compile_train_step(fixed, mesh)
  inputs, options = step_inputs(config, stage, mesh), compiler_options(gan, mesh)
  gpu = chip if isinstance(chip, Gpu) else None
  figures = compile_cached(step.lower(*inputs), mesh, cache, gpu, options)
  state, batch, _, phase = inputs
  flops = step_flops(fixed, state, batch, phase)
  row: Row = {
    'res': stage.res,
    'pixels': format_size(gan.size(stage.res)),
    'batch': stage.batch,
    'chips': mesh.size,
    'chip': chip._asdict(),
    'images_per_chip': b * k // train.d_steps,
    'accum': train.accum,
    **array_bytes(state, batch, mesh),
    'networks_flops': flops.networks,
    'weights_flops': flops.weights,
    **figures,
  }
  row |= memory_need(row, chip)
  if 'program_flops' in row:
    row |= step_times(row, chip, config.images_per_step(stage))
  if not row['fits']:
    row['advice'] = what_would_fit(row, chip, gan.remat)
  return row


def array_bytes(state: TrainState, batch: Batch, mesh: Mesh) -> Row:
  """Bytes of the state and of the batch on one device."""
  shardings = state_shardings(state, mesh, 'jit')
  return {
    'params_bytes': total_bytes((state.g['params'], state.d['params'])),
    'optimizer_bytes': bytes_per_device(
      (state.g_opt, state.d_opt), (shardings.g_opt, shardings.d_opt)
    ),
    'ema_bytes': bytes_per_device(state.ema, shardings.ema),
    'state_bytes': bytes_per_device(state, shardings),
    'batch_bytes': total_bytes(batch) // mesh.size,
  }


def memory_need(row: Row, chip: Chip | Gpu) -> Row:
  """`hbm_bytes` that a step needs on a device, and whether it `fits`.

  If the compiler ran out of memory, state, batch and the temporary arrays that it names
  are added up.
  """
  parts = ('state_bytes', 'batch_bytes', 'temporary_bytes')
  needed = row.get('hbm_bytes') or sum(row[part] for part in parts)
  refused = 'out_of_memory' in row
  return {'hbm_bytes': needed, 'fits': not refused and not 0 < chip.hbm < needed}


def step_times(row: Row, chip: Chip | Gpu, images: int) -> Row:
  """Seconds of one iteration, and the throughput and MFU that follow from them.

  `step_s` is the compiler's estimate in cycles, or that of `kernels` for GPUs; both
  exclude collectives. Where nothing is estimated it is the time to compute plus the
  time to move: operations run one after the other, and most are bound by one of both.
  `slowest_s` adds all collectives, as if none overlapped with other work.

  Args:
    row: figures of the compiled program.
    chip: figures of one device.
    images: reals per iteration of all devices.
  """
  compute_s = row.get('compute_s', row['program_flops'] / chip.peak)
  memory_s = row['program_bytes'] / chip.bandwidth
  collectives_s = chip.collectives_s(row['collectives'])
  step_s = row['cycles'] / chip.clock if chip.clock else compute_s + memory_s
  slowest_s = step_s + collectives_s
  return {
    'compute_s': compute_s,
    'memory_s': memory_s,
    'collectives_s': collectives_s,
    'step_s': step_s,
    'slowest_s': slowest_s,
    'mfu': row['networks_flops'] / step_s / chip.peak,
    'slowest_mfu': row['networks_flops'] / slowest_s / chip.peak,
    'images_per_s': images / step_s,
  }


def what_would_fit(row: Row, chip: Chip | Gpu, remat: bool | None) -> str:
  """Changes after which a step that does not fit would fit.

  Memory beyond the state is taken to be proportional to the micro-batch.

  Args:
    row: figures of the step.
    chip: figures of one device.
    remat: whether activations are rematerialized; None if the family cannot do it.
  """
  state = row['state_bytes']
  if state >= chip.hbm:
    return f'the state alone ({state / 1e9:.1f} GB) does not fit this chip'
  if row['hbm_bytes'] <= chip.hbm:
    return 'the compiler does not say how much is missing'
  images, accum = row['images_per_chip'], row['accum']
  bytes_per_image = (row['hbm_bytes'] - state) / images * accum
  room = min(int((chip.hbm - state) / bytes_per_image), images // accum - 1)
  options = []
  if room:
    micro_batches = next(
      n for n in range(1, images + 1) if images % n == 0 and images // n <= room
    )
    options = [
      f'about {room} images per device at a time',
      f'train.accum={micro_batches} for the same batch',
      f'{math.ceil(row["batch"] / room)} such devices',
    ]
  if remat is False:
    options.append('model.remat=True')
  return 'would fit: ' + ', or '.join(options) if options else 'nothing known would fit'


def run_seconds(config: Config, rows: list[Row]) -> float:
  """Seconds of a full run; NaN if a stage has no estimate.

  Args:
    config: the config.
    rows: one row per stage.
  """
  total, stages = 0.0, config.stages
  ends = [s.after + 1 for s in stages[1:]] + [config.train.images]
  for stage, end, row in zip(stages, ends, rows, strict=True):
    images = max(min(end, config.train.images) - max(stage.after + 1, 0), 0)
    total += images / row['images_per_s'] if 'images_per_s' in row else math.nan
  return total


def with_batch(config: Config, batch: int) -> Config:
  """The config with the same batch in all its stages."""
  schedule: Any = config.schedule
  size = (batch,) if isinstance(schedule.batch, tuple) else batch
  return dataclasses.replace(config, schedule=dataclasses.replace(schedule, batch=size))
