"""How large a batch still helps? Fits and plots of the grid; see README.md."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.optimize import least_squares

from gan_jax.storage.json_lines import read_json_lines

HERE = Path(__file__).parent / 'results'
TARGETS = 0.5, 0.25, 0.15  # of fd_small
DRAWS = 1000  # resamples of the bootstrap
Cells = dict[tuple[int, float], list[dict[str, Any]]]  # (batch, factor) -> seeds
Arrivals = dict[tuple[int, float], np.ndarray]  # the same -> log of images to a target


class Way(NamedTuple):
  """To a target, at one batch and its best learning rates."""

  factor: float
  images: float  # geometric mean over the seeds
  edge: bool  # the best factor is the grid's first or last


def reached(row: dict[str, Any], target: float) -> float:
  """Images until the score is below, between two scores by its logarithm; or inf."""
  images = np.array(row['score/images'], float)
  above = np.log(np.array(row['score/value']) / target)
  below = np.flatnonzero(above <= 0)
  if not len(below):
    return np.inf
  i = below[0]
  if i == 0:
    return float(images[0])
  share = above[i - 1] / (above[i - 1] - above[i])
  return float(images[i - 1] + share * (images[i] - images[i - 1]))


def arrivals(cells: Cells, target: float) -> Arrivals:
  return {
    key: np.log([reached(row, target) for row in rows]) for key, rows in cells.items()
  }


def ways(logs: Arrivals) -> dict[int, Way]:
  """Of every batch at which all seeds of some learning rates arrive."""
  found: dict[int, Way] = {}
  for batch in sorted({b for b, _ in logs}):
    factors = sorted(f for b, f in logs if b == batch)
    means = [logs[batch, f].mean() for f in factors]
    best = int(np.argmin(means))
    if np.isfinite(means[best]):
      edge = best in (0, len(factors) - 1)
      found[batch] = Way(factors[best], float(np.exp(means[best])), edge)
  return found


def fit(batches: Sequence[float], images: Sequence[float]) -> tuple[float, float]:
  """(E_min, B_crit) of E = E_min (1 + B / B_crit), by least squares of log E.

  It is (S / S_min - 1) (E / E_min - 1) = 1, equation 2.11 of arXiv:1812.06162, with E
  images in S = E / B steps and B_crit = E_min / S_min.
  """
  b, log_e = np.array(batches, float), np.log(images)

  def off(logs):
    return logs[0] + np.log1p(b / np.exp(logs[1])) - log_e

  start = [log_e.min(), np.log(np.exp(np.log(b).mean()))]
  # Beyond these, the data say no more than that there is no bend.
  limits = [-np.inf, np.log(b.min() / 100)], [np.inf, np.log(b.max() * 100)]
  e_min, b_crit = np.exp(least_squares(off, start, bounds=limits).x)
  return float(e_min), float(b_crit)


def scale(rows: Sequence[dict[str, Any]], net: str, until: float) -> float:
  """Noise scale in the second half of the way: a ratio of means over all lines."""
  parts = []
  for name in ('noise', 'signal'):
    parts.append(
      np.mean(
        [
          x
          for row in rows
          for i, x in zip(row['noise/images'], row[f'noise/{net}_{name}'], strict=True)
          if until / 2 < i <= until and x is not None
        ]
      )
    )
  return float(parts[0] / parts[1]) if parts[1] > 0 else np.nan


def figures(logs: Arrivals) -> dict[str, float]:
  """All that is fitted; empty where fewer than three batches arrive."""
  found = ways(logs)
  if len(found) < 3:
    return {}
  e_min, b_crit = fit([*found], [way.images for way in found.values()])
  return {'images_min': e_min, 'steps_min': e_min / b_crit, 'b_crit': b_crit}


def intervals(logs: Arrivals) -> dict[str, tuple[float, float]]:
  """95% of a bootstrap of residuals: every run draws how far it is from the mean of its
  seeds out of those of all runs, rates are chosen anew and all is fitted anew.

  Empty where there is one seed.
  """
  settled = [x for x in logs.values() if len(x) > 1 and np.isfinite(x).all()]
  if not settled:
    return {}
  # Distances from a mean of n are too small by this.
  pool = np.concatenate(
    [(x - x.mean()) * np.sqrt(len(x) / (len(x) - 1)) for x in settled]
  )
  rng = np.random.default_rng(0)
  drawn = [
    figures({k: x.mean() + rng.choice(pool, len(x)) for k, x in logs.items()})
    for _ in range(DRAWS)
  ]
  drawn = [d for d in drawn if d]
  return {
    name: tuple(np.percentile([d[name] for d in drawn], (2.5, 97.5)))
    for name in drawn[0]
  }


def gflop(row: dict[str, Any], images: float) -> float:
  return images * (row['gflop_image'] + row['gflop_step'] / row['batch'])


def curve(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
  """Images, and the geometric mean of the scores of all seeds."""
  n = min(len(row['score/images']) for row in rows)
  scores = [np.log(row['score/value'][:n]) for row in rows]
  return np.array(rows[0]['score/images'][:n]), np.exp(np.mean(scores, 0))


def plain(axes: Axes) -> None:
  """Logarithmic, with numbers as one writes them."""
  for scaled, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
    scaled('log')
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
    axis.set_minor_locator(NullLocator())


def plot_quality(cells: Cells, target: float, path: Path) -> None:
  figure = Figure(figsize=(11, 3.8), layout='constrained')
  left, middle, right = figure.subplots(1, 3)
  for batch, way in ways(arrivals(cells, target)).items():
    rows = cells[batch, way.factor]
    images, score = curve(rows)
    left.plot(images, score, label=f'batch {batch}, rates x {way.factor:g}')
    middle.plot([gflop(rows[0], i) for i in images], score)
  for batch in sorted({b for b, _ in cells}):
    factors = sorted(f for b, f in cells if b == batch)
    ends = [curve(cells[batch, f])[1][-1] for f in factors]
    right.plot(factors, ends, 'o-', label=f'batch {batch}')
  for axes, name in (
    (left, 'images seen'),
    (middle, 'GFLOP'),
    (right, 'learning rates, times the scaled ones'),
  ):
    plain(axes)
    axes.set_xlabel(name)
  left.set_ylabel('fd_small')
  right.set_ylabel('fd_small after the last image')
  left.legend(fontsize=8)
  right.set_xticks(factors, [f'{f:g}' for f in factors])
  right.legend(fontsize=8)
  figure.savefig(path, dpi=120)


def plot_fits(cells: Cells, fits: dict[float, dict[str, float]], path: Path) -> None:
  figure = Figure(figsize=(9, 4), layout='constrained')
  left, right = figure.subplots(1, 2)
  for i, (target, fitted) in enumerate(fits.items()):
    found = ways(arrivals(cells, target))
    b = np.array([*found], float)
    images = np.array([way.images for way in found.values()])
    left.plot(b, images, 'o', color=f'C{i}', label=f'fd_small {target:g}')
    fine = np.geomspace(b.min() / 2, b.max() * 2, 100)
    left.plot(fine, fitted['images_min'] * (1 + fine / fitted['b_crit']), color=f'C{i}')
    left.axvline(fitted['b_crit'], color=f'C{i}', linestyle=':', linewidth=1)
  left.set_ylabel('images to the target')
  left.legend(fontsize=8)
  target = min(fits)
  for batch, way in ways(arrivals(cells, target)).items():
    rows = cells[batch, way.factor]
    ends = np.array(rows[0]['noise/images'])
    for net, style in (('d', '-'), ('g', '--')):
      # Twice as long a stretch at each point: |G|^2 of a single line is very noisy.
      values = [scale(rows, net, float(end)) for end in ends[1:]]
      label = f'batch {batch}' if net == 'd' else None
      colour = f'C{sorted({b for b, _ in cells}).index(batch)}'
      right.plot(ends[1:], values, style, color=colour, label=label)
  right.set_xlabel('images seen')
  right.set_ylabel('noise scale in images; D solid, G dashed')
  right.legend(fontsize=8)
  left.set_xlabel('batch; B_crit dotted')
  for axes in (left, right):
    plain(axes)
  figure.savefig(path, dpi=120)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
  with path.open('w', newline='') as f:
    writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--cells', type=Path, default=HERE / 'cells.jsonl')
  p.add_argument('--targets', type=float, nargs='+', default=TARGETS)
  p.add_argument('--out', type=Path, default=HERE)
  args = p.parse_args()
  cells: Cells = {}
  for row in read_json_lines(args.cells):
    cells.setdefault((row['batch'], row['factor']), []).append(row)
  table, lines, fits = [], [], {}
  for target in args.targets:
    logs = arrivals(cells, target)
    scales: dict[str, list[float]] = {'d': [], 'g': []}
    for batch, way in ways(logs).items():
      rows = cells[batch, way.factor]
      row = {
        'fd_small': target,
        'batch': batch,
        'factor': way.factor,
        'edge': way.edge,
        'seeds': len(rows),
        'images': round(way.images),
        'steps': round(way.images / batch),
        'gflop': round(gflop(rows[0], way.images), 1),
      }
      for net, found in scales.items():
        found.append(scale(rows, net, way.images))
        row[f'{net}_noise_scale'] = round(found[-1], 1)
      table.append(row)
      print('  '.join(f'{k}={v}' for k, v in row.items()))
    fitted = figures(logs)
    if not fitted:
      continue
    fits[target] = fitted
    ends = intervals(logs)
    line = {'fd_small': target}
    for name, value in fitted.items():
      low, high = ends.get(name, (np.nan, np.nan))
      line |= {name: f'{value:.4g}', f'{name}_low': f'{low:.4g}'}
      line[f'{name}_high'] = f'{high:.4g}'
    for net, found in scales.items():  # of the batches
      line[f'{net}_noise_least'] = f'{np.nanmin(found):.4g}'
      line[f'{net}_noise_most'] = f'{np.nanmax(found):.4g}'
    lines.append(line)
    print('  '.join(f'{k}={v}' for k, v in line.items()))
  if not fits:
    raise SystemExit('no target is reached at three batches')
  args.out.mkdir(parents=True, exist_ok=True)
  write(args.out / 'table.csv', table)
  write(args.out / 'fits.csv', lines)
  plot_quality(
    cells, sorted(args.targets)[len(args.targets) // 2], args.out / 'quality.png'
  )
  plot_fits(cells, fits, args.out / 'fits.png')


if __name__ == '__main__':
  main()
