"""What does augmentation cost per training iteration? See README.md."""

import argparse
import csv
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np

from gan_jax.config import Config, load_config, parse_config
from gan_jax.config.overrides import apply_overrides
from gan_jax.models.augmentation import OFF, Augmentation
from gan_jax.models.base import Batch
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state

POLICY = Augmentation(policy='color,translation,cutout')
NEVER = 2**31 - 1  # iterations between two adjustments of p
SETTINGS = {  # name -> settings, and p where the state has it
  'none': (OFF, None),
  'DiffAugment color,translation,cutout': (POLICY, None),
  'ADA color, p = 0.5': (Augmentation(pipe='color', interval=NEVER), 0.5),
  'ADA bgc, p = 0.2': (Augmentation(pipe='bgc', interval=NEVER), 0.2),
  'ADA bgc, p = 0.5': (Augmentation(pipe='bgc', interval=NEVER), 0.5),
  'ADA bgc, p = 0.8': (Augmentation(pipe='bgc', interval=NEVER), 0.8),
}
Seconds = tuple[float, float]  # of the clock, and of the process on all cores


def make_step(
  config: Config, augmentation: Augmentation
) -> tuple[Callable[[float | None], Seconds], float]:
  """(runs an iteration of the last stage at a given p; compile time)."""
  mesh, gan, stage, t = make_mesh(), config.gan, config.stages[-1], config.train
  config = dataclasses.replace(config, augment=augmentation)
  k, b, g_batch = config.shape(stage, mesh.size)
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  key = jax.random.key(0)
  fresh = jax.jit(lambda: init_state(gan, *txs, key, augmentation))
  state = replicate(fresh(), mesh)
  shape = (mesh.size, k, b, stage.res, stage.res, gan.channels)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  batch = shard_batch(Batch(images, np.zeros(shape[:3], np.int32)), mesh)
  phase = config.schedule.phase_at(stage.after + 1, gan.res)
  run = make_train_step(
    gan, *txs, mesh, d_steps=t.d_steps, g_batch=g_batch, augmentation=augmentation
  )
  start = time.perf_counter()
  run.lower(state, batch, key, phase).compile()
  compile_s = time.perf_counter() - start
  holder = [state]

  def step(p: float | None) -> Seconds:
    if p is not None:
      augment = replicate({**holder[0].augment, 'p': np.float32(p)}, mesh)
      holder[0] = dataclasses.replace(holder[0], augment=augment)
    start, cpu_start = time.perf_counter(), time.process_time()
    holder[0], metrics = run(holder[0], batch, key, phase)
    jax.block_until_ready((holder[0], metrics))
    return time.perf_counter() - start, time.process_time() - cpu_start

  return step, compile_s


def measure(name: str, channels: int, rounds: int) -> list[dict]:
  """One row per setting; the settings take turns, so that load meets all alike."""
  widths = [(f'model.{net}_ch', str(channels)) for net in 'gd']
  config = parse_config(apply_overrides(load_config(name).to_dict(), widths))
  made = {kind: make_step(config, kind) for kind, _ in SETTINGS.values()}
  times: dict[str, list[Seconds]] = {name: [] for name in SETTINGS}
  for i in range(rounds + 1):
    for setting, (kind, p) in SETTINGS.items():
      seconds = made[kind][0](p)
      if i:  # the first round warms up
        times[setting].append(seconds)
  rows = []
  plain = np.array(times['none'])
  for setting, (kind, _) in SETTINGS.items():
    seconds = np.array(times[setting])
    wall, cpu = 1e3 * np.median(seconds, axis=0)
    wall_ratio, cpu_ratio = np.median(seconds / plain, axis=0)
    rows.append(
      {
        'config': name,
        'channels': channels,
        'augmentation': setting,
        'compile_s': round(made[kind][1], 1),
        'median_ms': round(float(wall), 1),
        'fastest_ms': round(1e3 * float(seconds[:, 0].min()), 1),
        'cpu_ms': round(float(cpu), 1),
        'ratio': round(float(wall_ratio), 3),
        'cpu_ratio': round(float(cpu_ratio), 3),
      }
    )
    print('  '.join(f'{k}={v}' for k, v in rows[-1].items()), flush=True)
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', default='configs/biggan_emoji.py')
  parser.add_argument('--channels', type=int, nargs='+', default=[16, 32])
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument('--out', type=Path, required=True, help='a .csv file')
  args = parser.parse_args()
  keep_freed_memory()
  rows = [row for n in args.channels for row in measure(args.config, n, args.rounds)]
  with args.out.open('w', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
