"""Stopping a run at a signal: Ctrl-C, SIGTERM, preemption."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils


class StoppedError(KeyboardInterrupt):
  """A signal arrived while there was nothing to save."""


class PreemptionHandler:
  """Lets Ctrl-C or SIGTERM on any process stop all of them after the same iteration.

  Signal handlers can be set in the main thread only; elsewhere there are none. With
  several processes, JAX handles SIGTERM.

  Attributes:
    idle: nothing would be lost; a signal then raises StoppedError at once.
  """

  def __init__(self, log: Callable[[str], Any]):
    self.idle = True
    self._log = log
    self._signaled = False
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'PreemptionHandler':
    in_main_thread = threading.current_thread() is threading.main_thread()
    if jax.process_count() == 1 and in_main_thread:
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_: Any) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, *_: Any) -> None:
    if self.idle:
      raise StoppedError
    if self._signaled:
      raise KeyboardInterrupt  # the second signal: at once
    self._signaled = True
    self._log('stopping: saving first')

  def requested(self, step: int) -> bool:
    """Whether to stop before iteration `step`. Collective: all must call it."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._signaled
