"""Detects runs that are lost: repeated non-finite updates, or a collapse."""

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from gan_jax.config import CollapseConfig

MIN_HISTORY = 4  # good windows required before a ratio to the median is checked
MAX_HISTORY = 8  # newest good windows that the median is taken over
# Quantity of a window -> (how a message calls it, the limit of its ratio).
RATIOS = {
  'gap': ("D's scores of real and fake differ by", 'max_gap_ratio'),
  'g_grad': ("G's gradient is", 'max_gradient_ratio'),
  'd_sigma': ("D's largest singular value is", 'max_sigma_ratio'),
  'g_sigma': ("G's largest singular value is", 'max_sigma_ratio'),
}


class CollapseMonitor:
  """Judges a run by the lines of its metrics.jsonl, and by nothing else.

  A resumed run restores the monitor by feeding it the existing lines. A sample grid
  closes a window of iterations. The window is bad if the diversity of the grid is a
  small fraction of the best at this resolution, or if one of these quantities is many
  times its median over the last good windows: D's score gap between real and fake, the
  largest singular value of a network, the norm of G's gradient (also if many times
  smaller). Singular values and gradients show a collapse first; sample grids show it
  later because they are drawn with the EMA weights.
  """

  def __init__(self, limits: CollapseConfig):
    self._limits = limits
    self._skipped = 0  # consecutive iterations
    self.good_step = 0  # of the last good sample grid
    self._start_resolution(0)

  def _start_resolution(self, res: int) -> None:
    self._res = res
    self._window: dict[str, list[float]] = {}
    self._history: deque[dict[str, float]] = deque(maxlen=MAX_HISTORY)
    self._best_diversity = 0.0
    self._reasons: list[str] = []  # one per consecutive bad window

  def count_skipped(self, metrics: Mapping[str, float]) -> str | None:
    """Takes the metrics of every iteration; returns why the run must stop, or None."""
    self._skipped = self._skipped + 1 if metrics['skipped'] else 0
    if self._skipped < self._limits.max_skipped:
      return None
    return f'{self._skipped} iterations in a row had a non-finite update'

  def add_line(self, line: Mapping[str, Any]) -> None:
    """Takes a line of metrics.jsonl; lines must come in order."""
    if 'd_real' in line and 'd_fake' in line:
      if line['res'] != self._res:
        self._start_resolution(line['res'])
      self._window.setdefault('gap', []).append(abs(line['d_real'] - line['d_fake']))
      if 'g_grad' in line:
        self._window.setdefault('g_grad', []).append(line['g_grad'])
    if 'diversity' in line:
      self._close_window(line)

  def _close_window(self, line: Mapping[str, Any]) -> None:
    window = {name: statistics.median(x) for name, x in self._window.items()}
    window |= {name: line[name] for name in ('d_sigma', 'g_sigma') if name in line}
    self._window = {}
    reason = self._reason(line['diversity'], window)
    if reason:
      self._reasons.append(reason)
      return
    self._reasons, self.good_step = [], line['step']
    self._best_diversity = max(self._best_diversity, line['diversity'])
    self._history.append(window)

  def _reason(self, diversity: float, window: Mapping[str, float]) -> str | None:
    """Why a window is bad, or None."""
    best = self._best_diversity
    if diversity < self._limits.min_diversity * best:
      return f'images of the sample grid vary by {diversity:.3f}, at best by {best:.3f}'
    for name, value in window.items():
      words, field = RATIOS[name]
      limit = getattr(self._limits, field)
      earlier = [good[name] for good in self._history if name in good]
      if not limit or len(earlier) < MIN_HISTORY:
        continue
      median = statistics.median(earlier)
      if value > limit * median or name == 'g_grad' and value < median / limit:
        return f'{words} {value:.3g}, usually {median:.3g}'
    return None

  def verdict(self) -> str | None:
    """Why the run has collapsed, or None."""
    return self._reasons[-1] if len(self._reasons) >= self._limits.grids else None


def grid_diversity(images: UInt8[np.ndarray, 'n h w c'], columns: int) -> float:
  """Mean standard deviation of pixels within the rows of an image grid, 1 = white.

  Args:
    images: the grid row by row, `columns` images per row.
  """
  rows = images.reshape(-1, columns, *images.shape[1:]).astype(np.float32)
  return float(rows.std(1).mean() / 127.5)


def singular_values(spectral: Any) -> dict[str, list[float]]:
  """Layer -> its largest singular values, as estimated by the step's power iteration.

  Args:
    spectral: the 'spectral' collection of a network; {} for networks without one.
  """
  values: dict[str, list[float]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(spectral):
    names = [entry.key for entry in path]
    if names[-1] == 'sigma':
      values['/'.join(names[:-1])] = np.asarray(leaf.addressable_data(0)).tolist()
  return values
