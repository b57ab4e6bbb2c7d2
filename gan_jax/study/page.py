"""The page of a study, report.html, and its tables as CSV files."""

import csv
import math
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.plan.stage_cost import Row
from gan_jax.report.html import PAGE, render_page
from gan_jax.storage.files import atomic_path
from gan_jax.study import charts, tables
from gan_jax.study.cells import Cell
from gan_jax.study.planning import read_plan
from gan_jax.study.results import Result, read_result
from gan_jax.study.spec import RULES, Study
from gan_jax.study.tables import Link, Table, TargetResult, csv_rows

TABLES = 'tables'  # folder of the CSV files
_SCRIPT = Path(__file__).parent / 'static' / 'study.js'
_EXPONENTS = {'constant': 0.0, 'sqrt': 0.5, 'linear': 1.0}


def write_page(study: Study, cells: Sequence[Cell]) -> Path:
  """Writes report.html and the CSV files of a study; returns the page's path.

  Raises:
    UserError: they cannot be written.
  """
  folder, spec = study.folder, study.spec
  results = [read_result(cell, cell.workdir(folder), spec.score) for cell in cells]
  plan = read_plan(folder)
  analysed = tables.analyse(spec, results)
  sections = make_sections(study, cells, results, plan, analysed)
  data = {
    'title': study.title,
    'facts': facts(study, results),
    'done': sum(r.progress.state in ('finished', 'lost') for r in results)
    / len(results),
    'answers': answers(study, cells, results, sections, analysed),
    'sections': [section_data(*section) for section in sections],
  }
  path = folder / PAGE
  try:
    write_tables(folder / TABLES, sections)
    command = f'python -m gan_jax.study report --study={folder}'
    text = render_page(study.title, data, command, _SCRIPT)
    with atomic_path(path) as part:
      part.write_text(text, encoding='utf-8')
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}.') from error
  return path


Section = tuple[str, list[charts.Chart], list[Table]]


def make_sections(
  study: Study,
  cells: Sequence[Cell],
  results: Sequence[Result],
  plan: Sequence[Row],
  analysed: Sequence[TargetResult],
) -> list[Section]:
  """Title, charts and tables of each section of the page."""
  spec = study.spec
  times = tables.time_table(spec, cells, plan, analysed)
  fits = tables.fit_table(spec, cells, analysed)
  return [
    (
      'Batch',
      [
        *charts.batch_charts(spec, cells, analysed),
        *(charts.noise_chart(results, net) for net in tables.NETWORKS),
      ],
      [tables.batch_table(spec, cells, analysed), fits],
    ),
    (
      'Learning rate',
      charts.rate_charts(spec, cells, results, analysed),
      [tables.rate_table(spec, cells, results, analysed)],
    ),
    ('Time and cost', [charts.cost_chart(times.rows)], [times]),
    (
      'Scores',
      [charts.score_chart(spec, results, analysed)],
      [tables.setting_table(spec, results)],
    ),
    ('Reliability', [], [tables.outcome_table(results)]),
    (
      'Truncation',
      charts.frontier_charts(results),
      [tables.frontier_table(results), tables.sweep_table(results)],
    ),
    ('Plan', [], [tables.plan_table(cells, plan)]),
    ('Cells', [], [tables.cell_table(spec, results)]),
  ]


def facts(study: Study, results: Sequence[Result]) -> list[tuple[str, str]]:
  """Name and value of what the study is, and how far."""
  spec, states = study.spec, Counter(r.progress.state for r in results)
  model, data = study.base['model'], study.base['data']
  targets = ', '.join(f'{t:g}' for t in spec.targets) or 'none'
  batches = sorted({r.cell.batch for r in results})
  progress = ', '.join(f'{n} {state}' for state, n in states.items())
  return [
    ('Config', spec.config or f'{model["family"]}, {model["res"]} pixels'),
    ('Data', str(data['name'])),
    ('Batches', ', '.join(map(str, batches))),
    ('Seeds', str(len(spec.seeds))),
    ('Images of a run', f'{results[0].cell.config.train.images:,}'),
    ('Score', f'{spec.score}; targets {targets}'),
    ('Cells', f'{len(results)}: {progress}'),
  ]


def answers(
  study: Study,
  cells: Sequence[Cell],
  results: Sequence[Result],
  sections: Sequence[Section],
  analysed: Sequence[TargetResult],
) -> list[str]:
  """Sentences: which batch, which learning rate, which topology, and what is lost."""
  spec = study.spec
  by_name = {table.name: table for _, _, found in sections for table in found}
  sentences = []
  missing = sum(r.progress.state in ('waiting', 'started') for r in results)
  if missing:
    sentences.append(f'{missing} of {len(results)} cells have not finished yet.')
  if not spec.targets:
    sentences.append('No target is set, so batches are compared by their last scores.')
  for found in _hardest(analysed):
    where = f'{found.setting}: ' if found.setting else ''
    goal = f'{where}{spec.score} {found.target:g}'
    sentences += _about_batch(goal, found)
    sentences += _about_rates(goal, found)
    sentences += _about_cost(goal, found, by_name['times'])
  reached = {(found.setting, found.target) for found in analysed if found.fit.best}
  for setting, target in [(f.setting, f.target) for f in analysed]:
    if (setting, target) not in reached:
      where = f'{setting}: ' if setting else ''
      sentences.append(f'{where}no batch reaches {spec.score} {target:g} yet.')
  sentences += _about_settings(spec.score, by_name['settings'])
  begun = [r for r in results if r.progress.state in ('finished', 'lost')]
  lost = sum(r.diverged for r in begun)
  collapsed = sum(r.collapsed_at is not None for r in begun)
  if begun:
    sentences.append(
      f'Of {len(begun)} runs that ended, {lost} diverged, and the collapse monitor '
      f'spoke in {collapsed}.'
    )
  return sentences


