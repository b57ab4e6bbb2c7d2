"""The charts of a report: metrics grouped into panels, long curves thinned."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypedDict

MAX_POINTS = 1200  # of a chart; longer curves keep the extremes of each interval

Record = dict[str, Any]  # one JSON object of a .jsonl file


class Panel(NamedTuple):
  """A chart and the metrics that it shows."""

  title: str
  names: str  # a regular expression that matches the whole name of a metric
  log: bool = False  # logarithmic y axis


# In the order of the page. A metric belongs to the first panel that matches its name.
PANELS = (
  Panel("D's scores", 'd_real|d_fake'),
  Panel('Losses', '.*loss.*'),
  Panel("Augmentation: p and the mean sign of D's scores of reals", 'augment_p|d_sign'),
  Panel('Penalties', '.*(penalty|ortho).*'),
  Panel('Gradient norms', '[dg]_grad.*', log=True),
  Panel('Largest singular values', '.*sigma.*'),
  Panel('Gradient noise scale', '.*noise_scale.*', log=True),
  Panel('Diversity of the sample grid', 'diversity'),
  Panel('Fréchet distance', 'eval/f(i|)d.*'),
  Panel('Kernel distance', 'eval/kid.*'),
  Panel('Precision and recall', 'eval/(precision|recall|density|coverage|prd_).*'),
  Panel('Classification accuracy', 'eval/accuracy.*'),
  Panel('Sliced Wasserstein distance', 'eval/swd.*'),
  Panel('Memorization', 'eval/memorization.*'),
  Panel('Linear separability', 'eval/separability.*'),
  Panel('Other scores', 'eval/.*'),
  Panel('Learning rates', '[dg]_lr', log=True),
  Panel('Resolution', 'res'),
  Panel('Fade-in of the resolution', 'alpha'),
  Panel('Images per second', 'images_per_s'),
  Panel('Seconds per step, and waiting for data in it', 'step_s|data_wait_s'),
  Panel('Skipped updates', 'skipped'),
  Panel('Other metrics', '.*'),
)
NOT_CHARTED = {'images', 'step', 'change_s', 'open_s', 'compile_s', 'to_step'}
HIDDEN_IF_CONSTANT = {'res', 'alpha', 'skipped'}


class Chart(TypedDict):
  """A panel with its curves."""

  title: str
  names: list[str]
  log: bool
  x: list[int]  # [n] images trained on
  y: list[list[float | None]]  # [names, n]; None where a metric has no value


def finite_number(value: Any) -> float | None:
  """A finite number rounded to five significant digits; None for anything else."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    return float(f'{value:.5g}') if math.isfinite(value) else None
  except OverflowError:
    return None


def read_series(metrics: Sequence[Record]) -> dict[str, dict[int, float]]:
  """The finite values of each metric: name -> images -> value."""
  series: dict[str, dict[int, float]] = {}
  for record in metrics:
    for name, value in record.items():
      if name not in NOT_CHARTED and (rounded := finite_number(value)) is not None:
        series.setdefault(name, {})[record['images']] = rounded
  return series


def make_charts(metrics: Sequence[Record]) -> list[Chart]:
  """The charts of a run, without those that have no curve.

  Args:
    metrics: records of metrics.jsonl, each with the number of images trained on.
  """
  remaining = read_series(metrics)
  charts: list[Chart] = []
  for panel in PANELS:
    names = [name for name in remaining if re.fullmatch(panel.names, name)]
    curves = {name: remaining.pop(name) for name in names}
    for name in HIDDEN_IF_CONSTANT & curves.keys():
      if len(set(curves[name].values())) == 1:
        del curves[name]
    if not curves:
      continue
    x = sorted(set().union(*curves.values()))
    x, y = thin_curves(x, list(curves.values()))
    positive = all(v is None or v > 0 for values in y for v in values)
    log = panel.log and positive
    charts.append(Chart(title=panel.title, names=list(curves), log=log, x=x, y=y))
  return charts


def thin_curves(
  x: list[int], curves: Sequence[Mapping[int, float]]
) -> tuple[list[int], list[list[float | None]]]:
  """Reduces curves to at most `MAX_POINTS` points.

  Longer curves keep the minimum and the maximum of each interval, in the order in which
  they occur; they are shown at the ends of the interval.

  Args:
    x: sorted positions of all curves.
    curves: position -> value.

  Returns:
    The positions [n], and the values [n] of each curve; None where it has no value.
  """
  if len(x) <= MAX_POINTS:
    return x, [[curve.get(at) for at in x] for curve in curves]
  n = MAX_POINTS // 2
  intervals = list(pairwise(len(x) * i // n for i in range(n + 1)))
  positions = [x[i] for low, high in intervals for i in (low, high - 1)]
  thinned: list[list[float | None]] = []
  for curve in curves:
    values: list[float | None] = []
    for low, high in intervals:
      values += _extremes([curve[at] for at in x[low:high] if at in curve])
    thinned.append(values)
  return positions, thinned


def _extremes(values: list[float]) -> list[float | None]:
  """Minimum and maximum in the order in which they occur; [None, None] if empty."""
  if not values:
    return [None, None]
  low, high = min(values), max(values)
  falls = values.index(low) > values.index(high)
  return [high, low] if falls else [low, high]
