"""Plans: python -m gan_jax.plan --config=configs/biggan_imagenet.py:128."""

import argparse
import ast
import difflib
import glob
import importlib.util
import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, parse_config
from gan_jax.plan import chips, stage_cost
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.storage.files import atomic_path, cache_folder


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.plan',
    description='Compiles the training step of a config for a slice of a TPU pod, on '
    'this CPU, or for the devices of this machine; says what it needs and takes. '
    'Several values, divided by commas, make a row each.',
  )
  p.add_argument('--config', required=True, help='such as configs/x.py or ...py:tiny')
  p.add_argument(
    '--topology',
    default='local',
    help="a slice such as v5e:16x16 or v4:4x4x8 (needs libtpu: the extra 'plan'), or "
    'local (the default)',
  )
  p.add_argument('--batch', default='', help="in place of the config's")
  p.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=VALUE[,VALUE...]',
    help='a key of the config, such as model.remat=False,True; may be repeated',
  )
  p.add_argument('--res', type=int, default=0, help='only this stage of a growing GAN')
  p.add_argument('--top', type=int, default=12, help='operations shown for each row')
  p.add_argument('--json', metavar='FILE', help='all figures, for machines')
  p.add_argument(
    '--cache', type=Path, help='of compiled programs; default: ~/.cache/gan_jax/plan'
  )
  return p


def load(text: str) -> dict[str, Any]:
  """The config of a file and a variant, FILE or FILE:VARIANT, as a dictionary.

  Raises:
    UserError: there is no such file or variant, or it is no config.
  """
  path, _, variant = text.partition(':')
  if not os.path.isfile(path):
    near = difflib.get_close_matches(path, glob.glob('configs/*.py'), 1)
    hint = f'; did you mean {near[0]}?' if near else '.'
    raise UserError(f'--config={path}: there is no such file{hint}')
  spec = importlib.util.spec_from_file_location('config', path)
  try:
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant).to_dict()
  except (AssertionError, AttributeError, SyntaxError, ValueError) as error:
    raise UserError(f'--config={text}: {error}') from None


def combinations(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], str]]:
  """(settings, topology) of every row that is asked for."""
  keys = [[('batch', _value(b)) for b in args.batch.split(',')]] if args.batch else []
  for text in args.sweep:
    key, equals, values = text.partition('=')
    if not equals or key.count('.') != 1:
      raise UserError(
        f'--sweep={text}: give a key of the config and values, such as '
        'model.remat=False,True.'
      )
    keys.append([(key, _value(v)) for v in values.split(',')])
  for topology in args.topology.split(','):
    for chosen in itertools.product(*keys):
      yield dict(chosen), topology