def _hardest(analysed: Sequence[TargetResult]) -> list[TargetResult]:
  """Of each setting, the hardest target that most batches reach."""
  chosen: dict[str, TargetResult] = {}
  for found in analysed:
    known = chosen.get(found.setting)
    if not known or len(found.fit.best) >= len(known.fit.best):
      chosen[found.setting] = found
  return [found for found in chosen.values() if found.fit.best]


def _about_batch(goal: str, found: TargetResult) -> list[str]:
  best, fit = found.fit.best, found.fit.fit
  fewest = min(best, key=lambda b: best[b].images)
  ratio = best[max(best)].images / best[fewest].images
  sentences = [
    f'{goal}: batch {fewest} needs the fewest images, {best[fewest].images:,.0f}; '
    f'batch {max(best)} needs {ratio:.2g} times as many.'
  ]
  if late := found.fit.late:
    sentences.append(
      f'{goal}: at batch {", ".join(map(str, late))} no learning rate gets there with '
      'all seeds. The fit leaves that out, so the critical batch may be smaller.'
    )
  if not fit:
    return sentences
  ends = found.fit.critical_batch
  interval = (
    '' if math.isnan(ends.low) else f' (95%: {ends.low:.3g} to {ends.high:.3g})'
  )
  if not found.fit.bends:
    sentences.append(f'{goal}: the batches show no bend, so no critical batch.')
    return sentences
  sentences.append(
    f'{goal}: the critical batch is {fit.critical_batch:.3g}{interval}: far below it a '
    'larger batch saves steps at no cost, far above it only images are spent.'
  )
  for net in tables.NETWORKS:
    measured = [x for x in found.noise[net].values() if x is not None and x > 0]
    if measured:
      mean = float(np.exp(np.mean(np.log(measured))))
      ratio = mean / fit.critical_batch
      verdict = 'within' if 0.5 <= ratio <= 2 else 'not within'
      sentences.append(
        f'{goal}: the gradient noise scale of {net.upper()} is {mean:.3g} on average, '
        f'{ratio:.2g} times the critical batch: {verdict} a factor of two.'
      )
  return sentences


def _about_rates(goal: str, found: TargetResult) -> list[str]:
  exponent = tables.rate_exponent(found.fit)
  tried = {way.rate for way in found.fit.best.values()}
  if exponent is None or len(tried) < 2 and exponent != 0:
    return []
  rule = min(RULES, key=lambda name: abs(_EXPONENTS[name] - exponent))
  edge = [str(b) for b, way in found.fit.best.items() if way.edge]
  caveat = f'; at batch {", ".join(edge)} the best is the last that was tried' * bool(
    edge
  )
  return [
    f'{goal}: the best learning rates grow as the batch to the power of '
    f'{round(exponent, 2) or 0:.2g}, closest to the rule {rule}{caveat}.'
  ]


def _about_cost(goal: str, found: TargetResult, times: Table) -> list[str]:
  rows = [row for row in times.rows if row[:2] == [found.setting, found.target]]
  if not rows:
    return []
  fastest, cheapest = min(rows, key=lambda r: r[7]), min(rows, key=lambda r: r[9])
  describe = lambda r: (
    f'batch {r[2]} on {r[3]} ({r[7]:.3g} h, {r[9]:.3g} chip-hours as planned)'
  )
  return [f'{goal}: fastest is {describe(fastest)}; cheapest is {describe(cheapest)}.']


def _about_settings(score: str, compared: Table) -> list[str]:
  sentences = []
  for setting, first, pairs, *_, difference, low, high in compared.rows:
    text = f'{setting} against {first}: {score} {difference:+.3g} on average'
    if low is None:
      text += ' in one pair of runs.'
    else:
      verdict = 'no difference is shown' if low <= 0 <= high else 'they differ'
      text += (
        f' over {pairs} pairs of runs (95%: {low:+.3g} to {high:+.3g}): {verdict}.'
      )
    sentences.append(text)
  return sentences


def section_data(
  title: str, drawn: Sequence[charts.Chart], shown: Sequence[Table]
) -> dict[str, Any]:
  """A section as JSON, without empty charts and tables."""
  return {
    'title': title,
    'charts': [charts.chart_data(chart) for chart in drawn if chart.series],
    'tables': [
      {
        'name': table.name,
        'title': table.title,
        'note': table.note,
        'heads': table.heads,
        'rows': [[_shown(value) for value in row] for row in table.rows],
      }
      for table in shown
      if table.rows
    ],
  }


def _shown(value: Any) -> Any:
  """A value of a table as JSON: a link is an object, no number is not finite."""
  if isinstance(value, Link):
    return {'text': value.text, 'href': urllib.parse.quote(value.href)}
  if isinstance(value, float):
    return float(f'{value:.5g}') if math.isfinite(value) else None
  return value


def write_tables(folder: Path, sections: Sequence[Section]) -> None:
  """Writes each table that has rows as NAME.csv, and removes those without.

  Raises:
    OSError: they cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for _, _, found in sections:
    for table in found:
      path = folder / f'{table.name}.csv'
      if not table.rows:
        path.unlink(missing_ok=True)
        continue
      with atomic_path(path) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, table.heads, lineterminator='\n')
        writer.writeheader()
        writer.writerows(csv_rows(table))
