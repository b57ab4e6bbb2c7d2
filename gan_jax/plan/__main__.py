"""The command python -m gan_jax.plan --config=configs/biggan_imagenet.py:128."""

import argparse
import itertools
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, Stage, load_config
from gan_jax.config.overrides import Override, split_overrides
from gan_jax.plan.chips import topology_mesh
from gan_jax.plan.formatting import format_row, format_seconds
from gan_jax.plan.gpus import GPUS
from gan_jax.plan.stage_cost import Row, run_seconds, stage_row, with_batch
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path
from gan_jax.storage.files import (
  atomic_path,
  cache_folder,
  check_output_file,
  check_output_folder,
)

Overrides = dict[str, str | None]  # 'batch' or 'section.key' -> text of its value


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.plan',
    description='Compiles the training step of a config for TPUs or GPUs, on a CPU, '
    'or for the local devices, and predicts its memory and time. Options with several '
    'comma-separated values plan every combination.',
  )
  p.add_argument(
    '--config',
    required=True,
    help='a shipped config or a file, such as biggan_emoji or my/x.py:tiny; '
    '--config.SECTION.KEY=VALUE sets a key, as in training',
  )
  p.add_argument(
    '--topology',
    default='local',
    help='a slice of TPUs such as v5e:16x16 or v4:4x4x8 (install the extra plan); or '
    'GPUs such as h100:8, or nodes x GPUs, h100:4x8 (extra plan-gpu; cards: '
    f'{", ".join(GPUS)}); or local, the default: the devices of this machine',
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
    '--top', type=int, default=12, help='number of layers listed by their time'
  )
  p.add_argument(
    '--json', type=path, metavar='FILE.json', help='write all figures to this file'
  )
  p.add_argument(
    '--cache',
    type=path,
    help='folder of compiled programs; default: $GAN_JAX_CACHE/plan or '
    '~/.cache/gan_jax/plan',
  )
  return p


def combinations(args: argparse.Namespace) -> Iterator[tuple[Overrides, str]]:
  """Every combination of overrides (--batch, --sweep) and topologies to plan.

  Raises:
    UserError: --sweep has no key or no values.
  """
  choices: list[list[tuple[str, str]]] = []
  if args.batch:
    choices.append([('batch', text) for text in args.batch.split(',')])
  for text in args.sweep:
    key, equals, values = text.partition('=')
    if not equals or not values:
      raise UserError(
        f'--sweep={text}: give a key of the config and its values, such as '
        'model.remat=False,True.'
      )
    choices.append([(key, value) for value in split_values(values)])
  for topology in args.topology.split(','):
    for overrides in itertools.product(*choices):
      yield dict(overrides), topology


def split_values(text: str) -> list[str]:
  """'a,(1, 2)' -> ['a', '(1, 2)']: commas within brackets do not separate values."""
  return [''.join(match) for match in re.findall(r'([(\[].*?[)\]])|([^,]+)', text)]


def load_with_overrides(path: str, overrides: Overrides) -> Config:
  """Loads a config and replaces some of its values.

  Args:
    path: a config file, or FILE:VARIANT.
    overrides: values by 'section.key'; 'batch' is the batch size of all stages.

  Raises:
    UserError: there is no such config, or a value is not valid.
  """
  keys = {key: text for key, text in overrides.items() if key != 'batch'}
  config = load_config(path, list(keys.items()))
  if 'batch' not in overrides:
    return config
  text = overrides['batch'] or ''
  if not re.fullmatch('[1-9][0-9]*', text):
    raise UserError(f'--batch={text}: a whole number above 0 is needed.')
  return with_batch(config, int(text))


def run_plan(args: argparse.Namespace, keys: Sequence[Override] = ()) -> list[Row]:
  """Plans every combination; prints a paragraph per stage and returns all figures.

  Args:
    args: the flags of `make_parser`.
    keys: config keys of the command line, which --sweep may override.
  """
  cache = args.cache or cache_folder('plan')
  if args.json:
    check_output_file(args.json, '--json', ('.json',))
  if args.cache:
    check_output_folder(cache, '--cache')
  plans = [
    (load_with_overrides(args.config, {**dict(keys), **overrides}), overrides, topology)
    for overrides, topology in combinations(args)
  ]
  all_rows: list[Row] = []
  for config, overrides, topology in plans:
    stages = select_stages(config, args)
    mesh, chip = topology_mesh(topology)
    rows: list[Row] = []
    for stage in stages:
      identity = {'config': args.config, 'topology': topology}
      identity |= chosen_values(config, [*dict(keys), *overrides])
      rows.append(identity | stage_row(config, stage, mesh, chip, cache))
      print(format_row(rows[-1], args.top), flush=True)
    if len(stages) == len(config.stages):
      add_run_cost(config, rows, mesh.size)
    all_rows += rows
  if args.json:
    args.json.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.json) as part:
      part.write_text(json.dumps(all_rows, indent=1) + '\n')
  return all_rows


def chosen_values(config: Config, keys: Iterable[str]) -> dict[str, Any]:
  """'section.key' -> value, for those of the keys that are in the config."""
  values = config.to_dict()
  parts = {key: key.partition('.') for key in keys if '.' in key}
  return {key: values[section][name] for key, (section, _, name) in parts.items()}


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
      f'{chip_hours:,.0f} {"GPU" if "kernels" in rows[0] else "chip"}-hours\n'
    )


def main() -> None:
  # As in training; without it the measured copy of local devices maps pages anew.
  keep_freed_memory()
  arguments, keys = split_overrides(sys.argv[1:])
  run_plan(make_parser().parse_args(arguments), keys)


if __name__ == '__main__':
  run_command(main)
