"""The charts of a study: curves and points over one x, with intervals."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gan_jax.study.cells import Cell
from gan_jax.study.fit import Fit
from gan_jax.study.results import (
  Result,
  by_rate,
  by_setting,
  noise_scale,
  truncation_of,
)
from gan_jax.study.spec import RULES, StudySpec
from gan_jax.study.tables import TargetResult, d_steps_of, quality_name

FINE = 60  # points of a fitted curve


class Series(NamedTuple):
  """A curve, or points.

  Attributes:
    points: x -> y.
    color: its number; series of one color belong together.
    line: whether points are joined.
    ends: x -> (low, high), drawn as a bar.
  """

  label: str
  points: dict[float, float]
  color: int
  line: bool = True
  ends: dict[float, tuple[float, float]] = {}


class Chart(NamedTuple):
  """Series in one pair of axes."""

  title: str
  x: str
  y: str
  series: list[Series]
  log_x: bool = False
  log_y: bool = False


def label_of(setting: str, rest: str) -> str:
  return f'{setting}: {rest}' if setting else rest


def batch_charts(
  spec: StudySpec, cells: Sequence[Cell], analysed: Sequence[TargetResult]
) -> list[Chart]:
  """Images and steps to the target by batch: measured, with intervals, and fitted."""
  d_steps = d_steps_of(cells)
  images: list[Series] = []
  steps: list[Series] = []
  for color, (setting, target, found, _) in enumerate(analysed):
    if not found.best:
      continue
    label = label_of(setting, f'{spec.score} {target:g}')
    curve = _curve(found.fit, [*found.best]) if found.fit else {}
    # Images over batch * D steps to the power of 0 or 1: images, or steps.
    for charts, power in ((images, 0), (steps, 1)):
      divide = functools.partial(_divide, d_steps[setting], power)
      points = {float(b): divide(b, way.images) for b, way in found.best.items()}
      ends = {
        float(b): (divide(b, end.low), divide(b, end.high))
        for b, end in found.images.items()
        if np.isfinite(end.low)
      }
      charts.append(Series(label, points, color, line=not curve, ends=ends))
      if curve:
        fitted = {b: divide(b, e) for b, e in curve.items()}
        charts.append(Series(f'{label}, fit', fitted, color))
  return [
    Chart('Images to the target', 'batch', 'images', images, True, True),
    Chart('Steps to the target', 'batch', 'steps', steps, True, True),
  ]


def _divide(d_steps: int, power: int, batch: float, images: float) -> float:
  return images / (batch * d_steps) ** power


def _curve(fit: Fit, batches: Sequence[int]) -> dict[float, float]:
  fine = np.geomspace(min(batches) / 2, max(batches) * 2, FINE)
  fine = np.unique(np.concatenate([fine, np.array(batches, float)]))
  return {float(b): fit.images_min * (1 + b / fit.critical_batch) for b in fine}


def rate_charts(
  spec: StudySpec,
  cells: Sequence[Cell],
  results: Sequence[Result],
  analysed: Sequence[TargetResult],
) -> list[Chart]:
  """Best rate by batch beside the rules, and the last score by rate."""
  rates: list[Series] = []
  color = 0
  for setting, target, found, _ in analysed:
    if len(found.best) > 1:
      label = label_of(setting, f'best at {spec.score} {target:g}')
      points = {float(b): way.rate for b, way in found.best.items()}
      rates.append(Series(label, points, color))
      color += 1
  if rates:
    batches = sorted({cell.batch for cell in cells})
    base = cells[0].config_batch
    for number, (name, rule) in enumerate(RULES.items()):
      points = {float(b): rule(b / base) for b in batches}
      rates.append(Series(f'rule {name}', points, color + number))
  last: list[Series] = []
  for setting, group in by_setting(results).items():
    by_batch: dict[int, dict[float, float]] = {}
    for (batch, rate), runs in by_rate(group).items():
      values = [r.last_score for r in runs if r.last_score is not None]
      if values:
        by_batch.setdefault(batch, {})[rate] = float(np.mean(values))
    for batch, points in by_batch.items():
      last.append(Series(label_of(setting, f'batch {batch}'), points, len(last)))
  positive = all(y > 0 for series in last for y in series.points.values())
  return [
    Chart('Best learning rates', 'batch', 'multiple of the rates', rates, True, True),
    Chart(
      'Last score by learning rate',
      'multiple of the rates',
      spec.score,
      last,
      True,
      positive,
    ),
  ]


def score_chart(
  spec: StudySpec, results: Sequence[Result], analysed: Sequence[TargetResult]
) -> Chart:
  """The score over the images, mean of the seeds, at the best rates of each batch."""
  hardest = {found.setting: found for found in analysed if found.fit.best}
  series: list[Series] = []
  for setting, group in by_setting(results).items():
    for batch in sorted({r.cell.batch for r in group}):
      runs = _runs_at_best(batch, by_rate(group), hardest.get(setting))
      common = set.intersection(*(set(r.scores) for r in runs)) if runs else set()
      points = {
        float(i): float(np.mean([r.scores[i] for r in runs])) for i in sorted(common)
      }
      if points:
        label = f'batch {batch}, rates x {runs[0].cell.rate:g}'
        series.append(Series(label_of(setting, label), points, len(series)))
  positive = all(y > 0 for s in series for y in s.points.values())
  return Chart('Score', 'images', spec.score, series, log_y=positive)


def _runs_at_best(
  batch: int,
  rates: dict[tuple[int, float], list[Result]],
  found: TargetResult | None,
) -> list[Result]:
  """The runs of a batch at the rates of its best way, else of its first rates."""
  if found and batch in found.fit.best:
    key = batch, found.fit.best[batch].rate
  else:
    key = next(key for key in rates if key[0] == batch)
  return [r for r in rates[key] if r.scores]


def noise_chart(results: Sequence[Result], net: str) -> Chart:
  """The gradient noise scale of a network, 'd' or 'g', over the images, by batch."""
  series: list[Series] = []
  for setting, group in by_setting(results).items():
    for color, batch in enumerate(sorted({r.cell.batch for r in group})):
      runs = [r for r in group if r.cell.batch == batch]
      images = sorted({int(line['images']) for r in runs for line in r.noise})
      # Twice as long a stretch at each point: |G|^2 of a single line is very noisy.
      points = {}
      for i in images[1:]:
        if (value := noise_scale(runs, net, i)) and value > 0:
          points[float(i)] = value
      if points:
        series.append(Series(label_of(setting, f'batch {batch}'), points, color))
  title = f'Gradient noise scale of {net.upper()}'
  return Chart(title, 'images', 'noise scale, images', series, log_y=True)


def cost_chart(times: Sequence[Sequence[object]]) -> Chart:
  """Hours against chip-hours of every batch on every topology.

  Args:
    times: rows of `time_table`.
  """
  series: dict[str, dict[float, float]] = {}
  for row in times:
    setting, target, topology = str(row[0]), row[1], row[3]
    points = series.setdefault(label_of(setting, f'{topology}, target {target}'), {})
    points[float(row[9])] = float(row[7])  # type: ignore[arg-type]
  front = {float(r[9]): float(r[7]) for r in times if r[10]}  # type: ignore[arg-type]
  lines = [
    Series(name, points, i, line=False)
    for i, (name, points) in enumerate(series.items())
  ]
  single = len({(row[0], row[1]) for row in times}) == 1
  if len(front) > 1 and single:
    lines.append(Series('Pareto front', front, 6))
  return Chart(
    'Time against cost', 'chip-hours', 'hours to the target', lines, True, True
  )


def frontier_charts(results: Sequence[Result]) -> list[Chart]:
  """Quality, and the other scores, by truncation value: means of the runs."""
  quality = quality_name(results)
  charts = []
  names = list(
    dict.fromkeys(n for r in results for row in r.frontier for n in [*row][1:])
  )
  names.sort(key=lambda name: name != quality)
  for name in names:
    series: list[Series] = []
    for setting, group in by_setting(results).items():
      for batch in sorted({r.cell.batch for r in group}):
        values: dict[float, list[float]] = {}
        for result in (r for r in group if r.cell.batch == batch):
          for row in result.frontier:
            if name in row:
              values.setdefault(truncation_of(row), []).append(row[name])
        if values:
          points = {t: float(np.mean(v)) for t, v in sorted(values.items())}
          series.append(
            Series(label_of(setting, f'batch {batch}'), points, len(series))
          )
    charts.append(Chart(f'{name} by truncation', 'truncation', name, series))
  return charts


def chart_data(chart: Chart) -> dict[str, object]:
  """A chart as JSON: all series on one sorted x, None where one has no value."""
  x = sorted({at for series in chart.series for at in series.points})
  clean = lambda value: None if value is None else float(f'{value:.5g}')
  return {
    'title': chart.title,
    'xLabel': chart.x,
    'yLabel': chart.y,
    'logX': chart.log_x,
    'logY': chart.log_y,
    'names': [series.label for series in chart.series],
    'colors': [series.color for series in chart.series],
    'lines': [series.line for series in chart.series],
    'data': [x, *([clean(s.points.get(at)) for at in x] for s in chart.series)],
    'ends': [
      [[at, *map(clean, ends)] for at, ends in sorted(series.ends.items())]
      for series in chart.series
    ],
  }
