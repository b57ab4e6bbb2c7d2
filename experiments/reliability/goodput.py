"""Whether the parts of a run's goodput add up to its time."""

import json
import time
from pathlib import Path

from stops import start_job

from gan_jax.report.goodput import goodput as summarize
from gan_jax.report.goodput import seconds_by_use

from launch import read_lines

SECONDS = 60  # before the kill and after it; starts.jsonl is written once a minute
EVERY = ('--config.log.checkpoint_every=400',)


def goodput(scratch: Path) -> list[dict]:
  """A job of two processes loses one to kill -9, is started again and ended by SIGTERM.

  The time is counted from the start of the first processes to the end of the last.
  """
  workdir = scratch / 'goodput'
  began = time.time()
  processes = start_job(scratch / 'first', workdir, 10**8, *EVERY, '--peer_timeout=20')
  train_for(workdir, SECONDS)
  processes[1].kill()
  codes = [process.wait() for process in processes]
  lost_at = read_lines(workdir)[-1]['images']
  processes = start_job(scratch / 'second', workdir, 10**8, *EVERY)
  train_for(workdir, SECONDS)
  processes[0].terminate()
  codes += [process.wait() for process in processes]
  wall = time.time() - began
  starts = read_lines(workdir, 'since', 'starts.jsonl')
  used = seconds_by_use(starts)
  to_first = starts[0]['since'] - began
  print(f'exit codes {codes}; killed at image {lost_at}')
  print(summarize(starts))
  print(json.dumps(starts, indent=1))
  rows = [{'part': name, 'seconds': round(value, 1)} for name, value in used.items()]
  return [
    *rows,
    {'part': 'sum of the parts', 'seconds': round(sum(used.values()), 1)},
    {'part': 'before the first session', 'seconds': round(to_first, 1)},
    {'part': 'wall time', 'seconds': round(wall, 1)},
  ]


def train_for(workdir: Path, seconds: float) -> None:
  """Waits until metrics are written, and then for some seconds more."""
  file, began = workdir / 'metrics.jsonl', time.time()
  while not file.is_file() or file.stat().st_mtime < began:
    time.sleep(0.1)
  time.sleep(seconds)
