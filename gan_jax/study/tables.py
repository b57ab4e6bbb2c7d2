"""The tables of a study: rows for the page and for CSV files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gan_jax.plan.stage_cost import Row
from gan_jax.study.cells import CELLS, Cell, as_settings
from gan_jax.study.fit import (
  TargetFit,
  fit_target,
  mean_interval,
  pareto,
  rate_interval,
)
from gan_jax.study.planning import planned_hours
from gan_jax.study.results import (
  Result,
  amenable_share,
  arrivals,
  by_rate,
  by_setting,
  noise_scale,
  quality_of,
  truncation_of,
)
from gan_jax.study.spec import RULES, StudySpec

NETWORKS = ('d', 'g')


class Link(NamedTuple):
  """Text of a table that leads to a file."""

  text: str
  href: str  # relative to the page


class Table(NamedTuple):
  """A table; its values are text, numbers, bools, links, or None where unknown."""

  name: str  # of its CSV file
  title: str
  heads: tuple[str, ...]
  rows: list[list[Any]]
  note: str = ''


class TargetResult(NamedTuple):
  """One setting on its way to one target."""

  setting: str
  target: float
  fit: TargetFit
  noise: dict[str, dict[int, float | None]]  # network -> batch -> noise scale


def analyse(spec: StudySpec, results: Sequence[Result]) -> list[TargetResult]:
  """Every setting and target, the easiest target first."""
  found = []
  for setting, group in by_setting(results).items():
    rates = by_rate(group)
    for target in spec.targets:
      fit = fit_target(arrivals(group, spec.score, target))
      noise = {
        net: {
          b: noise_scale(rates[b, way.rate], net, way.images)
          for b, way in fit.best.items()
        }
        for net in NETWORKS
      }
      found.append(TargetResult(setting, target, fit, noise))
  return found


def d_steps_of(cells: Sequence[Cell]) -> dict[str, int]:
  """Setting -> D steps per iteration."""
  return {cell.setting: cell.config.train.d_steps for cell in cells}


def batch_table(
  spec: StudySpec, cells: Sequence[Cell], analysed: Sequence[TargetResult]
) -> Table:
  """Images and steps to each target by batch, at its best learning rates."""
  d_steps, rows = d_steps_of(cells), []
  for setting, target, fit, noise in analysed:
    for batch, way in fit.best.items():
      steps = batch * d_steps[setting]
      rows.append(
        [
          *(setting, target, batch, way.rate, way.edge),
          *(round(way.images), *_ends(fit.images[batch])),
          *(round(way.images / steps), noise['d'][batch], noise['g'][batch]),
        ]
      )
  heads = (
    *('setting', spec.score, 'batch', 'best rate', 'rate at the edge'),
    *('images', 'images low', 'images high', 'steps', 'D noise scale', 'G noise scale'),
  )
  note = (
    'Images and steps (iterations) until the score is at the target, geometric mean '
    'over the seeds, at the learning rates that get there first; low and high: 95%. '
    'A rate is a multiple of the learning rates of the config. At the edge: the best '
    'rate is the first or last that was tried, and others may be better.'
  )
  return Table('batches', 'To the target, by batch', heads, rows, note)


def fit_table(
  spec: StudySpec, cells: Sequence[Cell], analysed: Sequence[TargetResult]
) -> Table:
  """The fit of each setting and target, beside the measured noise scale."""
  d_steps, rows = d_steps_of(cells), []
  for setting, target, found, noise in analysed:
    if not found.fit:
      continue
    critical, images_min = found.fit.critical_batch, found.fit.images_min
    row: list[Any] = [setting, target, round(images_min), *_ends(found.images_min)]
    row.append(round(images_min / critical / d_steps[setting]))
    row += [critical, *_ends(found.critical_batch), found.bends]
    for net in NETWORKS:
      measured = [x for x in noise[net].values() if x is not None and x > 0]
      row += [min(measured), max(measured)] if measured else [None, None]
      row.append(
        float(np.exp(np.mean(np.log(measured)))) / critical if measured else None
      )
    rows.append(row)
  heads = (
    *('setting', spec.score, 'fewest images', 'images low', 'images high'),
    *('fewest steps', 'critical batch', 'critical low', 'critical high', 'bend seen'),
    *('D noise least', 'D noise most', 'D noise / critical'),
    *('G noise least', 'G noise most', 'G noise / critical'),
  )
  note = (
    'McCandlish et al. 2018: (S / S_min - 1) (E / E_min - 1) = 1, the critical batch '
    'is E_min / S_min. Low and high: 95% of a bootstrap over the seeds. Noise scales '
    'are of the second half of the way, of all batches; their mean over the critical '
    'batch says whether one tells the other. No bend: all batches are on one side.'
  )
  return Table('fits', 'Critical batch and noise scale', heads, rows, note)


def rate_table(
  spec: StudySpec,
  cells: Sequence[Cell],
  results: Sequence[Result],
  analysed: Sequence[TargetResult],
) -> Table:
  """Best learning rates by batch, beside those of the rules."""
  groups, rows = by_setting(results), []
  config_batch = {cell.setting: cell.config_batch for cell in cells}
  for setting, target, fit, _ in analysed:
    logs = arrivals(groups[setting], spec.score, target)
    for batch, way in fit.best.items():
      row: list[Any] = [setting, target, batch, way.rate]
      for rule in RULES.values():
        rate = float(f'{rule(batch / config_batch[setting]):.6g}')
        tried = logs.get((batch, rate))
        more = None
        if tried is not None and np.isfinite(tried).all():
          more = float(np.exp(tried.mean())) / way.images
        row += [rate, more]
      rows.append(row)
  heads = ['setting', spec.score, 'batch', 'best rate']
  for name in RULES:
    heads += [f'{name} rule', f'{name}: images / best']
  note = (
    'A rule starts from the learning rates of the config at its batch. Beside it: the '
    'images that its rate needs, as a multiple of those of the best one; empty where '
    'it was not tried or does not arrive.'
  )
  return Table('rates', 'Learning rates by batch', tuple(heads), rows, note)


def rate_exponent(fit: TargetFit) -> float | None:
  """Slope of the best rate over the batch in logarithms: 0 constant, 0.5, 1 linear."""
  if len(fit.best) < 2:
    return None
  x = np.log([*fit.best])
  y = np.log([way.rate for way in fit.best.values()])
  return float(np.polyfit(x, y, 1)[0])


def time_table(
  spec: StudySpec,
  cells: Sequence[Cell],
  plan: Sequence[Row],
  analysed: Sequence[TargetResult],
) -> Table:
  """Time to each target and its cost, by topology."""
  by_key, rows = as_settings(cells), []
  for setting, target, fit, _ in analysed:
    own = []
    for row in plan:
      key = row['setting'], row['batch']
      if row['setting'] != setting or row['batch'] not in fit.best or key not in by_key:
        continue
      config = by_key[key].config
      images = round(fit.best[row['batch']].images)
      hours = planned_hours(config, row, images)
      if row['fits'] and hours:
        steps = round(images / row['batch'] / config.train.d_steps)
        own.append(
          [
            *(setting, target, row['batch'], row['topology'], row['chips'], steps),
            *(1e3 * row['step_s'], hours['hours'], hours['slowest_hours']),
            hours['chip_hours'],
          ]
        )
    best = pareto([(line[7], line[9]) for line in own])
    rows += [[*line, good] for line, good in zip(own, best, strict=True)]
  heads = (
    *('setting', spec.score, 'batch', 'topology', 'chips', 'steps', 'step ms'),
    *('hours', 'hours, no overlap', 'chip-hours', 'Pareto'),
  )
  note = (
    'Steps to the target as measured, times the planned time of a step. No overlap: '
    'collectives overlap with nothing; the truth lies in between where the estimates '
    'hold. Pareto: nothing is faster without costing more chip-hours.'
  )
  return Table('times', 'Time and cost to the target, by topology', heads, rows, note)


def plan_table(cells: Sequence[Cell], plan: Sequence[Row]) -> Table:
  """Every setting and batch on every topology."""
  rows = []
  known = as_settings(cells)
  for row in plan:
    if (row['setting'], row['batch']) not in known:
      continue
    why = row.get('error') or row.get('advice', '')
    share = None
    if row.get('slowest_s'):
      share = row['collectives_s'] / row['slowest_s']
    rows.append(
      [
        *(row['setting'], row['batch'], row['topology'], row['chips'], row['fits']),
        *(_scaled(row.get('hbm_bytes'), 1e-9), _scaled(row.get('step_s'), 1e3)),
        *(row.get('images_per_s'), share, row.get('mfu'), row.get('hours')),
        *(row.get('slowest_hours'), row.get('chip_hours'), why),
      ]
    )
  heads = (
    *('setting', 'batch', 'topology', 'chips', 'fits', 'HBM GB', 'step ms'),
    *('images/s', "collectives' share", 'MFU', 'hours', 'hours, no overlap'),
    *('chip-hours', 'why not'),
  )
  note = 'Predictions of the planner for the whole budget; nothing of it was measured.'
  return Table('plan', 'Plan', heads, rows, note)


def outcome_table(results: Sequence[Result]) -> Table:
  """How often runs diverge or collapse, by batch and rate."""
  rows = []
  for setting, group in by_setting(results).items():
    for (batch, rate), runs in by_rate(group).items():
      begun = [r for r in runs if r.progress.state in ('finished', 'lost')]
      lost = sum(r.diverged for r in begun)
      collapsed = sum(r.collapsed_at is not None for r in begun)
      bad = sum(r.diverged or r.collapsed_at is not None for r in begun)
      interval = _ends(rate_interval(bad, len(begun)))
      share = bad / len(begun) if begun else None
      scores = [r.last_score for r in begun if r.last_score is not None]
      mean = float(np.mean(scores)) if scores else None
      rows.append(
        [setting, batch, rate, len(begun), lost, collapsed, share, *interval, mean]
      )
  heads = (
    *('setting', 'batch', 'rate', 'runs', 'diverged', 'collapsed', 'share'),
    *('share low', 'share high', 'last score, mean'),
  )
  note = (
    'Diverged: the run was stopped, for non-finite updates or a collapse. Collapsed: '
    'the collapse monitor spoke. Low and high: 95% (Wilson).'
  )
  return Table('outcomes', 'Collapse and divergence', heads, rows, note)


def setting_table(spec: StudySpec, results: Sequence[Result]) -> Table:
  """Last scores of each setting against the first one, where there are several."""
  scores = {
    setting: {
      (r.cell.batch, r.cell.rate, r.cell.seed): r.last_score
      for r in group
      if r.progress.state == 'finished' and r.last_score is not None
    }
    for setting, group in by_setting(results).items()
  }
  (first, base), *others = scores.items()
  rows = []
  for setting, found in others:
    both = [key for key in base if key in found]
    if not both:
      continue
    differences = [found[key] - base[key] for key in both]
    means = [float(np.mean([x[key] for key in both])) for x in (base, found)]
    interval = _ends(mean_interval(differences))
    rows.append(
      [setting, first, len(both), means[1], means[0], means[1] - means[0], *interval]
    )
  heads = (
    *('setting', 'against', 'pairs', spec.score, f'{spec.score} against'),
    *('difference', 'difference low', 'difference high'),
  )
  note = (
    'Means of the last scores of finished runs, in pairs of the same batch, rate and '
    "seed. Low and high: 95% of the mean difference (Student's t)."
  )
  return Table('settings', 'Settings compared', heads, rows, note)


def frontier_table(results: Sequence[Result]) -> Table:
  """Amenability to truncation by setting and batch; no rows where it was not asked."""
  rows = []
  for setting, group in by_setting(results).items():
    for batch in sorted({r.cell.batch for r in group}):
      scored = [r for r in group if r.cell.batch == batch and r.frontier]
      shares = [s for r in scored if (s := amenable_share(r.frontier)) is not None]
      if not shares:
        continue
      whole = sum(share == 1 for share in shares)
      rate = whole / len(shares)
      interval = _ends(rate_interval(whole, len(shares)))
      rows.append(
        [setting, batch, len(shares), whole, rate, *interval, float(np.mean(shares))]
      )
  heads = (
    *('setting', 'batch', 'runs', 'amenable', 'rate', 'rate low', 'rate high'),
    'mean share of steps that keep quality',
  )
  note = (
    'A run is amenable to truncation if no step to a smaller truncation value loses '
    'more than 1% of quality (inception score, else precision). EMA weights.'
  )
  return Table('truncation', 'Amenable to truncation', heads, rows, note)


def sweep_rows(results: Sequence[Result]) -> Iterator[tuple[Result, float, Row]]:
  """(result, truncation value, scores) of all sweeps."""
  for result in results:
    for row in result.frontier:
      yield result, truncation_of(row), row


def sweep_table(results: Sequence[Result]) -> Table:
  """The scores of every run at every truncation value."""
  names: dict[str, None] = {}
  for _, _, row in sweep_rows(results):
    names |= dict.fromkeys([*row][1:])
  rows = [
    [result.cell.name, value, *(row.get(name) for name in names)]
    for result, value, row in sweep_rows(results)
  ]
  heads = ('cell', 'truncation', *names)
  return Table('frontier', 'Scores by truncation', heads, rows)


def cell_table(spec: StudySpec, results: Sequence[Result]) -> Table:
  """Every cell, with a link to the report of its run."""
  rows: list[list[Any]] = []
  for result in results:
    cell, progress = result.cell, result.progress
    name: Any = cell.name
    if progress.state != 'waiting':
      name = Link(cell.name, f'{CELLS}/{cell.name}/report.html')
    rows.append(
      [
        *(cell.index, name, progress.state, cell.setting, cell.batch, cell.rate),
        *(cell.seed, max([*result.scores, progress.images]), result.last_score),
        *(result.images_per_s, result.collapsed_at, progress.ended),
      ]
    )
  heads = (
    *('index', 'cell', 'state', 'setting', 'batch', 'rate', 'seed', 'images'),
    *(spec.score, 'images/s', 'collapsed at', 'why lost'),
  )
  return Table('cells', 'Cells', heads, rows)


def quality_name(results: Sequence[Result]) -> str | None:
  """The score of quality of the sweeps."""
  return next((q for r in results if (q := quality_of(r.frontier))), None)


def _ends(interval: Sequence[float]) -> list[float | None]:
  return [None if math.isnan(x) else float(x) for x in interval]


def _scaled(value: Any, factor: float) -> float | None:
  return None if value is None else value * factor


def csv_rows(table: Table) -> list[Mapping[str, Any]]:
  """The rows as a CSV file holds them."""

  def plain(value: Any) -> Any:
    if isinstance(value, Link):
      return value.text
    if isinstance(value, float):
      return f'{value:.6g}'
    return '' if value is None else value

  return [dict(zip(table.heads, map(plain, row), strict=True)) for row in table.rows]
