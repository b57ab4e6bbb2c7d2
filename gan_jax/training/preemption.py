"""Stopping a run at a signal: Ctrl-C, SIGTERM, preemption."""

import itertools
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar('T')
POLLS = 3600  # seconds during which a signal interrupts a wait of several processes

# JAX sets the sync point of a job to 1 + the largest number that any process has asked
# for so far (0 if none has), and compares later numbers with it. So the numbers are
# counted from 1, none is left out, and they never decrease. Steps would not do: those
# of a resumed run begin above the sync point, and a rollback lowers them.
_numbers = itertools.count(1)


def stop_at_sigusr2() -> None:
  """From now on, SIGUSR2 is as SIGTERM: mpirun passes only that one on.

  Grid Engine sends it before it ends a job (-notify).
  """
  signal.signal(signal.SIGUSR2, lambda *_: signal.raise_signal(signal.SIGTERM))


class StoppedError(KeyboardInterrupt):
  """A signal arrived while there was nothing to save."""


class PreemptionHandler:
  """Lets Ctrl-C or SIGTERM on any process stop all of them after the same iteration.

  Signal handlers can be set in the main thread only; elsewhere there are none. With
  several processes, JAX handles SIGTERM, and Ctrl-C is passed on to it.

  Attributes:
    idle: nothing would be lost; in a run of one process, a signal then raises
      StoppedError at once.
    signal: the signal that arrived; None if none did, or with several processes.
  """

  def __init__(self, log: Callable[[str], Any], stop: threading.Event | None = None):
    """
    Args:
      stop: set by another thread, stops a run of one process as a signal does.
    """
    self.idle = True
    self._stop = stop or threading.Event()
    self.signal: signal.Signals | None = None
    self._log = log
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'PreemptionHandler':
    if threading.current_thread() is threading.main_thread():
      if jax.process_count() == 1:
        for number in (signal.SIGINT, signal.SIGTERM):
          self._previous[number] = signal.signal(number, self._handle)
      else:
        self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
    return self

  def __exit__(self, *_: Any) -> None:
    for number, handler in self._previous.items():
      # None: a handler that was not installed from Python, and cannot be put back.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def _handle(self, number: int, _: Any) -> None:
    again, self.signal = self.signal is not None, signal.Signals(number)
    if self.idle:
      raise StoppedError
    if again:
      raise KeyboardInterrupt  # the second signal: at once
    self._log('stopping: saving first')

  def _pass_on(self, *_: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one: at once
    self._log('stopping: saving first')
    signal.raise_signal(signal.SIGTERM)

  def requested(self) -> bool:
    """Whether to stop before the next iteration. Collective: all must call it."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(next(_numbers))
    return self.signal is not None or self._stop.is_set()

  def result(self, future: futures.Future[T]) -> T:
    """Waits for a result that all processes get at about the same time. Collective.

    Raises:
      StoppedError: several processes are to stop. Raised on all of them.
    """
    if jax.process_count() > 1:
      for _ in range(POLLS):  # the same numbers on all processes, in their own time
        futures.wait([future], timeout=1)
        if self.requested():
          raise StoppedError
    return future.result()
