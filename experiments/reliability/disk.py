"""Runs on a small disk that fills up, or is read-only."""

import contextlib
import subprocess
import time
from pathlib import Path

from launch import equal, finish, read_lines, restored, start

STEPS = 300
FLAGS = (  # every step is saved
  '--config=configs/biggan_digits.py:tiny',
  f'--config.train.images={8 * STEPS}',
  '--config.log.checkpoint_every=8',
  '--config.log.grid_every=800',
)
BLOCK = bytes(4096)


def mount(where: Path, options: str) -> None:
  where.mkdir(parents=True, exist_ok=True)
  command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(where)]
  if subprocess.run(command).returncode:
    raise SystemExit('no permission to mount a disk: run this under `unshare -rm`')


def fill(ballast: Path) -> None:
  """Fills the disk to its last block."""
  with contextlib.suppress(OSError), ballast.open('ab', buffering=0) as f:
    while True:
      f.write(BLOCK)


def full(scratch: Path) -> list[dict]:
  """Fills the disk after the first saves, for a while or to the end."""
  sound, rows = scratch / 'sound', []
  if not sound.is_dir():
    finish(start(sound, *FLAGS))
  for kind in ('full for a while', 'full to the end', 'read-only'):
    disk = scratch / kind.replace(' ', '_')
    workdir, ballast = disk / 'run', disk / 'ballast'
    mount(disk, 'ro' if kind == 'read-only' else 'size=16m')
    # The log is outside the disk, so that it can be written.
    log = disk.with_suffix('.log')
    log.unlink(missing_ok=True)
    process = start(workdir, *FLAGS, log=log)
    if kind != 'read-only':
      while process.poll() is None and len(read_lines(workdir)) < 5:
        time.sleep(0.01)
      refilled = time.monotonic() + 2
      while process.poll() is None:
        fill(ballast)  # again, since old checkpoints are deleted
        logged = 'could not be written' in log.read_text()
        if kind == 'full for a while' and logged and time.monotonic() > refilled:
          break
        time.sleep(0.05)
      ballast.unlink()
    code = process.wait()
    words = (log.read_text().replace('\r', '\n').splitlines() or [''])[-1]
    rows.append(
      {
        'disk': kind,
        'told': log.read_text().count('a checkpoint could not be written'),
        'exit': code,
        'last_words': words.replace(str(scratch), '')[:100],
        'as_undisturbed': code == 0
        and equal(restored(workdir, STEPS), restored(sound, STEPS)),
      }
    )
    print(rows[-1], flush=True)
  return rows
