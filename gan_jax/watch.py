"""Notices a run that is lost: updates that are not finite, a collapse."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_jax.atomic import replacing
from gan_jax.recipe import Watch

WINDOWS = 4  # of good sheets that have to be there before D's gap is judged


class Watcher:
  """A verdict on a run, and nothing but a function of the lines of its journal.

  So it survives a restart: feed it the lines that are there. A sheet closes a window
  of steps, and the window is bad where the sheet shows much less variety than the
  most varied good one of this resolution, or D's gap between real and fake is many
  times the usual one.
  """

  def __init__(self, limits: Watch):
    self._limits = limits
    self._broken = 0
    self.good_step = 0  # of the last good sheet
    self._new_resolution(0)

  def _new_resolution(self, res: int) -> None:
    self._res = res
    self._gaps: list[float] = []  # of the window
    self._usual: list[float] = []  # of the good windows
    self._most = 0.0  # diversity
    self._bad: list[str] = []

  def note_step(self, metrics: Mapping[str, float]) -> str | None:
    """To be told of every iteration; why the run has to stop, if it has to."""
    self._broken = self._broken + 1 if metrics['skipped'] else 0
    if self._broken < self._limits.patience:
      return None
    return f'{self._broken} iterations in a row had an update that is not finite'

  def see(self, line: Mapping[str, Any]) -> None:
    """Takes a line of the journal."""
    if 'd_real' in line and 'd_fake' in line:
      if line['res'] != self._res:
        self._new_resolution(line['res'])
      self._gaps.append(abs(line['d_real'] - line['d_fake']))
    if 'diversity' not in line:
      return
    gap = statistics.median(self._gaps) if self._gaps else 0.0
    complaint = self._complaint(line['diversity'], gap)
    self._gaps = []
    if complaint:
      self._bad.append(complaint)
      return
    self._bad, self.good_step = [], line['step']
    self._most = max(self._most, line['diversity'])
    self._usual.append(gap)

  def _complaint(self, diversity: float, gap: float) -> str | None:
    limits = self._limits
    if diversity < limits.diversity * self._most:
      return f'pictures vary by {diversity:.3f}, once by {self._most:.3f}'
    if len(self._usual) < WINDOWS or not limits.gap:
      return None
    usual = statistics.median(self._usual)
    if gap > limits.gap * usual:
      return f"D's scores of real and fake differ by {gap:.3g}, usually {usual:.3g}"
    return None

  def verdict(self) -> str | None:
    """Why the run has collapsed, if it has."""
    return self._bad[-1] if len(self._bad) >= self._limits.sheets else None


def diversity(images: np.ndarray, columns: int) -> float:
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


def plot(out: Path, lines: list[dict[str, Any]]) -> None:
  """The curves of a journal as one picture, if matplotlib is installed."""
  try:
    from matplotlib.figure import Figure
  except ImportError:
    return
  panels = (
    ("D's scores", ('d_real', 'd_fake')),
    ('norms of gradients', ('d_grad', 'g_grad')),
    ('largest singular value', ('d_sigma', 'g_sigma')),
    ('diversity of the sheet', ('diversity',)),
    ('updates skipped', ('skipped',)),
  )
  figure = Figure(figsize=(8, 2 * len(panels)), layout='constrained')
  axes = figure.subplots(len(panels), sharex=True)
  for ax, (title, names) in zip(axes, panels, strict=True):
    ax.set_title(title, fontsize=9)
    for name in names:
      points = [(line['images'], line[name]) for line in lines if name in line]
      if points:
        ax.plot(*zip(*points, strict=True), label=name, linewidth=1)
        ax.legend(fontsize=8)
    if 'grad' in names[0]:
      ax.set_yscale('log')
    for line in lines:
      if 'collapsed' in line:
        ax.axvline(line['images'], color='red', linewidth=1)
  axes[-1].set_xlabel('images')
  with replacing(out) as part:
    figure.savefig(part)
