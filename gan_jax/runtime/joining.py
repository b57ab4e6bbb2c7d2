"""What a process says while it waits for the others of its job, and for how long."""

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from jax._src import distributed as jax_distributed

from gan_jax.runtime.errors import UserError
from gan_jax.runtime.exit_codes import ExitCode

RESOLVE_SECONDS = 20.0  # names of new machines may take a moment to appear
REPEAT_SECONDS = 30.0


def _print(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _leave() -> None:
  os._exit(ExitCode.TRANSIENT)


def describe_wait(address: str, count: int, process: int) -> str:
  """'process 3 of 64 waits for HOST:PORT'."""
  whom = address if process else f'the others at {address}'
  return f'process {process} of {count} waits for {whom}'


def detected_wait() -> str | None:
  """As `describe_wait`, of what JAX has detected; None if it has not yet."""
  state = jax_distributed.global_state
  if not state.coordinator_address or state.num_processes is None:
    return None
  return describe_wait(state.coordinator_address, state.num_processes, state.process_id)


def resolve(address: str, wait: str, seconds: float = RESOLVE_SECONDS) -> None:
  """Looks up the host of HOST:PORT, until it is found or `seconds` have passed.

  Args:
    wait: the sentence of `describe_wait`.

  Raises:
    UserError: the host cannot be resolved. If a name server did not answer, it comes
      from an OSError that may pass.
  """
  host = address.rpartition(':')[0].strip('[]')
  found, stop = threading.Event(), threading.Event()
  failures: list[socket.gaierror] = []

  def look_up() -> None:  # in a thread, since a name server may not answer for long
    while not stop.is_set():
      try:
        socket.getaddrinfo(host, None)
      except socket.gaierror as error:
        if not failures:
          _print(f'{wait}, which cannot be resolved yet ({error.strerror})')
        failures.append(error)
        stop.wait(0.5)
      else:
        found.set()
        return

  threading.Thread(target=look_up, name='resolve', daemon=True).start()
  try:
    if found.wait(seconds):
      return
  finally:
    stop.set()
  unknown = failures and failures[-1].errno == socket.EAI_NONAME
  reason = failures[-1].strerror if failures else 'no name server answers'
  cause = failures[-1] if unknown else OSError(errno.ETIMEDOUT, reason)
  raise UserError(
    f'{wait}, but the host {host!r} cannot be resolved ({reason}): check the name in '
    '--distributed and the name server, or give the IP address of process 0.'
  ) from cause


@contextlib.contextmanager
def announced(
  describe: Callable[[], str | None],
  timeout: float,
  *,
  log: Callable[[str], None] = _print,
  leave: Callable[[], None] = _leave,
  repeat: float = REPEAT_SECONDS,
) -> Iterator[None]:
  """Says at once and at intervals what the block waits for; ends it after a time.

  JAX would end the process with the stack of its own code, and can be interrupted by
  nothing else.

  Args:
    describe: the sentence of `describe_wait`; None while it is not known.
    timeout: seconds after which `leave` ends the process.
  """
  done = threading.Event()

  def report() -> None:
    began, said = time.monotonic(), -repeat
    while True:
      waited, wait = time.monotonic() - began, describe()
      if waited >= timeout:
        log(
          f'error: {wait or "this process waits for its cluster"}, and has done so for '
          f'{waited:.0f} s (--join_timeout): check that all processes run, and that '
          'they reach that port; then start the same command again.'
        )
        leave()
        return
      if wait and waited - said >= repeat:
        said = waited
        log(f'{wait} ({waited:.0f} of {timeout:g} s)' if waited >= 1 else wait)
      if done.wait(min(0.2, timeout / 4)):
        return

  thread = threading.Thread(target=report, name='join', daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
