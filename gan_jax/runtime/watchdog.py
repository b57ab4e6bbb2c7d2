"""Ends a process that hangs, after printing what each of its threads does."""

import collections
import contextlib
import faulthandler
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from gan_jax.runtime.exit_codes import ExitCode

CHECK_SECONDS = 1.0  # between two checks
MAX_GAP = 5.0  # seconds between two checks that count: the process may be suspended
SLOW = 10  # times the median step
KNOWN_STEPS = 5  # needed for a median


def print_stacks_at_signal() -> None:
  """From now on, SIGUSR1 prints the stacks of all threads to stderr."""
  faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)


def _print_stacks(message: str) -> None:
  print(message, file=sys.stderr, flush=True)
  faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _leave(message: str) -> None:
  print(message, file=sys.stderr, flush=True)
  os._exit(ExitCode.TRANSIENT)


class Watched:
  """Something that has to make progress, such as the training loop.

  Attributes:
    doing: what it does at the moment, for messages.
  """

  def __init__(self, name: str, limit: float, first_limit: float):
    """
    Args:
      limit: seconds without progress that are always granted.
      first_limit: seconds granted while the time of a step is not known.
    """
    self.name = self.doing = name
    self._limit, self._first_limit = limit, max(first_limit, limit)
    self._durations: collections.deque[float] = collections.deque(maxlen=101)
    self._steps = self._seen = self._pauses = 0
    self._last: float | None = None
    self.idle = 0.0  # seconds without progress
    self.reported = False

  def step(self) -> None:
    """Says that there is progress. Cheap: called after each iteration."""
    now = time.perf_counter()
    if self._last is not None:
      self._durations.append(now - self._last)
    self._last = now
    self._steps += 1

  def forget(self) -> None:
    """Forgets the time of a step, which changes with the resolution."""
    self._durations.clear()
    self._last = None
    self._steps += 1

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """No progress is expected in the block, whose time is not that of a step."""
    self._pauses += 1
    try:
      yield
    finally:
      self._last = None
      self._steps += 1
      self._pauses -= 1

  def limit(self) -> float:
    """Seconds without progress after which it hangs."""
    durations = list(self._durations)
    if len(durations) < KNOWN_STEPS:
      return self._first_limit
    return max(self._limit, SLOW * statistics.median(durations))

  def wait(self, seconds: float) -> None:
    """Counts seconds, unless there was progress since the last call or it is paused."""
    steps = self._steps
    if self._pauses or steps != self._seen:
      self._seen, self.idle, self.reported = steps, 0.0, False
    else:
      self.idle += seconds


class Watchdog:
  """Watches the progress of this process from a thread of its own, while entered.

  Without progress for max(`limit`, ten times the median step) it prints the stacks of
  all threads to stderr; `hang_timeout` seconds later it ends the process with
  `ExitCode.TRANSIENT`. Until the time of a step is known, the limit is the larger one
  of `limit` and `hang_timeout`. The processes of a job wait for each other, so that
  each one's watchdog acts when one process hangs.
  """

  def __init__(
    self,
    limit: float = math.inf,
    hang_timeout: float = 0,
    *,
    who: Callable[[], str] = lambda: 'this process',
    print_stacks: Callable[[str], None] = _print_stacks,
    leave: Callable[[str], None] = _leave,
  ):
    """
    Args:
      limit: seconds without progress that are always granted; infinite: no watchdog.
      hang_timeout: seconds between the stacks and the end; 0: the process never ends.
      who: names this process.
    """
    self._limit, self._hang_timeout = limit, hang_timeout
    self._who, self._print_stacks, self._leave = who, print_stacks, leave
    self._watched: list[Watched] = []
    self._stop = threading.Event()

  def __enter__(self) -> 'Watchdog':
    self._stop.clear()
    if self._limit < math.inf:
      threading.Thread(target=self._run, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, *_: object) -> None:
    self._stop.set()

  def _run(self) -> None:
    before = time.monotonic()
    while not self._stop.wait(CHECK_SECONDS):
      now = time.monotonic()
      self.check(now - before)
      before = now

  @contextlib.contextmanager
  def watch(self, name: str) -> Iterator[Watched]:
    """Watches the block, which calls `step` of what it gets. Works in any thread."""
    watched = Watched(name, self._limit, self._hang_timeout)
    self._watched.append(watched)
    try:
      yield watched
    finally:
      self._watched.remove(watched)

  def check(self, seconds: float) -> None:
    """Acts if something hangs; `seconds` have passed since the last check."""
    for watched in list(self._watched):
      watched.wait(min(seconds, MAX_GAP))
      limit = watched.limit()
      if watched.idle < limit:
        continue
      if not watched.reported:
        watched.reported = True
        then = 'waiting on (--hang_timeout=0)'
        if self._hang_timeout:
          then = f'ending in {self._hang_timeout:g} s (--hang_timeout)'
        self._print_stacks(
          f'{self._who()} hangs: {watched.name} has made no progress for '
          f'{watched.idle:.0f} s, while {watched.doing}; {then}. All threads:'
        )
      elif self._hang_timeout and watched.idle >= limit + self._hang_timeout:
        self._leave(
          f'error: {self._who()} has hung for {watched.idle:.0f} s, while '
          f'{watched.doing}: see the threads above; start the same command again.'
        )
