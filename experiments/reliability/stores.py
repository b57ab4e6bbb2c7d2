"""Runs in object stores on loopback: killed, corrupted, contended, cut off."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from broken import GROWING, STEPS

from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.store import Store
from gan_jax.storage.working_copy import SEAL, open_workdir, working_copy

from launch import ROOT, equal, finish, free_address, read_lines, restored, start

sys.path.insert(0, str(ROOT))
from tests.storage.stores import Gate, gcs_server, s3_server

ENDLESS = (
  *GROWING,
  '--config.train.images=1000000',
  '--config.log.checkpoint_every=800',
  '--config.log.grid_every=80000',
)


class Place:
  """A folder of a store, the gate before it, and the environment of runs in it."""

  def __init__(self, scheme: str, gate: Gate, scratch: Path):
    self.scheme, self.gate = scheme, gate
    self.url, self.store = (
      f'{scheme}://bucket/runs/a',
      Store(f'{scheme}://bucket/runs/a'),
    )
    self._log, self._scratch = scratch / f'{scheme}.log', scratch

  def start(self, *flags: str, workdir: Path | None = None) -> subprocess.Popen:
    """Starts a run there, or in a local folder."""
    return start(
      workdir or self.url,
      *flags,
      log=self._log,
      # A cache of its own: a kill while a program is written would corrupt it.
      JAX_COMPILATION_CACHE_DIR=str(self._scratch / 'programs'),
      PYTHONPATH=os.environ.get('PYTHONPATH', str(ROOT)),
    )

  def undisturbed(self, name: str, step: int, *flags: str) -> list:
    """Arrays of the same run in a local folder, trained once."""
    whole = self._scratch / name
    if not (whole / 'checkpoints' / str(step)).is_dir():
      finish(self.start(*flags, workdir=whole))
    return restored(whole, step)

  def newest(self) -> int:
    """The newest step that counts in the store; 0: none."""
    names = self.store.list('checkpoints')
    return max((int(x.split('/')[1]) for x in names if x.endswith(SEAL)), default=0)

  def await_step(self, step: int, *processes: subprocess.Popen) -> None:
    """Returns when the store has a later step, or a process has ended."""
    while self.newest() <= step and all(p.poll() is None for p in processes):
      time.sleep(0.02)

  def arrays(self, step: int) -> list:
    with open_workdir(self.url) as folder:
      working_copy(folder).fetch(step)
      return restored(folder, step)

  def lines(self, file: str, key: str) -> list:
    with open_workdir(self.url) as folder:
      return read_lines(folder, key, file)


def places(scratch: Path) -> Iterator[Place]:
  """A place on gs://, and then one on s3://."""
  for scheme, server in (('gs', gcs_server), ('s3', s3_server)):
    with server() as variables, Gate(variables).open() as gate:
      os.environ.update(gate.variables)
      yield Place(scheme, gate, scratch)


