"""A reader that blocks in a job of two processes; a host that cannot be resolved."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import numpy as np
from PIL import Image

from gan_jax.runtime.exit_codes import asks_for_restart

from launch import free_address, read_lines, start

LIMIT, HANG_TIMEOUT = 15, 15  # seconds: --peer_timeout and --hang_timeout
FOLDER_JOB = (
  '--config=configs/biggan_digits.py:tiny',
  '--config.model.d_widths=(1, 2)',
  '--config.model.n_classes=0',
  '--config.model.channels=3',
  '--config.log.grid_every=100000000',
  '--config.log.checkpoint_every=400',
  '--config.train.images=100000000',
  f'--peer_timeout={LIMIT}',
  f'--hang_timeout={HANG_TIMEOUT}',
)


def hangs(scratch: Path, rng: np.random.Generator) -> list[dict]:
  """Both experiments; one row for each process."""
  return [*blocked_reader(scratch, rng), *unknown_host(scratch)]


def blocked_reader(scratch: Path, rng: np.random.Generator) -> list[dict]:
  """The images of process 1 become named pipes, whose readers wait for ever."""
  workdir, folders = scratch / 'blocked', [scratch / 'images0', scratch / 'images1']
  make_images(folders[0], rng)
  shutil.copytree(folders[0], folders[1])
  address = free_address()
  logs = [scratch / f'blocked.{i}' for i in range(2)]
  processes = [
    start(
      workdir,
      *FOLDER_JOB,
      f'--config.data.name={folders[i]}',
      f'--distributed={address},2,{i}',
      devices=2,
      log=logs[i],
    )
    for i in range(2)
  ]
  wait_for(lambda: len(read_lines(workdir)) >= 20, processes)
  for file in folders[1].iterdir():
    file.unlink()
    os.mkfifo(file)
  began, steps = time.monotonic(), len(read_lines(workdir))
  rows = [
    row | {'what': f'reader of process 1 blocks, process {i}'}
    for i, row in enumerate(watch(processes, logs, began, 'hangs:'))
  ]
  for i, log in enumerate(logs):
    text = log.read_text(errors='ignore')
    rows[i]['threads_printed'] = text.count('Thread 0x')
    line = next(x for x in text.splitlines() if 'hangs:' in x)
    rows[i]['said'] = line[line.index('process') :]  # after the progress bar
  print(f'{steps} steps before')
  return rows


def unknown_host(scratch: Path) -> list[dict]:
  """Both processes of a job have an address that no name server knows."""
  logs = [scratch / f'unknown.{i}' for i in range(2)]
  began = time.monotonic()
  processes = [
    start(
      scratch / 'unknown',
      *FOLDER_JOB,
      '--config.data.name=digits',
      f'--distributed=no-such-host.invalid:9876,2,{i}',
      log=logs[i],
    )
    for i in range(2)
  ]
  rows = []
  for i, row in enumerate(watch(processes, logs, began, 'cannot be resolved')):
    said = logs[i].read_text().splitlines()[-1]
    what = f'unknown host, process {i}'
    rows.append(row | {'what': what, 'threads_printed': '', 'said': said})
  return rows


def make_images(folder: Path, rng: np.random.Generator) -> None:
  folder.mkdir(parents=True)
  for i in range(64):
    pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f'{i:02}.png')


def wait_for(condition: Callable[[], bool], processes: list[Popen]) -> None:
  while not condition():
    if any(process.poll() is not None for process in processes):
      raise SystemExit('a process has ended; see the log')
    time.sleep(0.05)


def watch(
  processes: list[Popen], logs: list[Path], began: float, text: str
) -> list[dict]:
  """When each process prints a text and when it ends, in seconds since `began`."""
  rows = [{'what': '', 'told_s': None, 'ended_s': None, 'code': None} for _ in logs]
  while any(row['ended_s'] is None for row in rows):
    now = round(time.monotonic() - began, 1)
    for row, process, log in zip(rows, processes, logs, strict=True):
      if row['told_s'] is None and text in log.read_text(errors='ignore'):
        row['told_s'] = now
      if row['ended_s'] is None and (code := process.poll()) is not None:
        code = 128 - code if code < 0 else code
        row |= {'ended_s': now, 'code': code, 'restartable': asks_for_restart(code)}
    time.sleep(0.05)
  for row in rows:
    print(row, flush=True)
  return rows
