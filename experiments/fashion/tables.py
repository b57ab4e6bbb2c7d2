"""The table, the curves and the image grids of the scored runs."""

import csv
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from classifier import CLASSES

from gan_jax.sampling.image_io import image_grid

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

Record = dict[str, Any]
Runs = dict[str, dict[str, list[str]]]  # images -> augmentation -> runs
FIELDS = (
  *('run', 'images', 'minutes', 'accuracy', 'fd', 'excess', 'diversity', 'recall'),
  *('memorized', 'memorized_real'),
)


def newest(records: list[Record]) -> dict[str, Record]:
  """Run -> its record after the most images."""
  return {r['run']: r for r in sorted(records, key=lambda r: r['images'])}


def write_csv(records: list[Record], path: Path) -> None:
  """All records, those of a run in the order of its training."""
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS, extrasaction='ignore')
    writer.writeheader()
    writer.writerows(sorted(records, key=lambda r: (r['run'], r['images'])))


def table(records: list[Record], runs_by_images: Runs) -> str:
  """Markdown: the newest scores of the runs on few images, one row for each setting.

  `lowest` is the lowest excess of a run and the thousands of images seen by then.
  """
  found = newest(records)
  columns = (
    *(('excess', '.2f'), ('accuracy', '.1%'), ('diversity', '.0%')),
    *(('recall', '.0%'), ('memorized', '.0%'), ('memorized_real', '.0%')),
  )
  names = [key for key, _ in columns[1:]]
  head = ('images', 'augmentation', 'excess of FD', 'lowest', *names)
  lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
  for fraction, rows in runs_by_images.items():
    for name, runs in rows.items():
      scored = [found[run] for run in runs if run in found]
      cells = [[format(r[key], form) for r in scored] for key, form in columns]
      cells.insert(1, [_lowest(records, r['run']) for r in scored])
      texts = (', '.join(cell) or 'not yet measured' for cell in cells)
      lines.append(f'| {fraction} | {name} | {" | ".join(texts)} |')
  return '\n'.join(lines)


def _lowest(records: list[Record], run: str) -> str:
  best = min((r for r in records if r['run'] == run), key=lambda r: r['excess'])
  return f'{best["excess"]:.2f} at {best["images"] / 1000:.0f}'


def plain_log_scale(axis: plt.Axes) -> None:
  """Sets a logarithmic y axis whose ticks are plain numbers."""
  axis.set_yscale('log')
  axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axis.yaxis.set_major_formatter('{x:g}')
  axis.minorticks_off()


def draw_curves(records: list[Record], runs_by_images: Runs, path: Path) -> None:
  """The excess of the Fréchet distance while the runs train; one panel a fraction."""
  n = len(runs_by_images)
  figure, axes = plt.subplots(
    1, n, figsize=(2 + 2.4 * n, 3), sharey=True, squeeze=False
  )
  for axis, (fraction, rows) in zip(axes[0], runs_by_images.items(), strict=True):
    for color, (name, runs) in enumerate(rows.items()):
      for run in runs:
        points = sorted((r['images'], r['excess']) for r in records if r['run'] == run)
        x, y = np.array(points or [(np.nan, np.nan)]).T
        label = name if run == runs[0] else None
        axis.plot(x / 1000, y, marker='.', color=f'C{color}', label=label)
    axis.set_title(f'{fraction} of 60,000 images', fontsize=10)
    axis.set_xlabel('thousand images seen')
    plain_log_scale(axis)
  axes[0, 0].set_ylabel('FD above the floor')
  axes[0, 0].legend(frameon=False)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)


def draw_run(records: list[Record], real: Record, path: Path) -> None:
  """Three scores of one run while it trains; dashed: of real images."""
  records = sorted(records, key=lambda r: r['images'])
  figure, axes = plt.subplots(1, 3, figsize=(9, 3))
  titles = ('FD above the floor', 'accuracy', 'diversity')
  for axis, key, title in zip(
    axes, ('excess', 'accuracy', 'diversity'), titles, strict=True
  ):
    x = [r['images'] / 1000 for r in records]
    axis.plot(x, [r[key] for r in records], marker='.')
    if key in real:
      axis.axhline(real[key], color='gray', linestyle='--')
    axis.set_title(title, fontsize=10)
    axis.set_xlabel('thousand images seen')
  plain_log_scale(axes[0])
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)


def write_grid(images: np.ndarray, path: Path, columns: int = 16) -> None:
  """A row for each class of images whose classes are 0, 1, ..., 9, 0, 1, ..."""
  rows = [images[c::CLASSES][:columns] for c in range(CLASSES)]
  image_grid(np.concatenate(rows), columns).save(path, optimize=True)
