"""How long does a training iteration take? See README.md."""

import argparse
import csv
import statistics
import time
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np

from gan_jax.config import Config, Stage, load_config, parse_config
from gan_jax.config.overrides import apply_overrides
from gan_jax.models.base import Batch
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state


def measure(config: Config, stage: Stage, repeats: int) -> dict:
  """Compiles the step of a stage for all devices and times it, with data in memory."""
  mesh, gan, t = make_mesh(), config.gan, config.train
  k, b, g_batch = config.shape(stage, mesh.size)
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  key = jax.random.key(0)
  state = replicate(jax.jit(lambda: init_state(gan, *txs, key))(), mesh)
  rng = np.random.default_rng(0)
  local = mesh.size // jax.process_count()
  shape = (local, k, b, stage.res, stage.res, gan.channels)
  images = rng.integers(0, 256, shape, np.uint8)
  labels = np.zeros((local, k, b), np.int32)
  batch = shard_batch(Batch(images, labels), mesh)
  phase = config.schedule.phase_at(stage.after + 1, gan.res)
  run = make_train_step(
    gan, *txs, mesh, d_steps=t.d_steps, g_batch=g_batch, mapped='jit'
  )
  start = time.perf_counter()
  compiled = run.lower(state, batch, key, phase).compile()
  compile_s = time.perf_counter() - start
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    state, metrics = run(state, batch, key, phase)
    jax.block_until_ready((state, metrics))
    times.append(time.perf_counter() - start)
  median = statistics.median(times[1:])
  flops = compiled.cost_analysis()['flops']
  return {
    'res': stage.res,
    'devices': mesh.size,
    'kind': mesh.devices.flat[0].device_kind,
    'batch': stage.batch,
    'accum': t.accum,
    'compile_s': round(compile_s, 1),
    'step_ms': round(1e3 * median, 1),
    'fastest_ms': round(1e3 * min(times[1:]), 1),
    'images_per_s': round(config.images_per_step(stage) / median, 1),
    'gflop_per_device': round(flops / 1e9, 2),
    'gflop_per_s_per_device': round(flops / 1e9 / median, 1),
  }


def variants(name: str, accum: list[int] | None) -> list[Config]:
  """A config with each number of micro-batches; None for its own."""
  config = load_config(name)
  if accum is None:
    return [config]
  values = config.to_dict()
  return [
    parse_config(apply_overrides(values, [('train.accum', str(n))])) for n in accum
  ]


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--config', action='append', required=True, help='may be repeated')
  p.add_argument('--accum', type=int, nargs='+', help='micro-batches of an update')
  p.add_argument('--repeats', type=int, default=10)
  p.add_argument('--out', default='', help='a .csv file')
  args = p.parse_args()
  keep_freed_memory()
  rows = []
  for name in args.config:
    for config in variants(name, args.accum):
      for stage in config.stages:
        rows.append({'config': name, **measure(config, stage, args.repeats)})
        print('  '.join(f'{k}={v}' for k, v in rows[-1].items()), flush=True)
  if args.out:
    with Path(args.out).open('w', newline='') as f:
      writer = csv.DictWriter(f, rows[0].keys())
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
