"""From the command to the first step of a resumed run, with a warm compile cache.

Two checkouts take turns: another one, with JAX_COMPILATION_CACHE_DIR, and this one,
which keeps compiled programs by default.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from launch import ROOT, free_address, read_lines

STEPS, BATCH = 3, 8  # the runs are resumed after so many steps
FLAGS = (
  '--config=configs/biggan_digits.py:tiny',
  '--config.log.grid_every=100000000',
  '--config.log.checkpoint_every=100000000',
  f'--config.log.metrics_every={BATCH}',
)


def restarts(scratch: Path, old: Path, n: int) -> list[dict]:
  """Resumes runs of one and of two processes n times with each checkout."""
  cases = prepare(scratch, old)
  times: dict[tuple[str, int], list] = {}
  for _ in range(n):
    for name, tree, processes in cases:
      measured = resume(scratch / f'{name}{processes}', tree, processes)
      times.setdefault((name, processes), []).append(measured)
      print(name, processes, measured, flush=True)
  rows = []
  for (name, processes), measured in times.items():
    seconds, cpu = zip(*measured, strict=True)
    rows.append(
      {
        'checkout': name,
        'processes': processes,
        'seconds': round(statistics.median(seconds), 1),
        'least': round(min(seconds), 1),
        'most': round(max(seconds), 1),
        'cpu_seconds': round(statistics.median(cpu), 1),
      }
    )
    print(rows[-1])
  return rows


def prepare(scratch: Path, old: Path) -> list[tuple[str, Path, int]]:
  """Trains the runs, unless they are there, and fills the caches."""
  cases = [
    (name, tree, processes)
    for processes in (1, 2)
    for name, tree in (('before', old), ('after', ROOT))
  ]
  for name, tree, processes in cases:
    folder = scratch / f'{name}{processes}'
    if folder.is_dir():
      continue
    job = start(folder, tree, processes, STEPS * BATCH)
    if any(process.wait() for process in job):
      raise SystemExit(f'{folder} could not be trained; see its log')
    resume(folder, tree, processes)  # compiles what only a resumed run needs
    print(f'{folder} is ready', flush=True)
  return cases


def start(
  folder: Path, tree: Path, processes: int, images: int
) -> list[subprocess.Popen]:
  cache = folder.with_suffix('.cache')
  names = ('GAN_JAX_CACHE',) if tree == ROOT else ('JAX_COMPILATION_CACHE_DIR',)
  env = {**os.environ, 'PYTHONPATH': str(tree)} | dict.fromkeys(names, str(cache))
  flags = [*FLAGS, f'--workdir={folder}', f'--config.train.images={images}']
  address, job = free_address(), []
  with folder.with_suffix('.log').open('a') as log:
    for i in range(processes):
      several = [f'--distributed={address},{processes},{i}'] if processes > 1 else []
      command = [sys.executable, '-m', 'gan_jax.main', *flags, *several]
      job.append(
        subprocess.Popen(
          command, cwd=tree, env=env, stdout=log, stderr=subprocess.STDOUT
        )
      )
  return job


def resume(folder: Path, tree: Path, processes: int) -> tuple[float, float]:
  """Seconds to the first step, and CPU seconds of all processes until then."""
  metrics = folder / 'metrics.jsonl'
  kept = [x for x in metrics.read_text().splitlines(True) if '"d_real"' in x][:STEPS]
  metrics.write_text(''.join(kept))
  began = time.perf_counter()
  job = start(folder, tree, processes, 10**8)
  while len(read_lines(folder)) <= STEPS:
    if any(process.poll() is not None for process in job):
      raise SystemExit(f'{folder}: a process has ended; see its log')
    time.sleep(0.02)
  seconds, cpu = time.perf_counter() - began, 0.0
  for process in job:
    process.send_signal(signal.SIGKILL)
  for process in job:
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    cpu += used.ru_utime + used.ru_stime
  return seconds, cpu
