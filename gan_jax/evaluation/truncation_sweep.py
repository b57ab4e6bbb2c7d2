"""Scores at several truncation values: the trade-off between quality and variety."""

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.models.base import Variables
from gan_jax.storage.files import atomic_path
from gan_jax.storage.json_lines import append_json_lines

# Scores of quality alone, the first one present counts: higher is better.
QUALITY_SCORES = ('is', 'precision', 'precision_small')
# Pairs of scores to plot (variety or distance, quality), the first one present.
PLOT_AXES = (
  ('is', 'fid'),
  ('recall', 'precision'),
  ('recall_small', 'precision_small'),
)

Row = dict[str, Any]  # the truncation value, `ema`, and scores by name


def sweep_truncation(
  evaluator: Evaluator,
  generators: Mapping[bool, Variables],
  values: Sequence[float],
) -> list[dict[str, Any]]:
  """Scores generators at every truncation value, largest first.

  The value is psi for families that truncate w; for the others it is the threshold of
  z, with batch statistics computed for each threshold. The sampler compiles once.

  Args:
    generators: EMA weights under True, raw weights under False.

  Returns:
    The records of `Evaluator.evaluate`, preceded by the truncation value and `ema`.
  """
  setting = 'psi' if evaluator.gan.truncation_space == 'w' else 'truncation'
  return [
    {setting: value, 'ema': ema, **record}
    for ema, g in generators.items()
    for value in sorted(values, reverse=True)
    for record in evaluator.evaluate(g, ema=ema, **{setting: value})
  ]


def sweep_table(records: Sequence[dict[str, Any]]) -> list[Row]:
  """One row per truncation value and generator from the records of a sweep."""
  rows: dict[tuple[bool, float], Row] = {}
  for record in records:
    setting = next(iter(record))
    ema, value = record['ema'], record[setting]
    row = rows.setdefault((ema, value), {setting: value, 'ema': ema})
    row[record['metric']] = record['value']
  return list(rows.values())


def amenability(rows: Sequence[Row], tolerance: float = 0.01) -> float:
  """Share of a generator's truncation steps that keep quality, in [0, 1].

  BigGAN (Brock et al. 2019, section 3.1) calls a generator amenable to truncation if a
  smaller threshold trades variety for quality instead of causing artifacts; it gives no
  formula. Here, quality is the inception score or else precision, and a step to the
  next smaller value keeps it if it loses at most `tolerance` of it. A generator is
  amenable if the result is 1.

  Args:
    rows: of `sweep_table`, of one generator, largest truncation value first.

  Raises:
    UserError: fewer than two truncation values, or no score of quality.
  """
  score = next((name for name in QUALITY_SCORES if rows and name in rows[0]), None)
  if score is None or len(rows) < 2:
    raise UserError(
      'amenability to truncation needs two thresholds and is, prdc or prdc_small.'
    )
  quality = [row[score] for row in rows]
  kept = [
    after >= before * (1 - tolerance)
    for before, after in zip(quality[:-1], quality[1:], strict=True)
  ]
  return float(np.mean(kept))


def plot_frontier(rows: Sequence[Row], path: Path) -> None:
  """Plots one score against another as a PNG file, one line per generator.

  Raises:
    UserError: matplotlib is not installed, or no pair of PLOT_AXES is in the rows.
  """
  require_matplotlib()
  from matplotlib.figure import Figure

  axes_scores = next((p for p in PLOT_AXES if all(x in rows[0] for x in p)), None)
  if axes_scores is None:
    raise UserError('the frontier plot needs fid and is, or prdc, or prdc_small.')
  figure = Figure(figsize=(5, 4), layout='constrained')
  axes = figure.subplots()
  for ema in sorted({row['ema'] for row in rows}, reverse=True):
    line = [row for row in rows if row['ema'] == ema]
    x, y = ([row[name] for row in line] for name in axes_scores)
    axes.plot(x, y, 'o-' if ema else 's--', label='EMA' if ema else 'raw weights')
    for row, x_row, y_row in zip(line, x, y, strict=True):
      value = next(iter(row.values()))
      axes.annotate(f'{value:g}', (x_row, y_row), fontsize=8)
  axes.set_xlabel(axes_scores[0])
  axes.set_ylabel(axes_scores[1])
  axes.legend()
  with atomic_path(path) as part:
    figure.savefig(part, dpi=120)


def require_matplotlib() -> None:
  """Raises a UserError if matplotlib is not installed."""
  if importlib.util.find_spec('matplotlib') is None:
    raise UserError(
      "--frontier draws a plot and needs matplotlib: pip install 'gan_jax[plots]'."
    )


def write_sweep(records: Sequence[dict[str, Any]], path: Path) -> None:
  """Writes a sweep as `path`.jsonl (records), .csv (table) and .png (plot).

  Raises:
    UserError: as `plot_frontier`; the other two files are written nevertheless.
  """
  with atomic_path(path.with_suffix('.jsonl')) as part:
    append_json_lines(part, records)
  rows = sweep_table(records)
  with atomic_path(path.with_suffix('.csv')) as part, part.open('w', newline='') as f:
    writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  plot_frontier(rows, path.with_suffix('.png'))
