"""Plans the cells of a study: each on each topology, through the planner."""

import dataclasses
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax import UserError
from gan_jax.config import Config, Stage, parse_config
from gan_jax.plan.chips import check_topology, topology_mesh
from gan_jax.plan.stage_cost import Row, run_seconds, stage_row
from gan_jax.storage.files import write_json
from gan_jax.study.cells import Cell, as_settings

PLAN_FILE = 'plan.json'
_NOT_COMPILED = ('schedule', 'data', 'log', 'score', 'collapse')  # sections
_OF_A_STAGE = (  # figures that the study keeps
  *('res', 'batch', 'chips', 'fits', 'hbm_bytes', 'advice', 'step_s', 'slowest_s'),
  *('collectives_s', 'images_per_s', 'mfu', 'networks_flops', 'weights_flops'),
)


class Program(NamedTuple):
  """A training step to compile: one stage of a config, on one topology."""

  topology: str
  res: int
  config: dict[str, Any]  # raw, for another process


def check_topologies(topologies: Sequence[str]) -> list[str]:
  """A sentence for each topology that does not exist."""
  faults = []
  for topology in topologies:
    try:
      check_topology(topology)
    except UserError as error:
      faults.append(str(error).replace('--topology=', 'topologies: '))
  return faults


def program_key(config: Config, stage: Stage, topology: str) -> str:
  """What the compiled step depends on: seeds, rates and lengths are none of it."""
  values = {k: v for k, v in config.to_dict().items() if k not in _NOT_COMPILED}
  train = values['train']
  values['train'] = {k: v for k, v in train.items() if k not in ('images', 'seed')}
  return json.dumps([topology, stage.res, stage.batch, values])


def plan_cells(
  cells: Sequence[Cell],
  topologies: Sequence[str],
  cache: Path,
  jobs: int = 1,
  log: Callable[[str], Any] = print,
) -> list[Row]:
  """One row per setting and batch of the cells, and topology.

  Programs that several cells share are compiled once.

  Args:
    cache: folder of compiled programs.
    jobs: programs that are compiled at a time, each in a process of its own if above 1.
  """
  programs: dict[str, Program] = {}
  for topology in topologies:
    for cell in as_settings(cells).values():
      for stage in cell.config.stages:
        name = program_key(cell.config, stage, topology)
        programs.setdefault(name, Program(topology, stage.res, cell.config.to_dict()))
  log(f'{len(programs)} programs to compile for {len(cells)} cells')
  figures: dict[str, Row] = {}
  for name, row in zip(programs, _compile(programs.values(), cache, jobs), strict=True):
    figures[name] = row
    log(f'[{len(figures)}/{len(programs)}] {_describe(programs[name], row)}')
  return [
    _cell_row(cell, topology, figures)
    for topology in topologies
    for cell in as_settings(cells).values()
  ]


def _compile(programs: Iterable[Program], cache: Path, jobs: int) -> Iterable[Row]:
  """The figures of each program, in order."""
  caches = [cache] * len(list(programs))
  if jobs == 1:
    yield from map(compile_stage, programs, caches)
    return
  context = multiprocessing.get_context('spawn')  # jax has threads
  with ProcessPoolExecutor(jobs, context) as pool:
    yield from pool.map(compile_stage, programs, caches)


def compile_stage(program: Program, cache: Path) -> Row:
  """The planner's figures of a program; `error` where the batch does not divide."""
  config = parse_config(program.config)
  (stage,) = [s for s in config.stages if s.res == program.res]
  mesh, chip = topology_mesh(program.topology)
  try:
    row = stage_row(config, stage, mesh, chip, cache)
  except UserError as error:
    return {'chips': mesh.size, 'res': stage.res, 'fits': False, 'error': str(error)}
  return {name: row[name] for name in _OF_A_STAGE if name in row}


def _describe(program: Program, row: Row) -> str:
  text = f'{program.topology}, {program.res} px'
  if 'error' in row:
    return f'{text}: {row["error"]}'
  if not row['fits']:
    return f'{text}, batch {row["batch"]}: does not fit; {row.get("advice", "")}'
  return (
    f'{text}, batch {row["batch"]}: {1e3 * row["step_s"]:.3g} ms, '
    f'{row["images_per_s"]:,.0f} images/s'
  )


def _cell_row(cell: Cell, topology: str, figures: Mapping[str, Row]) -> Row:
  """The plan of a whole run: the last stage's figures, and the hours of all."""
  stages = [
    figures[program_key(cell.config, stage, topology)] for stage in cell.config.stages
  ]
  row = {'setting': cell.setting, 'batch': cell.batch, 'topology': topology}
  row |= {'images': cell.config.train.images, **stages[-1], 'stages': stages}
  row['fits'] = all(stage['fits'] for stage in stages)
  row |= planned_hours(cell.config, row, cell.config.train.images)
  return row


def planned_hours(config: Config, row: Row, images: int) -> dict[str, float]:
  """Hours and chip-hours until a run has seen so many images; {} if one is unknown.

  `slowest_hours` is with collectives that overlap with nothing.
  """
  stages = row['stages']
  if not all('step_s' in stage for stage in stages):
    return {}
  shorter = dataclasses.replace(
    config, train=dataclasses.replace(config.train, images=max(images, 1))
  )
  hours = run_seconds(shorter, stages) / 3600
  slower = [
    {'images_per_s': s['images_per_s'] * s['step_s'] / s['slowest_s']} for s in stages
  ]
  slowest = run_seconds(shorter, slower) / 3600
  if math.isnan(hours):
    return {}
  chips = row['chips']
  return {'hours': hours, 'slowest_hours': slowest, 'chip_hours': hours * chips}


def write_plan(folder: Path, rows: Sequence[Row]) -> None:
  """Adds rows to plan.json; they replace those of the same cells and topology.

  Raises:
    UserError: the folder cannot be written.
  """
  identity = lambda row: (row['setting'], row['batch'], row['topology'])
  kept = {identity(row): row for row in [*read_plan(folder), *rows]}
  try:
    write_json(folder / PLAN_FILE, list(kept.values()))
  except OSError as error:
    raise UserError(f'--study={folder} cannot be written: {error.strerror}.') from error


def read_plan(folder: Path) -> list[Row]:
  """The rows of plan.json; [] without one, or with one that is corrupted."""
  try:
    rows = json.loads((folder / PLAN_FILE).read_text())
  except (OSError, ValueError, RecursionError):
    return []
  needed = {'setting', 'batch', 'topology', 'stages', 'chips', 'fits'}
  rows = rows if isinstance(rows, list) else []
  return [r for r in rows if isinstance(r, dict) and needed <= {*r}]


def format_plan(rows: Sequence[Row]) -> str:
  """The plan as a table of text."""
  heads = ['cell', 'topology', 'fits', 'HBM', 'step', 'images/s', 'hours', 'chip-hours']
  table = [heads]
  for row in rows:
    name = f'batch {row["batch"]}' + (f', {row["setting"]}' if row['setting'] else '')
    step = row.get('step_s')
    table.append(
      [
        *(name, row['topology'], 'yes' if row['fits'] else 'no'),
        f'{row["hbm_bytes"] / 1e9:.2f} GB' if 'hbm_bytes' in row else '-',
        f'{1e3 * step:.3g} ms' if step else '-',
        f'{row["images_per_s"]:,.0f}' if step else '-',
        f'{row["hours"]:.3g}' if 'hours' in row else '-',
        f'{row["chip_hours"]:,.3g}' if 'hours' in row else '-',
      ]
    )
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return '\n'.join(
    '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
    for line in table
  )
