"""Stopping a run at a signal: Ctrl-C, SIGTERM, preemption."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm


class StoppedError(KeyboardInterrupt):
  """Asked to stop while there was nothing to save."""


class PreemptionHandler:
  """Ctrl-C or SIGTERM on any process stops all of them at one and the same step."""

  def __init__(self):
    self.idle = True  # nothing would be lost: no need to wait for a step
    self._signal = False

  def __enter__(self):
    self._before = {}
    if jax.process_count() == 1:  # else jax takes note of SIGTERM
      for name in (signal.SIGINT, signal.SIGTERM):
        self._before[name] = signal.signal(name, self._note)
    return self

  def __exit__(self, *_):
    for name, handler in self._before.items():
      signal.signal(name, handler)

  def _note(self, *_: Any) -> None:
    if self.idle:
      raise StoppedError
    if self._signal:
      raise KeyboardInterrupt  # asked twice: at once
    self._signal = True
    tqdm.write('stopping: saving first')

  def asked(self, step: int) -> bool:
    """To be asked before every step; with several processes at each number of one."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._signal
