"""Compiles a stage of a recipe as the trainer does, and works out what it costs."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax.config import Config
from gan_jax.config.schedules import Stage
from gan_jax.models.base import Batch, Phase
from gan_jax.plan import flops, hlo
from gan_jax.plan.chips import Chip, quiet
from gan_jax.runtime.mesh import AXIS
from gan_jax.storage.files import atomic_path
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import (
  TrainState,
  init_state,
  make_train_step,
  state_shardings,
)

Row = dict[str, Any]
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_TOP = 40  # groups of operations that are kept


def inputs(
  recipe: Config, stage: Stage, mesh: Mesh
) -> tuple[TrainState, Batch, Array, Phase]:
  """What the step of a stage is called with, as shapes placed on the mesh."""
  gan = recipe.gan
  k, b, _ = recipe.shape(stage, mesh.size)
  everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
  state = jax.eval_shape(
    lambda: init_state(
      gan,
      make_optimizer(recipe.g_adam),
      make_optimizer(recipe.d_adam),
      jax.random.key(0),
    )
  )
  state, key = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    (state, jax.eval_shape(lambda: jax.random.key(0))),
  )
  pixels = (mesh.size, k, b, stage.res, stage.res, gan.channels)
  shape: Any = jax.ShapeDtypeStruct
  batch = Batch(
    shape(pixels, np.uint8, sharding=split),
    shape(pixels[:3], np.int32, sharding=split),
  )
  return state, batch, key, recipe.schedule.phase_at(stage.after + 1, gan.res)


def nbytes(tree: Any) -> int:
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def nbytes_per_chip(tree: Any, shardings: Any) -> int:
  """Bytes of arrays that are replicated or cut."""
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
  return sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in pairs)


def stage_row(recipe: Config, stage: Stage, mesh: Mesh, chip: Chip, cache: Path) -> Row:
  """All figures of a stage, per chip; from the cache if this very program is there.

  Raises:
    UserError: the batch does not divide by the devices.
  """
  gan, t = recipe.gan, recipe.train
  k, b, g_batch = recipe.shape(stage, mesh.size)
  txs = make_optimizer(recipe.g_adam), make_optimizer(recipe.d_adam)
  step = make_train_step(
    gan,
    *txs,
    mesh,
    d_steps=t.d_steps,
    g_batch=g_batch,
    mapped='jit',
    noise_scale=t.noise_scale,
  )
  state, batch, key, phase = inputs(recipe, stage, mesh)
  lowered = step.lower(state, batch, key, phase)
  found = compiled(lowered, mesh, cache)
  defined = flops.of_step(gan, txs, t.d_steps, g_batch, state, batch, phase)
  held = state_shardings(state, mesh, 'jit')
  row: Row = {
    'res': stage.res,
    'batch': stage.batch,
    'chips': mesh.size,
    'chip': chip._asdict(),
    'images_per_chip': b * k // t.d_steps,
    'accum': t.accum,
    'params_bytes': nbytes((state.g['params'], state.d['params'])),
    'optimizer_bytes': nbytes_per_chip(
      (state.g_opt, state.d_opt), (held.g_opt, held.d_opt)
    ),
    'average_bytes': nbytes_per_chip(state.ema, held.ema),
    'state_bytes': nbytes_per_chip(state, held),
    'batch_bytes': nbytes(batch) // mesh.size,
    'networks_flops': defined.networks,
    'weights_flops': defined.weights,
    **found,
  }
  row |= memory(row, chip)
  if 'program_flops' in row:
    row |= times(row, chip, recipe.images_per_step(stage))
  if not row['fits']:
    row['advice'] = advice(row, chip, gan.remat)
  return row


def memory(row: Row, chip: Chip) -> Row:
  """What a chip has to hold, and whether it can; the compiler may have given up."""
  parts = 'state_bytes', 'batch_bytes', 'temporary_bytes'
  needs = row.get('hbm_bytes') or sum(row[part] for part in parts)
  refused = 'out_of_memory' in row
  return {'hbm_bytes': needs, 'fits': not refused and not 0 < chip.hbm < needs}


def compiled(lowered: Any, mesh: Mesh, cache: Path) -> Row:
  """What the compiler says of a lowered program; its 'no' is an answer as well.

  What it said is kept under the hash of the program, the devices and the versions.
  """
  kind, platform = (
    getattr(mesh.devices.flat[0], a) for a in ('device_kind', 'platform')
  )
  compilers = ['jaxlib', 'libtpu'] if platform == 'tpu' else ['jaxlib']
  versions = [importlib.metadata.version(name) for name in compilers]
  digest = hashlib.sha256(lowered.as_text().encode())
  digest.update(json.dumps([mesh.size, kind, *versions]).encode())
  path = cache / f'{digest.hexdigest()[:24]}.json.gz'
  if path.is_file():
    said = json.loads(gzip.decompress(path.read_bytes()))
  else:
    start = time.perf_counter()
    said = answer(lowered)
    said['compile_s'] = round(time.perf_counter() - start, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_bytes(gzip.compress(json.dumps(said).encode(), 6))
  row: Row = {'versions': dict(zip(compilers, versions, strict=True))}
  row |= {'compile_s': said['compile_s']}
  if 'out_of_memory' in said:
    row['out_of_memory'] = said['out_of_memory'][:300]
    used = re.search(r'(Used |temporaries \()([\d.]+)([KMGT])', said['out_of_memory'])
    size = int(float(used[2]) * _UNITS[used[3]]) if used else 0
    whole = used is not None and used[1] == 'Used '
    return row | {'hbm_bytes' if whole else 'temporary_bytes': size}
  return row | figures(said, mesh.size)


def answer(lowered: Any) -> Row:
  """The compiled text and the compiler's own analyses, or why there is none."""
  try:
    with quiet():
      program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {'out_of_memory': ' '.join(str(error).split())}
  memory, costs = program.memory_analysis(), program.cost_analysis()
  return {
    'text': program.as_text(),
    'costs': {name: costs.get(name, 0.0) for name in ('flops', 'bytes accessed')},
    'memory': {
      name: getattr(memory, f'{name}_size_in_bytes')
      for name in ('argument', 'output', 'alias', 'temp')
    },
  }


