"""Truncation, from wide to narrow: what it costs in variety and brings in quality."""

import csv
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.models.base import Variables
from gan_jax.storage.files import atomic_path


def sweep(
  evaluator: Evaluator, generators: dict[bool, Variables], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
  """Every score at every threshold, widest first, by one compiled sampler.

  A threshold truncates z, with batch statistics of its own; in a StyleGAN it is psi.

  Args:
    generators: the averaged variables under True, the raw ones under False.

  Returns:
    The evaluator's lines, protocol and all, with the threshold and `ema` in front.
  """
  name = 'psi' if evaluator.gan.truncation_space == 'w' else 'truncation'
  return [
    {name: t, 'ema': ema, **line}
    for ema, g in generators.items()
    for t in sorted(thresholds, reverse=True)
    for line in evaluator.lines(g, ema=ema, **{name: t})
  ]


def table(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The lines of `sweep` as rows, one for each threshold and generator."""
  rows: dict[tuple[Any, Any], dict[str, Any]] = {}
  for line in lines:
    name = next(iter(line))
    place = {name: line[name], 'ema': line['ema']}
    row = rows.setdefault((line['ema'], line[name]), place)
    row[line['metric']] = line['value']
  return list(rows.values())


QUALITY = ('is', 'precision', 'precision_small')


def amenable(rows: Sequence[dict[str, Any]], tolerance: float = 0.01) -> float:
  """Share of the narrowing steps of one generator that did not cost quality.

  BigGAN (section 3.1) calls a generator amenable to truncation when narrowing trades
  variety for quality instead of breaking its pictures, and gives no formula. Here
  quality is the Inception score or, without one, precision; a step costs quality when
  it loses more than `tolerance` of it. 1 is amenable.

  Args:
    rows: of `table`, widest first, all with or all without the moving average.

  Raises:
    UserError: fewer than two thresholds, or no such score.
  """
  name = next((q for q in QUALITY if rows and q in rows[0]), None)
  if name is None or len(rows) < 2:
    raise UserError(
      'amenability to truncation needs two thresholds and is, prdc or prdc_small.'
    )
  values = [row[name] for row in rows]
  kept = [
    after >= before * (1 - tolerance)
    for before, after in zip(values[:-1], values[1:], strict=True)
  ]
  return float(np.mean(kept))


AXES = (('is', 'fid'), ('recall', 'precision'), ('recall_small', 'precision_small'))


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
  """The frontier as a picture: one score against another, a line for each generator.

  Raises:
    UserError: matplotlib is not there, or no two scores that belong together.
  """
  require_matplotlib()
  from matplotlib.figure import Figure

  pair = next((p for p in AXES if all(name in rows[0] for name in p)), None)
  if pair is None:
    raise UserError('a frontier is drawn of fid and is, of prdc or of prdc_small.')
  figure = Figure(figsize=(5, 4), layout='constrained')
  axes = figure.subplots()
  for ema in sorted({row['ema'] for row in rows}, reverse=True):
    line = [row for row in rows if row['ema'] == ema]
    x, y = ([row[name] for row in line] for name in pair)
    axes.plot(x, y, 'o-' if ema else 's--', label='average' if ema else 'raw weights')
    for row in line:
      threshold = next(iter(row.values()))
      axes.annotate(f'{threshold:g}', (row[pair[0]], row[pair[1]]), fontsize=8)
  axes.set_xlabel(pair[0])
  axes.set_ylabel(pair[1])
  axes.legend()
  with atomic_path(path) as part:
    figure.savefig(part, dpi=120)


def require_matplotlib() -> None:
  """Raises a UserError where the picture could not be drawn."""
  if importlib.util.find_spec('matplotlib') is None:
    raise UserError(
      "--frontier draws a picture and needs a package: pip install 'gan_jax[plots]'."
    )


def write(lines: Sequence[dict[str, Any]], path: Path) -> None:
  """The lines of `sweep` as `path`.jsonl, .csv and .png.

  Raises:
    UserError: as `plot`; what can be written, is.
  """
  with atomic_path(path.with_suffix('.jsonl')) as part:
    part.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  rows = table(lines)
  with atomic_path(path.with_suffix('.csv')) as part, part.open('w', newline='') as f:
    writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  plot(rows, path.with_suffix('.png'))
