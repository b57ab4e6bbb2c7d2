"""Imports published weights: python -m gan_jax.importers SOURCE --workdir=DIR."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from gan_jax import UserError
from gan_jax.config.values import parse_text
from gan_jax.importers.sources import read_published
from gan_jax.importers.write_run import check_workdir, write_run
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.runtime.urls import is_url
from gan_jax.storage.working_copy import open_workdir
from gan_jax.training.array_matches import format_matches


def make_parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  p = CommandParser(
    'gan_jax.importers',
    description='Turns published weights into a run that can be sampled, evaluated and '
    'trained further.',
  )
  p.add_argument(
    'source',
    type=path,
    help='a BigGAN-PyTorch or Hugging Face folder, an NVIDIA .pkl file, or a .pth, '
    '.npz or .safetensors file with official names; contents decide, not endings',
  )
  p.add_argument(
    '--workdir',
    type=workdir,
    required=True,
    help='new folder for the run, or a gs:// or s3:// URL',
  )
  p.add_argument(
    '--suffix', default='', help="suffix of the files: 'best0' reads G_best0.pth, ..."
  )
  p.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='change a key of the model section, such as n_classes=5; repeatable',
  )
  p.add_argument(
    '--partial',
    action='store_true',
    help='initialise the arrays that the source and the changed model do not share',
  )
  return p


def split_changes(assignments: Sequence[str]) -> dict[str, str]:
  """['res=256', 'g_widths=8,4'] -> {'res': '256', 'g_widths': '8,4'}.

  Raises:
    UserError: an assignment without an equals sign.
  """
  changes = {}
  for assignment in assignments:
    key, equals, value = assignment.partition('=')
    if not equals:
      raise UserError(f'--set={assignment}: KEY=VALUE is needed, such as n_classes=5.')
    changes[key] = value
  return changes


def parse_changes(changes: Mapping[str, str], family: type) -> dict[str, Any]:
  """Values by the types of the family's keys, as training reads --config.model.KEY.

  Unknown keys are left as they are; building the model names them.

  Raises:
    UserError: a value of another type.
  """
  types = get_type_hints(family)
  return {
    key: parse_text(f'model.{key}', text, types[key]) if key in types else text
    for key, text in changes.items()
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command and prints the table of outcomes."""
  args = make_parser().parse_args(argv)
  changes = split_changes(args.set)
  with open_workdir(args.workdir, write=True) as folder:
    check_workdir(folder, args.source)
    source = read_published(args.source, args.suffix)
    model_changes = parse_changes(changes, type(source.gan))
    matches = write_run(source, folder, model_changes, args.partial)
  print(f'{source.kind}: {format_matches(matches)}')
  for note in source.notes:
    print(f'note: {note}')
  config, before = f'{args.workdir}/config.py', ''
  if is_url(str(args.workdir)):
    config, before = 'config.py', f'copy {config} here, and then '
  print(
    f'{args.workdir} is now a run. To sample: python -m gan_jax.sample '
    f'--workdir={args.workdir} --seeds=0-63 --out=grid.png; to train further: {before}'
    f'python -m gan_jax.main --config={config} --workdir={args.workdir} '
    '--config.data.name=... --allow_config_change'
  )


if __name__ == '__main__':
  run_command(main)
