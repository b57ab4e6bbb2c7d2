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

OWNER = 'owner.json'  # the file that is locked


@contextlib.contextmanager
def lock_workdir(workdir: Path, flag: str = '--workdir') -> Iterator[None]:
  """Locks a workdir against other writers; the lock ends with the process.

  Args:
    workdir: or another folder, which is created.
    flag: that names it.

  Raises:
    UserError: another process holds the lock, or the workdir cannot be written.
  """
  path = workdir / OWNER
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = path.open('a+')
  except OSError as error:
    raise UserError(f'{flag}={workdir} cannot be written: {error.strerror}.') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise UserError(
        f'{flag}={workdir} is in use ({file.read().strip() or "owner unknown"}): '
        'stop that run, or take another folder.'
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
