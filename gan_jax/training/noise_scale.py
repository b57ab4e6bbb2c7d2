"""Gradient noise scale: the batch up to which more images a step save steps.

McCandlish et al. 2018, arXiv:1812.06162, section 2.2 and appendix A.1: where the
gradient G varies from image to image with covariance Sigma, B_simple = tr(Sigma) /
|G|^2. Both are told from the lengths of gradients of a small and of a large batch.
"""

import math
import statistics
from collections.abc import Mapping
from typing import Any

NAMES = 'd_signal', 'd_noise', 'g_signal', 'g_noise'
KEPT = 0.9  # of the averages, from one line of the journal to the next


def estimate_noise_scale(
  net: str, small: Any, big: Any, b: int, n: int
) -> dict[str, Any]:
  """Unbiased `<net>_signal`, |G|^2, and `<net>_noise`, tr(Sigma), of a step.

  E|G_b|^2 = |G|^2 + tr(Sigma) / b, at both sizes. One step's signal may be negative.

  Args:
    small: mean of the squared lengths of the gradients of b images.
    big: squared length of the gradient of n > b images, of which those are parts.
  """
  return {
    f'{net}_signal': (n * big - b * small) / (n - b),
    f'{net}_noise': (small - big) / (1 / b - 1 / n),
  }


class NoiseScale:
  """The noise scale of a run, in images: a ratio of averages, as the mean of ratios is
  biased and a single step's means nothing.

  A line has the means of the estimates since the line before it, so that whoever
  reads the lines can average over longer; `<net>_noise_scale` is that of exponential
  averages over lines.
  """

  def __init__(self):
    self._seen: dict[str, list[float]] = {name: [] for name in NAMES}
    self._average = dict.fromkeys(NAMES, 0.0)

  def see(self, values: Mapping[str, float]) -> None:
    """The metrics of a step; those of one that was skipped do not count."""
    for name in NAMES:
      if math.isfinite(values.get(name, math.nan)):
        self._seen[name].append(values[name])

  def line(self) -> dict[str, float]:
    """For the journal's next line; empty where no estimates were seen."""
    found = {n: statistics.fmean(seen) for n, seen in self._seen.items() if seen}
    self._seen = {name: [] for name in NAMES}
    self.follow(found)
    for net in ('d', 'g'):
      signal, noise = (self._average[f'{net}_{x}'] for x in ('signal', 'noise'))
      if f'{net}_signal' in found and signal > 0:
        found[f'{net}_noise_scale'] = noise / signal
    return found

  def follow(self, line: Mapping[str, Any]) -> None:
    """Takes a line's means into the averages: its own, or one of before a restart."""
    for name in NAMES:
      if name in line:
        self._average[name] = KEPT * self._average[name] + line[name]
