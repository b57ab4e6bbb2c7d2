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
  lines = ['| images | augmentation | excess of FD | accuracy | diversity | recall |']
  lines.append('|---|---|---|---|---|---|')
  for fraction in fractions:
    for name in names:
      prefix = f'{fraction.removesuffix("%")}-{name}-'
      runs = [r for run, r in sorted(found.items()) if run.startswith(prefix)]
      columns = (('excess', '.2f'), ('accuracy', '.1%'), ('diversity', '.0%'))
      cells = [
        ', '.join(format(r[key], form) for r in runs) or 'not yet measured'
        for key, form in (*columns, ('recall', '.0%'))
      ]
      lines.append(f'| {fraction} | {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


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
    axis.set_ylim(bottom=0)
  axes[0, 0].set_ylabel('FD above the floor')
  axes[0, 0].legend(frameon=False)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)


def write_grid(images: np.ndarray, path: Path, columns: int = 16) -> None:
  """A row for each class of images whose classes are 0, 1, ..., 9, 0, 1, ..."""
  rows = [images[c::CLASSES][:columns] for c in range(CLASSES)]
  image_grid(np.concatenate(rows), columns).save(path, optimize=True)
