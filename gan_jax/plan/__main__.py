"""The command python -m gan_jax.plan --config=configs/biggan_imagenet.py:128."""

import argparse
import ast
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, Stage, load_raw_config, parse_config
from gan_jax.plan.chips import topology_mesh
from gan_jax.plan.formatting import format_row, format_seconds
from gan_jax.plan.stage_cost import Row, run_seconds, stage_row, with_batch
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.storage.files import atomic_path, cache_folder

Overrides = dict[str, Any]  # 'batch' or 'section.key' -> value


def make_parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.plan',
    description='Compiles the training step of a config for a TPU topology, on a CPU, '
    'or for the local devices, and predicts its memory and time. Options with several '
    'comma-separated values plan every combination.',
  )
  p.add_argument(
    '--config',
    required=True,
    help='such as configs/x.py, or configs/x.py:tiny',
  )
  p.add_argument(
    '--topology',
    default='local',
    help='a slice such as v5e:16x16 or v4:4x4x8, which needs libtpu (install the extra '
    "'plan'); or local, the default: the devices of this machine",
  )
  p.add_argument('--batch', default='', help='batch size, replaces that of the config')
  p.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=VALUE[,VALUE...]',
    help='values of a config key, such as model.remat=False,True; may be repeated',
  )
  p.add_argument(
    '--res', type=int, default=0, help='plan this resolution of a growing GAN only'
  )
  p.add_argument(
    '--top', type=int, default=12, help='number of layers listed by their cycles'
  )
  p.add_argument('--json', metavar='FILE', help='write all figures to this file')
  p.add_argument(
    '--cache',
    type=Path,
    help='folder of compiled programs; default: $GAN_JAX_CACHE/plan or '
    '~/.cache/gan_jax/plan',
  )
  return p


def parse_value(text: str) -> Any:
  """A Python literal such as 1, 0.5, True or (1, 2); other text is a string."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def combinations(args: argparse.Namespace) -> Iterator[tuple[Overrides, str]]:
  """Every combination of overrides (--batch, --sweep) and topologies to plan.

  Raises:
    UserError: --sweep names no config key.
  """
  choices: list[list[tuple[str, Any]]] = []
  if args.batch:
    choices.append([('batch', parse_value(b)) for b in args.batch.split(',')])
  for text in args.sweep:
    key, equals, values = text.partition('=')
    if not equals or key.count('.') != 1:
      raise UserError(
        f'--sweep={text}: give a key of the config and its values, such as '
        'model.remat=False,True.'
      )
    choices.append([(key, parse_value(value)) for value in values.split(',')])
  for topology in args.topology.split(','):
    for overrides in itertools.product(*choices):
      yield dict(overrides), topology


def load_with_overrides(path: str, overrides: Overrides) -> Config:
  """Loads a config and replaces some of its values.

  Args:
    path: a config file, or FILE:VARIANT.
    overrides: values by 'section.key'; 'batch' is the batch size of all stages.

  Raises:
    UserError: there is no such config, or a value is not valid.
  """
  raw_config = load_raw_config(path)
  for key, value in overrides.items():
    if key != 'batch':
      section, _, name = key.partition('.')
      raw_config.setdefault(section, {})[name] = value
  config = parse_config(raw_config)
  if 'batch' not in overrides:
    return config
  batch = overrides['batch']
  if type(batch) is not int or batch < 1:
    raise UserError(f'--batch={batch}: a whole number above 0 is needed.')
  return with_batch(config, batch)


def run_plan(args: argparse.Namespace) -> list[Row]:
  """Plans every combination; prints a paragraph per stage and returns all figures."""
  cache = args.cache or cache_folder('plan')
  all_rows: list[Row] = []
  for overrides, topology in combinations(args):
    config = load_with_overrides(args.config, overrides)
    stages = select_stages(config, args)
    mesh, chip = topology_mesh(topology)
    rows: list[Row] = []
    for stage in stages:
      identity = {'config': args.config, 'topology': topology, **overrides}
      rows.append(identity | stage_row(config, stage, mesh, chip, cache))
      print(format_row(rows[-1], args.top), flush=True)
    if len(stages) == len(config.stages):
      add_run_cost(config, rows, mesh.size)
    all_rows += rows
  if args.json:
    with atomic_path(Path(args.json)) as part:
      part.write_text(json.dumps(all_rows, indent=1) + '\n')
  return all_rows


def select_stages(config: Config, args: argparse.Namespace) -> Sequence[Stage]:
  """All stages, or the one of --res.

  Raises:
    UserError: no stage has that resolution.
  """
  stages = [stage for stage in config.stages if args.res in (0, stage.res)]
  if not stages:
    raise UserError(
      f'--res={args.res} is no stage of {args.config}: stages are '
      f'{", ".join(str(stage.res) for stage in config.stages)}.'
    )
  return stages


def add_run_cost(config: Config, rows: list[Row], devices: int) -> None:
  """Adds the cost of the full run to the rows of all its stages, and prints it."""
  seconds = run_seconds(config, rows)
  chip_hours = seconds * devices / 3600
  for row in rows:
    row['run_s'] = seconds
    row['run_chip_hours'] = chip_hours
  if not math.isnan(seconds):
    print(
      f'full run of {config.train.images:,} images: {format_seconds(seconds)}, '
      f'{chip_hours:,.0f} chip-hours\n'
    )


def main() -> None:
  # As in training; without it the measured copy of local devices maps pages anew.
  keep_freed_memory()
  run_plan(make_parser().parse_args())


if __name__ == '__main__':
  run_command(main)
