"""A tracker that keeps what it gets."""

import sys
import types
from typing import Any

from gan_jax.training import trackers


class Recorder:
  """A tracker that keeps what it gets, of all runs."""

  @classmethod
  def in_place_of_wandb(cls, monkeypatch: Any) -> 'Recorder':
    """One that log.trackers=wandb uses, whether or not wandb is installed."""
    tracker = cls()
    monkeypatch.setitem(trackers.SERVICES, 'wandb', (lambda: tracker, 'init'))
    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=None))
    return tracker

  def __init__(self, fails=()):
    self.starts, self.steps, self.values = [], [], []
    self.grids, self.ends, self.fails = [], [], fails

  def start(self, config, name, run_id):
    self.starts.append((config, name, run_id))
    if 'start' in self.fails:
      raise self.fails['start']
    return run_id or 'run-1'

  def scalars(self, images, values):
    if 'scalars' in self.fails:
      raise self.fails['scalars']
    self.steps.append(images)
    self.values.append(values)

  def grid(self, images, grid):
    self.grids.append((images, grid.size))

  def finish(self, end):
    self.ends.append(end)
