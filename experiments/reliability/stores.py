"""Runs in object stores on loopback: killed, then with flipped bits in the bucket."""

import os
import sys
import time
from pathlib import Path

import numpy as np
from broken import GROWING, STEPS

from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.store import Store
from gan_jax.storage.working_copy import SEAL, open_workdir, working_copy

from launch import ROOT, equal, finish, restored, start

sys.path.insert(0, str(ROOT))
from tests.storage.stores import gcs_server, s3_server


def stores(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Kills a run n times on gs:// and on s3://; then flips bits of its checkpoint."""
  apart = {
    'JAX_COMPILATION_CACHE_DIR': str(scratch / 'programs'),
    'PYTHONPATH': os.environ.get('PYTHONPATH', str(ROOT)),
  }
  whole = scratch / 'whole'
  if not whole.is_dir():
    finish(start(whole, *GROWING, **apart))
  rows = []
  for scheme, server in (('gs', gcs_server), ('s3', s3_server)):
    with server() as variables:
      os.environ.update(variables)
      url, log = f'{scheme}://bucket/runs/a', scratch / f'{scheme}.log'
      for i in range(n):
        before = _newest(url)
        # A third of the kills hits the start, the others a step or a push.
        goal = before + rng.integers(0, 2 * STEPS // n + 1)
        process = start(url, *GROWING, log=log, **apart)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
          if _newest(url) > goal:
            break
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        code = process.wait()
        rows.append({'store': scheme, 'event': i, 'from': before, 'to': _newest(url)})
        print(rows[-1], code, flush=True)
      finish(start(url, *GROWING, log=log, **apart))
      with open_workdir(url) as folder:
        working_copy(folder).fetch(STEPS)
        same = equal(restored(folder, STEPS), restored(whole, STEPS))
      rows.append({'store': scheme, 'event': f'equal: {same}', 'from': '', 'to': STEPS})
      print(rows[-1], flush=True)
      found = sum(_flip(url, rng) for _ in range(50))
      rows.append({'store': scheme, 'event': f'flips: {found}', 'from': 50, 'to': ''})
      print(rows[-1], flush=True)
  return rows


def _newest(url: str) -> int:
  names = Store(url).list('checkpoints')
  return max((int(x.split('/')[1]) for x in names if x.endswith(SEAL)), default=0)


def _flip(url: str, rng: np.random.Generator) -> bool:
  """Flips one bit of the newest checkpoint in the store; whether it is found."""
  store, found = Store(url), []
  names = store.list(f'checkpoints/{STEPS}/default')
  names = [name for name in names if not name.endswith('commit_success.txt')]
  sizes = np.array([len(store.read(name)) for name in names])
  name = rng.choice(names, p=sizes / sizes.sum())
  intact = store.read(name)
  damaged = bytearray(intact)
  damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
  store.write(name, bytes(damaged))
  with open_workdir(url) as folder:
    reader = Checkpointer(folder, read_only=True, log=found.append)
    reader.newest()
    reader.close()
  store.write(name, intact)
  return bool(found)
