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


def table(records: list[Record], fractions: list[str], names: list[str]) -> str:
  """Markdown: the newest scores of the runs on few images, one row for each setting."""
  found = newest(records)
  columns = (
    *(('excess', '.2f'), ('accuracy', '.1%'), ('diversity', '.0%')),
    *(('recall', '.0%'), ('memorized', '.0%'), ('memorized_real', '.0%')),
  )
  head = ('images', 'augmentation', 'excess of FD', *(key for key, _ in columns[1:]))
  lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
  for fraction in fractions:
    for name in names:
      prefix = f'{fraction.removesuffix("%")}-{name}-'
      runs = [r for run, r in sorted(found.items()) if run.startswith(prefix)]
      cells = [
        ', '.join(format(r[key], form) for r in runs) or 'not yet measured'
        for key, form in columns
      ]
      lines.append(f'| {fraction} | {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def plain_log_scale(axis: plt.Axes) -> None:
  """Sets a logarithmic y axis whose ticks are plain numbers."""
  axis.set_yscale('log')
  axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axis.yaxis.set_major_formatter('{x:g}')
  axis.minorticks_off()


def draw_curves(
  records: list[Record], fractions: list[str], names: list[str], path: Path
) -> None:
  """The excess of the Fréchet distance while the runs train; one panel a fraction."""
  figure, axes = plt.subplots(
    1, len(fractions), figsize=(9, 3), sharey=True, squeeze=False
  )
  for axis, fraction in zip(axes[0], fractions, strict=True):
    for color, name in enumerate(names):
      prefix = f'{fraction.removesuffix("%")}-{name}-'
      for run in sorted({r['run'] for r in records if r['run'].startswith(prefix)}):
        points = sorted((r['images'], r['excess']) for r in records if r['run'] == run)
        x, y = np.array(points).T
        label = name if run.endswith('-0') else None
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
