"""How far a batch helps: images to a target by batch, the fit, and its intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

DRAWS = 1000  # resamples of the bootstrap
_GRID = 600  # critical batches that the fit tries, before it refines the best one
_BEYOND = 100.0  # times the largest batch, or a part of the smallest: no bend is seen

Key = tuple[int, float]  # batch, and multiple of the config's learning rates
# Key -> log of the images to a target of each seed; inf where a seed does not arrive.
Arrivals = Mapping[Key, Float[np.ndarray, ' seeds']]


class Interval(NamedTuple):
  """95%; NaN where there is one seed."""

  low: float
  high: float


class Fit(NamedTuple):
  """E = images_min (1 + B / critical_batch): images to the target by batch B.

  McCandlish et al. 2018, arXiv:1812.06162, equation 2.11: (S / S_min - 1) (E / E_min -
  1) = 1 for E images in S = E / B steps, with B_crit = E_min / S_min.
  """

  images_min: float
  critical_batch: float


class BestRate(NamedTuple):
  """At one batch, the learning rates that reach the target first."""

  rate: float
  images: float  # geometric mean over the seeds
  edge: bool  # the rate is the first or the last of several that were tried


class TargetFit(NamedTuple):
  """All that is estimated for one target."""

  best: dict[int, BestRate]  # of every batch that arrives
  late: tuple[int, ...]  # batches that do not, at any rate with all seeds
  images: dict[int, Interval]
  fit: Fit | None  # None with fewer than three batches
  images_min: Interval
  critical_batch: Interval
  bends: bool  # False: the critical batch is a limit of what the batches can show


def images_to_target(
  images: Sequence[float], values: Sequence[float], target: float, best: str
) -> float:
  """Images until the score is at the target, between two scores by its logarithm.

  Scores of which the largest is best are interpolated linearly.

  Args:
    images: at which the score was taken, in order.
    best: 'min' or 'max', of the score.

  Returns:
    inf if the score does not reach it.
  """
  x, y = np.array(images, float), np.array(values, float)
  if best == 'min':
    above = np.log(np.maximum(y, 1e-300) / target)
  else:
    above = target - y
  reached = np.flatnonzero(above <= 0)
  if not len(reached):
    return np.inf
  i = int(reached[0])
  if i == 0:
    return float(x[0])
  share = above[i - 1] / (above[i - 1] - above[i])
  return float(x[i - 1] + share * (x[i] - x[i - 1]))


def best_rates(logs: Arrivals) -> dict[int, BestRate]:
  """Of every batch at which all seeds of some learning rates arrive."""
  found: dict[int, BestRate] = {}
  for batch in sorted({b for b, _ in logs}):
    rates = sorted(r for b, r in logs if b == batch)
    means = [float(logs[batch, r].mean()) for r in rates]
    best = int(np.argmin(means))
    if np.isfinite(means[best]):
      edge = len(rates) > 1 and best in (0, len(rates) - 1)
      found[batch] = BestRate(rates[best], float(np.exp(means[best])), edge)
  return found


def fit_batches(
  batches: Float[np.ndarray, ' b'], log_images: Float[np.ndarray, '*n b']
) -> tuple[Float[np.ndarray, '*n'], Float[np.ndarray, '*n']]:
  """(images_min, critical_batch) by least squares of the logarithm of the images.

  For a given critical batch the best images_min is a mean; the critical batch is
  searched on a grid, and refined by a parabola.
  """
  grid = np.linspace(
    np.log(batches.min() / _BEYOND), np.log(batches.max() * _BEYOND), _GRID
  )
  bend = np.log1p(batches / np.exp(grid)[:, None])  # [grid, b]
  # sum of ((y - mean y) - (x - mean x))^2, multiplied out to stay small
  y = log_images - log_images.mean(-1, keepdims=True)
  x = bend - bend.mean(-1, keepdims=True)
  loss = (x * x).sum(-1) - 2 * y @ x.T + (y * y).sum(-1)[..., None]
  best = np.clip(loss.argmin(-1), 1, _GRID - 2)
  left, middle, right = (
    np.take_along_axis(loss, (best + d)[..., None], -1)[..., 0] for d in (-1, 0, 1)
  )
  curvature = left - 2 * middle + right
  safe = np.where(curvature > 0, curvature, 1.0)
  shift = np.where(curvature > 0, 0.5 * (left - right) / safe, 0.0)
  log_critical = grid[best] + np.clip(shift, -1, 1) * (grid[1] - grid[0])
  critical = np.exp(log_critical)
  bends = np.log1p(batches / critical[..., None])
  return np.exp((log_images - bends).mean(-1)), critical


def fit_target(logs: Arrivals, seed: int = 0) -> TargetFit:
  """Best learning rates, the fit and its intervals.

  Intervals are 95% of a bootstrap of residuals: every run draws its distance from the
  mean of its seeds out of those of all runs, rates are chosen anew, and all is fitted
  anew. With one seed there are none.
  """
  best = best_rates(logs)
  late = tuple(sorted({b for b, _ in logs} - best.keys()))
  batches = np.array([*best], float)
  unknown = Interval(np.nan, np.nan)
  fit, bends = None, False
  if len(best) >= 3:
    e_min, critical = fit_batches(batches, np.log([b.images for b in best.values()]))
    fit = Fit(float(e_min), float(critical))
    bends = bool(batches.min() / 50 < critical < batches.max() * 50)
  drawn = _draw(logs, best, seed)
  if drawn is None:
    images = dict.fromkeys(best, unknown)
    return TargetFit(best, late, images, fit, unknown, unknown, bends)
  interval = lambda x: Interval(*np.percentile(x, (2.5, 97.5)).tolist())
  images = {b: interval(np.exp(drawn[:, i])) for i, b in enumerate(best)}
  if not fit:
    return TargetFit(best, late, images, fit, unknown, unknown, bends)
  e_mins, criticals = fit_batches(batches, drawn)
  return TargetFit(
    best, late, images, fit, interval(e_mins), interval(criticals), bends
  )


def _draw(
  logs: Arrivals, best: Mapping[int, BestRate], seed: int
) -> Float[np.ndarray, 'draws b'] | None:
  """Log of the images at the best rates of each batch in every draw."""
  arrived = {k: x for k, x in logs.items() if np.isfinite(x).all()}
  several = [x for x in arrived.values() if len(x) > 1]
  if not several:
    return None
  # Distances from a mean of n are too small by this.
  pool = np.concatenate(
    [(x - x.mean()) * np.sqrt(len(x) / (len(x) - 1)) for x in several]
  )
  rng = np.random.default_rng(seed)
  means = {
    key: x.mean() + rng.choice(pool, (DRAWS, len(x))).mean(-1)
    for key, x in sorted(arrived.items())
  }
  return np.stack(
    [np.min([m for (b, _), m in means.items() if b == batch], 0) for batch in best], -1
  )


def rate_interval(count: int, n: int) -> Interval:
  """95% Wilson interval of a rate: `count` of `n`."""
  if not n:
    return Interval(np.nan, np.nan)
  z, p = 1.96, count / n
  middle = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
  return Interval(max(float(middle - half), 0.0), min(float(middle + half), 1.0))


def mean_interval(values: Sequence[float]) -> Interval:
  """95% interval of the mean, by Student's t."""
  from scipy.stats import t  # not at the top: it loads slowly

  n = len(values)
  if n < 2:
    return Interval(np.nan, np.nan)
  half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
  mean = float(np.mean(values))
  return Interval(mean - half, mean + half)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
  """Which points no other one is at least as good as in both, and better in one."""
  return [
    not any(x <= a and y <= b and (x < a or y < b) for x, y in points)
    for a, b in points
  ]
