"""Notices a run that is lost: updates that are not finite, a collapse."""

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gan_jax.config import CollapseConfig

WINDOWS = 4  # of good sheets that have to be there before more than variety is judged
RECENT = 8  # good windows that say what is usual
# What is compared with what is usual: how it is called, and the limit of its ratio.
JUDGED = {
  'gap': ("D's scores of real and fake differ by", 'max_gap_ratio'),
  'g_grad': ("G's gradient is", 'max_gradient_ratio'),
  'd_sigma': ("D's largest singular value is", 'max_sigma_ratio'),
  'g_sigma': ("G's largest singular value is", 'max_sigma_ratio'),
}


class CollapseMonitor:
  """A verdict on a run, and nothing but a function of the lines of its journal.

  So it survives a restart: feed it the lines that are there. A sheet closes a window
  of steps, and the window is bad where the sheet shows much less variety than the
  most varied good one of this resolution; where D's gap between real and fake, or the
  largest singular value of a network, is many times what is usual here; or where G's
  gradient is many times larger or smaller than that. On these two real collapses show
  first; pictures, drawn by an average, follow later.
  """

  def __init__(self, limits: CollapseConfig):
    self._limits = limits
    self._broken = 0
    self.good_step = 0  # of the last good sheet
    self._new_resolution(0)

  def _new_resolution(self, res: int) -> None:
    self._res = res
    self._steps: dict[str, list[float]] = {}  # of the window
    self._usual: deque[dict[str, float]] = deque(maxlen=RECENT)
    self._most = 0.0  # diversity
    self._bad: list[str] = []

  def note_step(self, metrics: Mapping[str, float]) -> str | None:
    """To be told of every iteration; why the run has to stop, if it has to."""
    self._broken = self._broken + 1 if metrics['skipped'] else 0
    if self._broken < self._limits.max_skipped:
      return None
    return f'{self._broken} iterations in a row had an update that is not finite'

  def see(self, line: Mapping[str, Any]) -> None:
    """Takes a line of the journal."""
    if 'd_real' in line and 'd_fake' in line:
      if line['res'] != self._res:
        self._new_resolution(line['res'])
      self._steps.setdefault('gap', []).append(abs(line['d_real'] - line['d_fake']))
      if 'g_grad' in line:
        self._steps.setdefault('g_grad', []).append(line['g_grad'])
    if 'diversity' not in line:
      return
    window = {name: statistics.median(x) for name, x in self._steps.items()}
    window |= {name: line[name] for name in ('d_sigma', 'g_sigma') if name in line}
    complaint = self._complaint(line['diversity'], window)
    self._steps = {}
    if complaint:
      self._bad.append(complaint)
      return
    self._bad, self.good_step = [], line['step']
    self._most = max(self._most, line['diversity'])
    self._usual.append(window)

  def _complaint(self, diversity: float, window: Mapping[str, float]) -> str | None:
    if diversity < self._limits.min_diversity * self._most:
      return f'pictures vary by {diversity:.3f}, once by {self._most:.3f}'
    for name, value in window.items():
      words, field = JUDGED[name]
      limit = getattr(self._limits, field)
      before = [good[name] for good in self._usual if name in good]
      if not limit or len(before) < WINDOWS:
        continue
      usual = statistics.median(before)
      if value > limit * usual or name == 'g_grad' and value < usual / limit:
        return f'{words} {value:.3g}, usually {usual:.3g}'
    return None

  def verdict(self) -> str | None:
    """Why the run has collapsed, if it has."""
    return self._bad[-1] if len(self._bad) >= self._limits.grids else None


def grid_diversity(images: np.ndarray, columns: int) -> float:
  """How much pictures in a row of a sheet differ: standard deviation, 1 is white.

  Args:
    images: uint8 [rows * columns, h, w, c].
  """
  rows = images.reshape(-1, columns, *images.shape[1:]).astype(np.float32)
  return float(rows.std(1).mean() / 127.5)


def singular_values(spectral: Any) -> dict[str, list[float]]:
  """Layer -> the largest singular values, as the step's power iteration saw them."""
  found: dict[str, list[float]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(spectral):
    names = [entry.key for entry in path]
    if names[-1] == 'sigma':
      found['/'.join(names[:-1])] = np.asarray(leaf.addressable_data(0)).tolist()
  return found
