"""Strong and weak scaling over virtual devices and processes of one machine.

They share its cores, so nothing gets faster: this measures the cost of dividing the
work. See README.md.
"""

import argparse
import csv
import datetime
import importlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# gan_jax adds its own XLA flags, so it comes before jax.
from gan_jax.config import parse_config  # isort: skip
import jax
import numpy as np
from matplotlib.figure import Figure
from orbax.checkpoint import multihost

from gan_jax.models.base import Batch
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PARTS = {'devices': (1, 2, 4, 8), 'processes': (1, 2, 4)}
STRONG, WEAK = 64, 8  # images per step: of all devices; of each device
PATIENCE = 1200  # seconds for one job


def timed(batch: int, mapped: str, steps: int, tiny: bool) -> dict[str, Any]:
  """Compiles the step of the digits demo for all devices, and times it."""
  config = importlib.import_module('configs.biggan_digits')
  config = config.get_config('tiny' if tiny else '')
  config.schedule.batch = batch
  config = parse_config(config.to_dict())
  gan, (stage,), mesh = config.gan, config.stages, make_mesh()
  k, b, g_batch = config.shape(stage, mesh.size)
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  key, phase = jax.random.key(0), config.schedule.phase_at(0, gan.res)
  state = replicate(jax.jit(lambda: init_state(gan, *txs, key))(), mesh)
  shape = (jax.local_device_count(), k, b, gan.res, gan.res, gan.channels)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  labels = np.zeros(shape[:3], np.int32)
  shown = shard_batch(Batch(images, labels), mesh)
  run = make_train_step(gan, *txs, mesh, g_batch=g_batch, mapped=mapped)
  run.lower(state, shown, key, phase).compile()
  # Processes compile at different speeds; a first collective times out early.
  multihost.get_barrier_sync_fn()(key='compiled', timeout_ms=1000 * PATIENCE)
  times = []
  for _ in range(steps + 2):  # the first two are not timed
    since = time.perf_counter()
    state, metrics = run(state, shown, key, phase)
    jax.block_until_ready((state, metrics))
    times.append(1e3 * (time.perf_counter() - since))
  median = statistics.median(times[2:])
  return {'step_ms': round(median, 2), 'fastest_ms': round(min(times[2:]), 2)}


def work(job: dict[str, Any]) -> None:
  """Runs one process of a job; the first process prints the times."""
  if job['processes'] > 1:
    jax.distributed.initialize(
      job['address'],
      job['processes'],
      job['process'],
      heartbeat_timeout_seconds=PATIENCE,  # a busy machine is slow, not lost
    )
  times = timed(job['batch'], job['mapped'], job['steps'], job['tiny'])
  if job['process'] == 0:
    print(json.dumps(times))


def measure(kind: str, n: int, **job: Any) -> dict[str, Any]:
  """Runs a job: one process with n devices, or n processes with one device each."""
  processes, devices = (n, 1) if kind == 'processes' else (1, n)
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{s.getsockname()[1]}'
  flags = f'--xla_force_host_platform_device_count={devices}'
  paths = [str(ROOT), *os.environ.get('PYTHONPATH', '').split(os.pathsep)]
  env = {
    **os.environ,
    'XLA_FLAGS': flags,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
  }
  job |= {'processes': processes, 'address': address}
  started = [
    subprocess.Popen(
      [sys.executable, __file__, '--job', json.dumps(job | {'process': i})],
      env=env,
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(processes)
  ]
  try:
    outputs = [p.communicate(timeout=PATIENCE)[0] for p in started]
  finally:
    for p in started:
      p.kill()
  if any(p.returncode for p in started):
    raise SystemExit(f'{kind} {n}: a process failed; see its error above')
  return json.loads(outputs[0].splitlines()[-1])


def overhead(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], list[float]]:
  """(kind, scaling, n) -> per round, time per image relative to that with n = 1."""
  alone = {
    (r['round'], r['kind'], r['scaling']): r['step_ms'] / r['batch']
    for r in rows
    if r['n'] == 1
  }
  found: dict[tuple[str, str, int], list[float]] = {}
  for r in rows:
    one = alone[r['round'], r['kind'], r['scaling']]
    name = r['kind'], r['scaling'], r['n']
    found.setdefault(name, []).append(r['step_ms'] / r['batch'] / one)
  return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  for axes, scaling in zip(figure.subplots(1, 2, sharey=True), ('strong', 'weak')):
    for kind, marker in (('devices', 'o-'), ('processes', 's--')):
      found = {
        n: x for (k, s, n), x in overhead(rows).items() if (k, s) == (kind, scaling)
      }
      middle = np.array([statistics.median(x) for x in found.values()])
      ends = np.array([(min(x), max(x)) for x in found.values()]).T
      axes.errorbar(
        [*found], middle, abs(ends - middle), fmt=marker, capsize=3, label=kind
      )
    axes.axhline(1, color='grey', linewidth=0.8)
    axes.set_xscale('log', base=2)
    axes.set_xticks(PARTS['devices'], [str(n) for n in PARTS['devices']])
    axes.set_xlabel(f'virtual devices, or processes, on {rows[0]["cores"]} cores')
    images = f'{STRONG} images in all' if scaling == 'strong' else f'{WEAK} on each'
    axes.set_title(f'{scaling}: {images}')
  axes.legend()
  figure.axes[0].set_ylabel('time for an image, one part = 1')
  figure.savefig(path, dpi=120)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--steps', type=int, default=40, help='timed steps per job')
  p.add_argument('--rounds', type=int, default=3, help='rounds of all jobs')
  p.add_argument('--mapped', default='jit', choices=('pmap', 'jit'))
  p.add_argument(
    '--tiny', action='store_true', help='a tiny network, to try the script'
  )
  p.add_argument('--out', type=Path, default=HERE / 'results' / 'measured.csv')
  p.add_argument('--job', help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.job:
    work(json.loads(args.job))
    return
  rows: list[dict[str, Any]] = []
  args.out.parent.mkdir(parents=True, exist_ok=True)
  for turn in range(args.rounds):
    for scaling in ('strong', 'weak'):
      for kind, numbers in PARTS.items():
        for n in numbers:
          batch = STRONG if scaling == 'strong' else WEAK * n
          row = {
            'date': datetime.date.today().isoformat(),
            'jax': jax.__version__,
            'cores': len(os.sched_getaffinity(0)),
            'round': turn,
            'kind': kind,
            'scaling': scaling,
            'n': n,
            'batch': batch,
          }
          job = dict(batch=batch, mapped=args.mapped, steps=args.steps, tiny=args.tiny)
          rows.append(row | measure(kind, n, **job))
          print('  '.join(f'{k}={v}' for k, v in rows[-1].items()), flush=True)
          with args.out.open('w', newline='') as f:
            writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
    plot(rows, args.out.with_suffix('.png'))


if __name__ == '__main__':
  main()
