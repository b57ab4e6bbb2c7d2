"""SIGTERM to one process of a resumed job of two, at random moments."""

import signal
import time
from pathlib import Path
from subprocess import Popen

import numpy as np

from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from gan_jax.storage.checkpoint import Checkpointer

from launch import equal, finish, free_address, read_lines, restored, start

JOB = (
  '--config=configs/biggan_digits.py:tiny',
  '--config.model.d_widths=(1, 2)',
  '--config.log.grid_rows=2',
  '--config.log.grid_columns=2',
  '--config.log.grid_every=100000',
  '--config.log.checkpoint_every=100000',  # so that what is saved, a stop has saved
)
IMAGES = 8  # a step
JOIN_TIMEOUT = 30  # seconds
NO_CACHE = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}  # so that compiling takes long
# What process 0 has logged when the clock begins, and the seconds within which the
# signal comes. 'importing' begins with the processes.
MOMENTS = {
  'importing': ('', 4),
  'joining': ('waits for', 2),
  'restoring': ('restoring', 2),
  'compiling': ('compiling the step', 5),
  'training': ('"d_real"', 3),
}


def stops(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Stops one run n times; then compares it with a run that nothing disturbed."""
  workdir, rows = scratch / 'stopped', []
  run_job(scratch, workdir, 5 * IMAGES)
  for i in range(n):
    moment = list(MOMENTS)[i % len(MOMENTS)]
    rows.append({'stop': i} | stop_once(scratch / f'{i}', workdir, moment, rng))
    print(rows[-1], flush=True)
  images = read_lines(workdir)[-1]['images'] + 5 * IMAGES
  run_job(scratch, workdir, images)
  run_job(scratch, scratch / 'whole', images)
  step = images // IMAGES
  same = equal(restored(workdir, step), restored(scratch / 'whole', step))
  print(f'parameters at step {step} bit-identical: {same}')
  end = {'stop': 'end', 'moment': f'step {step}', 'nothing_lost': same}
  return rows + [dict.fromkeys(rows[0], '') | end]


def start_job(
  log: Path, workdir: Path, images: int, *flags: str, **env: str
) -> list[Popen]:
  """Starts two processes with two devices each; they print to LOG.0 and LOG.1."""
  address = free_address()
  return [
    start(
      workdir,
      *JOB,
      f'--config.train.images={images}',
      f'--distributed={address},2,{i}',
      f'--join_timeout={JOIN_TIMEOUT}',
      *flags,
      devices=2,
      log=Path(f'{log}.{i}'),
      **env,
    )
    for i in range(2)
  ]


def run_job(scratch: Path, workdir: Path, images: int) -> None:
  """Trains up to so many images."""
  finish(*start_job(scratch / workdir.name, workdir, images, **NO_CACHE))


def stop_once(
  log: Path, workdir: Path, moment: str, rng: np.random.Generator
) -> dict[str, object]:
  """Resumes the run, sends SIGTERM to one process, and waits for both to end."""
  text, within = MOMENTS[moment]
  before, which, delay = read_lines(workdir), rng.integers(2), rng.uniform(0, within)
  processes = start_job(log, workdir, 10**8, **NO_CACHE)
  printed = Path(f'{log}.0') if moment != 'training' else workdir / 'metrics.jsonl'
  seen = len(before) if moment == 'training' else 0
  while text and printed.read_text(errors='ignore').count(text) <= seen:
    time.sleep(0.02)
  time.sleep(delay)
  sent = time.monotonic()
  processes[which].send_signal(signal.SIGTERM)
  seconds = {}
  while len(seconds) < 2 and time.monotonic() - sent < 600:
    for i, process in enumerate(processes):
      if process.poll() is not None:
        seconds.setdefault(i, time.monotonic() - sent)
    time.sleep(0.05)
  for process in processes:
    process.kill()  # one that has not ended
  codes = [128 - c if (c := process.wait()) < 0 else c for process in processes]
  after, steps = read_lines(workdir), Checkpointer(workdir, read_only=True).steps()
  kept = after[: len(before)] == before and steps[-1] * IMAGES == after[-1]['images']
  by_signal = codes[which] in (ExitCode.STOPPED, 128 + signal.SIGTERM)
  return {
    'moment': moment,
    'after_s': round(delay, 2),
    'signalled': int(which),
    'codes': f'{codes[which]} {codes[1 - which]}',
    'ended_s': round(max(seconds.values(), default=600), 1),
    'restartable': by_signal and all(map(asks_for_restart, codes)),
    'new_steps': len(after) - len(before),
    'nothing_lost': kept,
  }
