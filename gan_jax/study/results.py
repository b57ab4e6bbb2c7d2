"""What the runs of a study have recorded: scores, noise scales, collapses."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.results import SCORES_FILE
from gan_jax.evaluation.truncation_sweep import QUALITY_SCORES, Row, amenability
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.study.cells import SCORES, Cell, Progress, finite, read_progress
from gan_jax.study.fit import Arrivals, images_to_target
from gan_jax.training.noise_scale import METRICS as NOISE_METRICS

FRONTIER = 'frontier.csv'


@dataclasses.dataclass(frozen=True)
class Result:
  """What is known of the run of a cell.

  Attributes:
    scores: images -> value of the study's score.
    noise: lines with estimates of the gradient's signal and noise.
    collapsed_at: images at which the collapse monitor first spoke; None: it has not.
    images_per_s: median; None before it is measured.
    frontier: rows of its truncation sweep, of the EMA weights.
  """

  cell: Cell
  progress: Progress
  scores: dict[int, float]
  noise: list[dict[str, float]]
  collapsed_at: int | None
  images_per_s: float | None
  frontier: list[Row]

  @property
  def diverged(self) -> bool:
    """Whether training ended before its budget, for non-finite updates or collapse."""
    return self.progress.state == 'lost'

  @property
  def last_score(self) -> float | None:
    return self.scores[max(self.scores)] if self.scores else None


def read_result(cell: Cell, workdir: Path, score: str) -> Result:
  """Reads the files of a run, which may be absent or half written."""
  scores = {}
  for line in _lines(workdir / SCORES_FILE):
    # Keyed by images: a killed run may have computed a score twice.
    if line.get('metric') == score and (value := finite(line.get('value'))) is not None:
      scores[line['images']] = value
  noise, collapsed, rates = [], None, []
  for line in _lines(workdir / 'metrics.jsonl'):
    known = {n: x for n in NOISE_METRICS if (x := finite(line.get(n))) is not None}
    if known:
      noise.append({'images': line['images']} | known)
    if 'collapsed' in line and collapsed is None:
      collapsed = line['images']
    if rate := finite(line.get('images_per_s')):
      rates.append(rate)
  return Result(
    cell,
    read_progress(cell, workdir),
    dict(sorted(scores.items())),
    noise,
    collapsed,
    float(np.median(rates)) if rates else None,
    read_frontier(workdir),
  )


def _lines(path: Path) -> list[dict[str, Any]]:
  """The objects of a .jsonl file that have a number of images."""
  try:
    lines = read_json_lines(path)
  except OSError:
    return []
  return [line for line in lines if type(line.get('images')) is int]


def read_frontier(workdir: Path) -> list[Row]:
  """The rows of frontier.csv for the EMA weights, largest truncation value first."""
  try:
    with (workdir / FRONTIER).open(newline='') as file:
      lines = [line for line in csv.DictReader(file) if line.get('ema') == 'True']
    return [{k: float(v) for k, v in line.items() if k != 'ema'} for line in lines]
  except (OSError, ValueError, TypeError, csv.Error):
    return []


def truncation_of(row: Row) -> float:
  """The truncation value of a row, its first column."""
  return float(next(iter(row.values())))


def has_frontier(workdir: Path, truncations: Sequence[float]) -> bool:
  """Whether a run has been scored at these truncation values."""
  found = {truncation_of(row) for row in read_frontier(workdir)}
  return found == set(truncations)


def quality_of(rows: Sequence[Row]) -> str | None:
  """The score of quality in the rows of a sweep; None if there is none."""
  return next((name for name in QUALITY_SCORES if rows and name in rows[0]), None)


def amenable_share(rows: Sequence[Row]) -> float | None:
  """Share of the truncation steps that keep quality; None where it is not known."""
  try:
    return amenability(rows)
  except UserError:
    return None


def by_setting(results: Sequence[Result]) -> dict[str, list[Result]]:
  """Setting -> its results; the sections of the page."""
  found: dict[str, list[Result]] = {}
  for result in results:
    found.setdefault(result.cell.setting, []).append(result)
  return found


def by_rate(results: Sequence[Result]) -> dict[tuple[int, float], list[Result]]:
  """(batch, rate) -> the results of all seeds, sorted."""
  found: dict[tuple[int, float], list[Result]] = {}
  for result in results:
    found.setdefault((result.cell.batch, result.cell.rate), []).append(result)
  return dict(sorted(found.items()))


def arrivals(results: Sequence[Result], score: str, target: float) -> Arrivals:
  """(batch, rate) -> log of the images to a target of each seed; inf where it fails.

  Runs that still train and have not arrived do not count yet.
  """
  best = SCORES[score][1]
  logs: dict[tuple[int, float], list[float]] = {}
  for key, group in by_rate(results).items():
    for result in group:
      images = [*result.scores]
      found = images_to_target(images, [*result.scores.values()], target, best)
      if np.isfinite(found) or result.progress.state in ('finished', 'lost'):
        logs.setdefault(key, []).append(float(np.log(found)))
  return {key: np.array(values) for key, values in logs.items()}


def noise_scale(results: Sequence[Result], network: str, until: float) -> float | None:
  """Gradient noise scale in the second half of the way, in images.

  A ratio of means over all lines and seeds: |G|^2 of a single line is very noisy.

  Args:
    network: 'd' or 'g'.
    until: images at the end of the way.

  Returns:
    None where it was not measured, or where the mean signal is not positive.
  """
  parts: Mapping[str, list[float]] = {'noise': [], 'signal': []}
  for result in results:
    for line in result.noise:
      known = {f'{network}_noise', f'{network}_signal'} <= {*line}
      if known and until / 2 < line['images'] <= until:
        for part, values in parts.items():
          values.append(line[f'{network}_{part}'])
  if not parts['signal'] or np.mean(parts['signal']) <= 0:
    return None
  return float(np.mean(parts['noise']) / np.mean(parts['signal']))