def figures(said: Row, devices: int) -> Row:
  """From the compiled program's text and the compiler's own analyses."""
  text, memory, costs = hlo.parse(said['text']), said['memory'], said['costs']
  logical, physical = hlo.padding(text)
  held = memory['argument'] + memory['output'] - memory['alias']
  return {
    'hbm_bytes': held + memory['temp'],
    'arguments_bytes': memory['argument'],
    'donated_bytes': memory['alias'],
    'temporary_bytes': memory['temp'],
    'donated': hlo.donated(text),
    'program_flops': costs['flops'],
    'program_bytes': costs['bytes accessed'],
    'cycles': hlo.cycles(text),
    'collectives': hlo.collectives(text, devices),
    'products': dict(hlo.convolutions(text)),
    'padding': 1 - logical / physical if physical else 0.0,
    'top': hlo.grouped(text)[:_TOP],
  }


def times(row: Row, chip: Chip, images: int) -> Row:
  """Seconds of one iteration and what follows from them.

  The estimate is the compiler's cycles, which know no collectives. Where the compiler
  says nothing it is computing and then moving: operations run one after the other, and
  most do little but one of both. `slowest` adds collectives that hide behind nothing.
  """
  roofline = {
    'compute_s': row['program_flops'] / chip.peak,
    'memory_s': row['program_bytes'] / chip.bandwidth,
    'collectives_s': (
      sum(c['sent'] for c in row['collectives']) / chip.ici if chip.ici else 0.0
    ),
  }
  estimate = (
    row['cycles'] / chip.clock
    if chip.clock
    else roofline['compute_s'] + roofline['memory_s']
  )
  slowest = estimate + roofline['collectives_s']
  return {
    **roofline,
    'step_s': estimate,
    'slowest_s': slowest,
    'mfu': row['networks_flops'] / estimate / chip.peak,
    'slowest_mfu': row['networks_flops'] / slowest / chip.peak,
    'images_per_s': images / estimate,
  }


def advice(row: Row, chip: Chip, remat: bool | None) -> str:
  """What would fit, if what a step needs beside the state goes with the batch."""
  fixed = row['state_bytes']
  if fixed >= chip.hbm:
    return f'the state alone ({fixed / 1e9:.1f} GB) does not fit this chip'
  if row['hbm_bytes'] <= chip.hbm:
    return 'the compiler does not say how much is missing'
  each = (row['hbm_bytes'] - fixed) / row['images_per_chip'] * row['accum']
  room = min(int((chip.hbm - fixed) / each), row['images_per_chip'] // row['accum'] - 1)
  said = []
  if room:
    said.append(f'about {room} images a chip at a time')
    accum = 1
    whole = row['images_per_chip']
    while accum < whole and (whole % accum or whole // accum > room):
      accum += 1
    said.append(f'train.accum={accum} for the same batch')
    said.append(f'{math.ceil(row["batch"] / room)} such chips')
  if remat is False:
    said.append('model.remat=True')
  return 'would fit: ' + ', or '.join(said) if said else 'nothing known would fit'


def whole_run(recipe: Config, rows: list[Row]) -> float:
  """Seconds of all images of the recipe; NaN if a stage has no time."""
  total, stages = 0.0, recipe.stages
  ends = [s.after + 1 for s in stages[1:]] + [recipe.train.images]
  for stage, end, row in zip(stages, ends, rows, strict=True):
    images = max(min(end, recipe.train.images) - max(stage.after + 1, 0), 0)
    total += images / row['images_per_s'] if 'images_per_s' in row else math.nan
  return total


def changed(recipe: Config, batch: int) -> Config:
  """The recipe with another batch, in all its stages."""
  schedule: Any = recipe.schedule
  size = (batch,) if isinstance(schedule.batch, tuple) else batch
  return dataclasses.replace(recipe, schedule=dataclasses.replace(schedule, batch=size))
