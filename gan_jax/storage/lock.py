"""The lock of a workdir: one process writes it at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from gan_jax import UserError


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
  """Locks a workdir against other writers; the lock ends with the process.

  Raises:
    UserError: another process holds the lock, or the workdir cannot be written.
  """
  path = workdir / 'owner.json'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = path.open('a+')
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror}.'
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise UserError(
        f'--workdir={workdir} is in use ({file.read().strip() or "owner unknown"}): '
        'stop that run, or take another workdir.'
      ) from None
    owner = {
      'host': socket.gethostname(),
      'pid': os.getpid(),
      'since': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    }
    with contextlib.suppress(OSError):  # disk full: the lock holds without it
      file.truncate(0)
      file.write(json.dumps(owner))
      file.flush()
    yield
