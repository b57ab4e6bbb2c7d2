"""Gradient noise scale: the batch size beyond which larger batches save few steps.

McCandlish et al. 2018, arXiv:1812.06162, section 2.2 and appendix A.1. Let G be the
gradient and Sigma its covariance over images. The simple noise scale, in images, is
tr(Sigma) / |G|^2. Both are estimated from gradients of a small and of a large batch.
"""

import math
import statistics
from collections.abc import Mapping
from typing import Any

# Metrics of a training step: estimates of |G|^2 and of tr(Sigma) for D and G.
METRICS = 'd_signal', 'd_noise', 'g_signal', 'g_noise'
DECAY = 0.9  # of the exponential averages, per line of metrics.jsonl


def estimate_noise_scale(
  network: str, small: Any, large: Any, small_batch: int, large_batch: int
) -> dict[str, Any]:
  """Unbiased estimates from one step: `<network>_signal` and `<network>_noise`.

  They solve E|G_b|^2 = |G|^2 + tr(Sigma) / b for both batch sizes b: the signal is
  |G|^2, the noise tr(Sigma). The signal of a single step may be negative.

  Args:
    network: 'd' or 'g'.
    small: squared gradient norm of `small_batch` images, averaged over such batches.
    large: squared norm of the gradient of all `large_batch` images.
  """
  b, n = small_batch, large_batch
  return {
    f'{network}_signal': (n * large - b * small) / (n - b),
    f'{network}_noise': (small - large) / (1 / b - 1 / n),
  }


class NoiseScale:
  """The gradient noise scale of a run, in images.

  It is a ratio of averages: that of a single step is too noisy, and the mean of ratios
  is biased. Signal and noise are averaged over the steps of a line of metrics.jsonl,
  then exponentially over lines.
  """

  def __init__(self) -> None:
    self._steps: dict[str, list[float]] = {name: [] for name in METRICS}
    self._averages = dict.fromkeys(METRICS, 0.0)

  def add_step(self, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of a step, unless non-finite, as those of a skipped update."""
    for name in METRICS:
      if math.isfinite(metrics.get(name, math.nan)):
        self._steps[name].append(metrics[name])

  def next_line(self) -> dict[str, float]:
    """Metrics for the next line: `METRICS`, and `<network>_noise_scale` where positive.

    `METRICS` are means over the steps since the last line, so that readers can average
    over more lines. Without such steps the result is empty.
    """
    line = {n: statistics.fmean(steps) for n, steps in self._steps.items() if steps}
    self._steps = {name: [] for name in METRICS}
    self.add_line(line)
    for network in ('d', 'g'):
      signal, noise = (self._averages[f'{network}_{x}'] for x in ('signal', 'noise'))
      if f'{network}_signal' in line and signal > 0:
        line[f'{network}_noise_scale'] = noise / signal
    return line

  def add_line(self, line: Mapping[str, Any]) -> None:
    """Adds a line to the exponential averages, such as one from before a restart."""
    for name in METRICS:
      if name in line:
        self._averages[name] = DECAY * self._averages[name] + line[name]
