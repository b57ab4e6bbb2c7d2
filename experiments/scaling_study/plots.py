"""Draws results/scaling.png: how BigGAN-128 scales, by the plans in results/table.csv.

Left: images/s by chips at batch 2048 (strong scaling), beside chips times the images/s
of one chip on the smallest slice. Right: share of a step that collectives take if
nothing hides them, by images per chip.
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use('agg')
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axis import Axis

HERE = Path(__file__).parent / 'results'
CONFIG = 'configs/biggan_imagenet.py:128'
BATCH = 2048


def read_rows() -> dict[str, list[dict[str, float]]]:
  """Kind of chip -> rows of CONFIG that fit, by chips and batch."""
  found = defaultdict(list)
  with (HERE / 'table.csv').open(newline='') as file:
    for line in csv.DictReader(file):
      if line['config'] == CONFIG and line['fits'] == 'True':
        names = (
          'chips',
          'batch',
          'images_per_s',
          'step_s',
          'slowest_s',
          'collectives_s',
        )
        kind = line['topology'].partition(':')[0]
        found[kind].append({name: float(line[name]) for name in names})
  return {
    kind: sorted(rows, key=lambda r: (r['chips'], r['batch']))
    for kind, rows in found.items()
  }


def show_numbers(axis: Axis, values: list[float]) -> None:
  """Ticks of a logarithmic axis at the values, written out."""
  axis.set_major_locator(ticker.FixedLocator(sorted({*values})))
  axis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  axis.set_minor_locator(ticker.NullLocator())


def draw_strong(axes: plt.Axes, rows: dict[str, list[dict[str, float]]]) -> None:
  for i, (kind, found) in enumerate(rows.items()):
    at = [r for r in found if r['batch'] == BATCH]
    if not at:
      continue
    chips = [r['chips'] for r in at]
    hidden = [r['images_per_s'] for r in at]
    shown = [r['images_per_s'] * r['step_s'] / r['slowest_s'] for r in at]
    axes.plot(chips, hidden, f'C{i}o-', label=kind)
    axes.plot(chips, shown, f'C{i}s:')
    axes.plot(chips, [hidden[0] * n / chips[0] for n in chips], f'C{i}--', lw=0.7)
  axes.set(xscale='log', yscale='log', xlabel='chips', ylabel='images/s')
  show_numbers(axes.xaxis, [r['chips'] for found in rows.values() for r in found])
  axes.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  axes.yaxis.set_minor_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  lines = 'dotted: no collective hidden;\ndashed: in proportion to the chips'
  axes.set_title(f'Batch {BATCH} ({lines})', fontsize=10)
  axes.legend(fontsize=8, loc='upper left')


def draw_share(axes: plt.Axes, rows: dict[str, list[dict[str, float]]]) -> None:
  for i, (kind, found) in enumerate(rows.items()):
    points = sorted(
      (r['batch'] / r['chips'], 100 * r['collectives_s'] / r['slowest_s'])
      for r in found
    )
    axes.plot(*zip(*points, strict=True), f'C{i}o-', label=kind)
  axes.set(
    xscale='log', xlabel='images per chip', ylabel='% of the step', ylim=(0, None)
  )
  show_numbers(axes.xaxis, [r['batch'] / r['chips'] for f in rows.values() for r in f])
  axes.set_title('Collectives, if nothing hides them', fontsize=10)
  axes.legend(fontsize=8)


def main() -> None:
  rows = read_rows()
  figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
  draw_strong(left, rows)
  draw_share(right, rows)
  for axes in (left, right):
    axes.grid(alpha=0.3, which='both')
  figure.suptitle(f'{CONFIG}, as planned; nothing of it was measured', fontsize=10)
  figure.tight_layout()
  figure.savefig(HERE / 'scaling.png', dpi=90)


if __name__ == '__main__':
  main()