def _value(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def configured(text: str, settings: dict[str, Any]) -> Config:
  """The recipe of a config in which some keys are set."""
  config = load(text)
  for key, value in settings.items():
    if key != 'batch':
      section, _, name = key.partition('.')
      config.setdefault(section, {})[name] = value
  read = parse_config(config)
  if 'batch' not in settings:
    return read
  if type(settings['batch']) is not int or settings['batch'] < 1:
    raise UserError(f'--batch={settings["batch"]}: a whole number above 0 is needed.')
  return stage_cost.changed(read, settings['batch'])


def plan_stage(args: argparse.Namespace) -> list[stage_cost.Row]:
  """Prints the report, one paragraph a row, and returns all its figures."""
  cache = args.cache or cache_folder('plan')
  rows: list[stage_cost.Row] = []
  for settings, topology in combinations(args):
    read = configured(args.config, settings)
    mesh, chip = chips.mesh_of(topology)
    stages = [s for s in read.stages if args.res in (0, s.res)]
    if not stages:
      raise UserError(
        f'--res={args.res} is no stage of {args.config}: stages are '
        f'{", ".join(str(s.res) for s in read.stages)}.'
      )
    mine = []
    for stage in stages:
      about = {'config': args.config, 'topology': topology, **settings}
      mine.append(about | stage_cost.stage_row(read, stage, mesh, chip, cache))
      print(describe(mine[-1], args.top), flush=True)
    rows += mine
    if len(stages) == len(read.stages):
      seconds = stage_cost.whole_run(read, mine)
      for row in mine:
        row['run_s'] = seconds
        row['run_chip_hours'] = seconds * mesh.size / 3600
      if not math.isnan(seconds):
        print(
          f'the whole run, {read.train.images:,} images: {_time(seconds)}, '
          f'{seconds * mesh.size / 3600:,.0f} chip-hours\n'
        )
  if args.json:
    with atomic_path(Path(args.json)) as part:
      part.write_text(json.dumps(rows, indent=1) + '\n')
  return rows


def describe(row: stage_cost.Row, top: int) -> str:
  """A row for people."""
  chip = row['chip']
  of = f' of {_bytes(chip["hbm"])}' if chip['hbm'] else ''
  settings = ''.join(
    f', {k}={row[k]}' for k in row if '.' in k and not isinstance(row[k], dict)
  )
  lines = [
    f'{row["config"]} on {row["topology"]} ({row["chips"]} x {chip["name"]}), '
    f'{row["res"]} x {row["res"]}, batch {row["batch"]}{settings}'
  ]

  def say(name: str, text: str) -> None:
    lines.append(f'  {name:<12} {text}')

  verdict = 'fits' if row['fits'] else f'DOES NOT FIT; {row["advice"]}'
  needs = _bytes(row['hbm_bytes']) if row.get('hbm_bytes') else 'more than it has'
  say('memory', f'{needs}{of} a chip: {verdict}')
  say(
    'state',
    f'parameters {_bytes(row["params_bytes"])}, optimizers '
    f'{_bytes(row["optimizer_bytes"])}, average {_bytes(row["average_bytes"])}',
  )
  if 'program_flops' not in row:
    return '\n'.join(lines) + '\n'
  say(
    'work',
    f'networks {row["networks_flops"] / 1e12:.3g} TFLOP, on weights '
    f'{row["weights_flops"] / 1e12:.3g}; compiled {row["program_flops"] / 1e12:.3g} '
    f'TFLOP and {_bytes(row["program_bytes"])} moved',
  )
  cycles = f'{row["cycles"] / 1e6:.1f} M estimated cycles, ' if row['cycles'] else ''
  say(
    'time', f'{cycles}{_time(row["step_s"])} a step; {row["images_per_s"]:,.0f} img/s'
  )
  say(
    'MFU', f'{row["mfu"]:.1%}, {row["slowest_mfu"]:.1%} if collectives do not overlap'
  )
  say(
    'roofline',
    f'compute {_time(row["compute_s"])}, memory {_time(row["memory_s"])}, '
    f'collectives {_time(row["collectives_s"])}',
  )
  told = [
    f'{c["count"]} {c["kind"]} ({_bytes(c["bytes"])})' for c in row['collectives']
  ]
  say('collectives', ', '.join(told) or 'none')
  say(
    'donation',
    f'{row["donated"]} arrays, {_bytes(row["donated_bytes"])} of '
    f'{_bytes(row["state_bytes"])} of state; padding {row["padding"]:.0%} of what is '
    'written',
  )
  for group in row['top'][:top]:
    lines.append(
      f'    {group["cycles"] / row["cycles"]:6.1%}  {group["kind"]:<10} '
      f'{group["way"]:<8}  {group["layer"]}'
    )
  return '\n'.join(lines) + '\n'


def _bytes(n: float) -> str:
  for unit, size in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if n >= size:
      return f'{n / size:.3g} {unit}'
  return f'{n:.0f} B'


def _time(seconds: float) -> str:
  for unit, size in (('days', 86400), ('h', 3600), ('min', 60), ('s', 1)):
    if seconds >= 2 * size:
      return f'{seconds / size:.3g} {unit}'
  return f'{seconds * 1e3:.3g} ms'


def main() -> None:
  keep_freed_memory()  # as where the step will run: else a copy maps its pages anew
  plan_stage(parser().parse_args())


if __name__ == '__main__':
  run_command(main)