def kills(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """kill -9 at n random moments, and on to the end."""
  rows = []
  for place in places(scratch):
    whole = place.undisturbed('whole', STEPS, *GROWING)
    for i in range(n):
      before = place.newest()
      # A third of the kills hits the start, the others a step or a push.
      goal = before + rng.integers(0, 2 * STEPS // n + 1)
      process = place.start(*GROWING)
      place.await_step(goal, process)
      time.sleep(rng.uniform(0, 0.5))
      process.kill()
      process.wait()
      half = {x.split('/')[1] for x in place.store.list('checkpoints')}
      sealed = {x.split('/')[1] for x in place.store.list('checkpoints') if SEAL in x}
      row = {'kill': i, 'from': before, 'to': place.newest()}
      rows.append({'store': place.scheme, **row, 'in_a_push': len(half - sealed)})
      print(rows[-1], flush=True)
    finish(place.start(*GROWING))
    same = equal(place.arrays(STEPS), whole)
    row = {'kill': 'end', 'from': '', 'to': STEPS, 'in_a_push': f'equal: {same}'}
    rows.append({'store': place.scheme, **row})
    print(rows[-1], flush=True)
  return rows


def flips(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """One bit at n offsets of the newest checkpoint in the bucket: is it found?"""
  rows = []
  for place in places(scratch):
    finish(place.start(*GROWING))
    names = place.store.list(f'checkpoints/{STEPS}/default')
    names = [name for name in names if not name.endswith('commit_success.txt')]
    contents = {name: place.store.read(name) for name in names}
    sizes = np.array([len(content) for content in contents.values()])
    found = 0
    for _ in range(n):
      name = rng.choice(names, p=sizes / sizes.sum())
      flipped = bytearray(contents[name])
      flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
      place.store.write(name, bytes(flipped))
      with open_workdir(place.url) as folder:
        reader = Checkpointer(folder, read_only=True, log=lambda _: None)
        found += reader.newest() != STEPS
        reader.close()
      place.store.write(name, contents[name])
    rows.append({'store': place.scheme, 'flips': n, 'found': found})
    rows[-1]['bytes'] = int(sizes.sum())
    print(rows[-1], flush=True)
  return rows


def halves(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Parts of a checkpoint: ignored by a reader, deleted by the next writer?"""
  rows = []
  for place in places(scratch):
    finish(place.start(*GROWING))
    names = sorted(place.store.list(f'checkpoints/{STEPS}'))
    names = [name for name in names if not name.endswith(SEAL)]
    ignored = deleted = 0
    for i in range(n):
      half = f'checkpoints/{STEPS + 1 + i}'
      for name in rng.choice(names, rng.integers(1, len(names) + 1), replace=False):
        new = name.replace(f'checkpoints/{STEPS}', half)
        place.store.write(new, place.store.read(name))
      with open_workdir(place.url) as folder:
        reader = Checkpointer(folder, read_only=True, log=print)
        ignored += reader.newest() == STEPS
        reader.close()
      with open_workdir(place.url, write=True):
        deleted += not place.store.list(half)
    rows.append(
      {'store': place.scheme, 'halves': n, 'ignored': ignored, 'deleted': deleted}
    )
    print(rows[-1], flush=True)
  return rows


def writers(scratch: Path) -> list[dict]:
  """A second run on the workdir of one that trains, here and as on another machine."""
  # In another PID namespace a process cannot see whether the owner lives.
  elsewhere = ['unshare', '--user', '--map-root-user', '--pid', '--fork']
  rows = []
  for place in places(scratch):
    first = place.start(*ENDLESS)
    place.await_step(0, first)
    for where, before in (('this machine', []), ('another machine', elsewhere)):
      began = time.monotonic()
      second = subprocess.run(
        [*before, *first.args], cwd=ROOT, capture_output=True, text=True
      )
      row = {'store': place.scheme, 'second': where, 'code': second.returncode}
      row['seconds'] = round(time.monotonic() - began, 1)
      rows.append({**row, 'said': second.stderr.strip().splitlines()[-1][:72]})
      print(rows[-1], flush=True)
    rows[-1]['first_goes_on'] = rows[-2]['first_goes_on'] = first.poll() is None
    first.kill()
    first.wait()
  return rows


def processes(scratch: Path, rng: np.random.Generator) -> list[dict]:
  """Two processes; one is killed; both are started again."""

  def pair(place: Place, workdir: Path | None = None) -> list[subprocess.Popen]:
    address = free_address()
    return [
      place.start(
        *GROWING, '--peer_timeout=10', f'--distributed={address},2,{i}', workdir=workdir
      )
      for i in range(2)
    ]

  rows = []
  for place in places(scratch):
    whole = scratch / 'whole2'
    if not (whole / 'checkpoints' / str(STEPS)).is_dir():
      finish(*pair(place, whole))
    for killed in (0, 1):
      two, before = pair(place), place.newest()
      place.await_step(before + int(rng.integers(1, STEPS // 3)), *two)
      time.sleep(rng.uniform(0, 0.5))
      two[killed].kill()
      began = time.monotonic()
      codes = [process.wait() % 256 for process in two]
      row = {'store': place.scheme, 'killed': killed, 'from': before}
      row |= {'to': place.newest(), 'other_ended_with': codes[1 - killed]}
      rows.append({**row, 'after_s': round(time.monotonic() - began, 1), 'equal': ''})
      print(rows[-1], flush=True)
    finish(*pair(place))
    rows[-1]['equal'] = equal(place.arrays(STEPS), restored(whole, STEPS))
    print(rows[-1], flush=True)
  return rows
