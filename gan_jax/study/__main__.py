"""The command python -m gan_jax.study plan|run|report --study=DIR."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from gan_jax import UserError, data, evaluate
from gan_jax import main as training
from gan_jax.config.overrides import split_overrides
from gan_jax.evaluation.truncation_sweep import require_matplotlib
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.runtime.flags import CommandParser, path
from gan_jax.storage.files import cache_folder, check_output_folder
from gan_jax.study import planning, runner
from gan_jax.study.cells import (
  Cell,
  changed_config,
  check_cells,
  is_closed,
  make_cells,
  read_progress,
)
from gan_jax.study.page import write_page
from gan_jax.study.results import has_frontier
from gan_jax.study.spec import Study, add_flags, read_study, refuse, save_study

MODULE = 'gan_jax.study'
EPILOG = """\
plan: predicts memory, step time and cost of each cell on each topology.
run: trains the cells that have not ended, each in a folder below DIR/cells; in a task
of an array job ($SLURM_ARRAY_TASK_ID, $JOB_COMPLETION_INDEX), the cell of that number.
report: writes DIR/report.html and DIR/tables; plan and run do so, too.

A study file is TOML: keys are the flags below, with lists for several values, and the
tables [sweep] and [set] of config keys. --config.SECTION.KEY=VALUE sets a key in all
cells. DIR keeps all of it: later commands need --study=DIR only.

example: python -m gan_jax.study run --config=biggan_digits --study=studies/batch
  --batches=16,32,64,128 --seeds=3 --images=24000 --targets=0.25"""


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    MODULE,
    description='Plans and trains the cells of a scaling study, and writes one page '
    'that says which batch, which learning rate and which topology.',
    epilog=EPILOG,
    formatter=argparse.RawDescriptionHelpFormatter,
  )
  p.add_argument('action', choices=('plan', 'run', 'report'), help='what to do')
  p.add_argument('--study', type=path, required=True, help='folder of the study')
  p.add_argument('--config', help='a shipped config or a file, which the cells change')
  p.add_argument('--spec', type=path, metavar='FILE.toml', help='the study file')
  p.add_argument(
    '--jobs', type=int, default=1, help='cells, or compiles, at a time; default: 1'
  )
  p.add_argument(
    '--cell', metavar='INDEX', help='train this cell alone, by its index or name'
  )
  p.add_argument(
    '--distributed', default='', help='with --cell: as of gan_jax.main, for one cell'
  )
  p.add_argument('--cache', type=path, help='as of gan_jax.plan')
  add_flags(p)
  return p


def main(argv: Sequence[str] | None = None) -> None:
  argv = sys.argv[1:] if argv is None else argv
  others, overrides = split_overrides(argv)
  args = make_parser().parse_args(others)
  if (
    args.distributed
    and args.cell is None
    and not runner.array_variable(args.distributed)
  ):
    raise UserError(
      f'--distributed={args.distributed} is for the processes of one cell: add '
      '--cell=INDEX.'
    )
  if args.jobs < 1:
    raise UserError(f'--jobs={args.jobs}: it must be at least 1.')
  faults: list[str] = []
  study = read_study(args, overrides, faults)
  cells = make_cells(study, faults)
  faults += planning.check_topologies(study.spec.topologies)
  if study.spec.truncations:
    faults += _mistake(require_matplotlib)
  refuse(faults)
  check_output_folder(args.study, '--study')
  if args.action == 'plan':
    plan(args, study, cells)
  elif args.action == 'report':
    save_study(study)
    print(f'wrote {write_page(study, cells)}: open it in a browser')
  elif args.cell is not None or runner.array_variable(args.distributed):
    run_cell(args, study, cells)
  else:
    run_study(args, study, cells)


def _mistake(check: Callable[[], Any]) -> list[str]:
  """The sentence of the UserError that a function raises, if any."""
  try:
    check()
  except UserError as error:
    return [str(error)]
  return []


def plan(args: argparse.Namespace, study: Study, cells: Sequence[Cell]) -> None:
  """Plans all cells; writes plan.json and the page, and prints a table."""
  cache = args.cache or cache_folder('plan')
  if args.cache:
    check_output_folder(cache, '--cache')
  save_study(study)
  topologies = study.spec.topologies or ('local',)
  rows = planning.plan_cells(cells, topologies, cache, args.jobs)
  planning.write_plan(study.folder, rows)
  print(planning.format_plan(rows))
  print(f'wrote {write_page(study, cells)}: open it in a browser')


def run_study(args: argparse.Namespace, study: Study, cells: Sequence[Cell]) -> None:
  """Trains all cells that have not ended, `--jobs` at a time, and ends the process."""
  slots = runner.make_slots(args.jobs, os.environ)
  faults = check_cells(study, cells, runner.count_devices(slots[0]))
  faults += check_data(cells)
  refuse(faults)
  save_study(study)

  def refresh() -> None:
    write_page(study, cells)

  def command(cell: Cell) -> list[str]:
    words = ['run', f'--study={study.folder}', f'--cell={cell.name}']
    return [sys.executable, '-m', MODULE, *words]

  refresh()
  code = runner.Runner(
    study.folder,
    cells,
    slots,
    command,
    ended=refresh,
    log=functools.partial(print, flush=True),
    is_complete=lambda cell: is_complete(study, cell),
  ).run()
  print(f'wrote {write_page(study, cells)}: open it in a browser')
  sys.exit(code)


def check_data(cells: Sequence[Cell]) -> list[str]:
  """A sentence for each set of images that cannot be read."""
  faults, seen = [], []
  for cell in cells:
    source = cell.config.source()
    if source not in seen:
      seen.append(source)
      faults += _mistake(functools.partial(data.load_dataset, **source))
  return faults


def is_complete(study: Study, cell: Cell) -> bool:
  """Whether nothing is left to do for a cell: training, and its truncation sweep."""
  workdir, truncations = cell.workdir(study.folder), study.spec.truncations
  progress = read_progress(cell, workdir)
  if progress.state == 'finished' and truncations:
    return has_frontier(workdir, truncations)
  return is_closed(progress)


def run_cell(args: argparse.Namespace, study: Study, cells: Sequence[Cell]) -> NoReturn:
  """Trains one cell in this process, as gan_jax.main does, and ends it."""
  cell = runner.choose_cell(args.cell, cells, args.distributed)
  workdir = cell.workdir(study.folder)
  refuse(changed_config(cell, workdir))
  save_study(study)
  print(f'cell {cell.index} of {len(cells)}: {cell.name}', flush=True)
  code = ExitCode.FINISHED
  if not is_closed(read_progress(cell, workdir)):
    words = [f'--config={study.folder}', f'--workdir={workdir}']
    flags = training.make_parser().parse_args(
      [*words, *([f'--distributed={args.distributed}'] * bool(args.distributed))]
    )
    training.prepare_process()
    code = training.train(flags, cell.config)
  finished = read_progress(cell, workdir).state == 'finished'
  if code == ExitCode.FINISHED and finished and not is_complete(study, cell):
    sweep_truncation(study, workdir)
  training.end_process(code)


def sweep_truncation(study: Study, workdir: Path) -> None:
  """Scores a finished run at the study's truncation values."""
  values = ','.join(f'{t:g}' for t in study.spec.truncations)
  flags = [f'--workdir={workdir}', f'--frontier={values}']
  if study.spec.score == 'fid':  # Inception is there, and BigGAN's figure is of it
    flags.append('--metrics=fid,is')
  evaluate.main(flags)


if __name__ == '__main__':
  keep_freed_memory()
  logging.set_verbosity(logging.WARNING)
  run_command(main)
