"""The lock of a workdir in a store: one process writes it at a time.

The owner is the object owner.N.json with the highest N, which is created on the
condition that there is none, and written again as a sign of life. The next process
waits until it knows whether the owner lives, and takes N + 1 if not. No clocks of
different machines are compared.
"""

import contextlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.storage.store import Store

BEAT = 15.0  # seconds between two signs of life
STALE = 8 * BEAT  # without one for so long, the owner is dead
_NAME = re.compile(r'owner\.(\d+)\.json')


class StoreLock:
  """Holds the lock of a workdir in a store from `acquire` to `release`."""

  def __init__(self, store: Store, log: Callable[[str], Any]):
    self._store, self._log = store, log
    self._number = 0
    self._owner = {
      'host': socket.gethostname(),
      'pid': os.getpid(),
      'machine': machine(),
      'since': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
      'token': uuid.uuid4().hex,
    }

  def acquire(self, stale: float = STALE) -> None:
    """Takes the lock; waits up to `stale` seconds for an owner that may be dead.

    Raises:
      UserError: another process lives and holds it, or the store cannot be written.
    """
    highest = self._highest()
    if highest and not self._is_free(highest):
      self._await_death(highest, stale)
    self._number = highest + 1
    if not self._store.create(self._name(self._number), self._content()):
      raise self._in_use(self._number)
    if (later := self._highest()) != self._number:  # it was asleep while others took it
      self._store.delete([self._name(self._number)])
      raise self._in_use(later)
    self._store.delete(map(self._name, self._numbers()[:-1]))

  def beat(self) -> None:
    """A sign of life.

    Raises:
      UserError: another process has taken over, since this one gave no sign for long.
    """
    highest = self._highest()
    if highest != self._number:
      raise UserError(
        f'{self._store.url} was taken over by another process '
        f'({self._describe(highest)}), since this one could not reach the store: only '
        'that one goes on.'
      )
    self._owner['beat'] = time.time_ns()
    self._store.write(self._name(self._number), self._content())

  def release(self) -> None:
    self._owner['released'] = True  # the next number has to be higher
    self._store.write(self._name(self._number), self._content())

  def _await_death(self, number: int, stale: float) -> None:
    """Returns when the owner has shown no sign of life for `stale` seconds."""
    seen, began = self._read(number), time.monotonic()
    self._log(
      f'{self._store.url} is locked ({self._describe(number)}); waiting up to '
      f'{stale:.0f} s for a sign of life'
    )
    while time.monotonic() - began < stale:
      time.sleep(min(2.0, stale / 4))
      found = self._read(number)
      if found is None or found.get('released'):
        return
      if found != seen:
        raise self._in_use(number)

  def _is_free(self, number: int) -> bool:
    """Whether the owner has released the lock, or was a process of this machine."""
    owner = self._read(number)
    if owner is None or owner.get('released'):
      return True
    if owner.get('machine') != machine():
      return False
    try:
      os.kill(int(owner['pid']), 0)
    except ProcessLookupError:
      return True
    except (OSError, KeyError, ValueError):
      return False
    return False

  def _in_use(self, number: int) -> UserError:
    return UserError(
      f'--workdir={self._store.url} is in use ({self._describe(number)}): stop that '
      'run, or take another workdir.'
    )

  def _describe(self, number: int) -> str:
    owner = self._read(number) or {}
    shown = {key: owner[key] for key in ('host', 'pid', 'since') if key in owner}
    return json.dumps(shown) if shown else 'owner unknown'

  def _read(self, number: int) -> dict[str, Any] | None:
    """What the owner has written; None if the object is gone."""
    with contextlib.suppress(FileNotFoundError):
      try:
        value = json.loads(self._store.read(self._name(number)))
      except ValueError:
        return {}
      return value if isinstance(value, dict) else {}
    return None

  def _numbers(self) -> list[int]:
    matches = map(_NAME.fullmatch, self._store.list())
    return sorted(int(match[1]) for match in matches if match)

  def _highest(self) -> int:
    return max(self._numbers(), default=0)

  def _name(self, number: int) -> str:
    return f'owner.{number}.json'

  def _content(self) -> bytes:
    return json.dumps(self._owner).encode()


def machine() -> str:
  """Names the processes among which a process id is unique."""
  try:
    boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.stat("/proc/self/ns/pid").st_ino}'
  except OSError:
    return uuid.uuid4().hex  # equals no other
