"""Published weights -> a workdir: python -m gan_jax.importers SRC --workdir=DIR."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from gan_jax import UserError
from gan_jax.importers import sources, write_run
from gan_jax.runtime.errors import run_command


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.importers',
    description='Makes published weights a run that samples, evaluates and trains on.',
  )
  p.add_argument(
    'source',
    help='a BigGAN-PyTorch or Hugging Face folder, an NVIDIA .pkl, or official names '
    'in an .npz or .safetensors file',
  )
  p.add_argument('--workdir', required=True, help='folder to write, a new one')
  p.add_argument('--suffix', default='', help="'best0' for G_best0.pth and so on")
  p.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='change a key of the model section: n_classes=5, res=256',
  )
  p.add_argument(
    '--partial',
    action='store_true',
    help='start anew what the changed model does not share with the source',
  )
  return p


def changes(texts: Sequence[str]) -> dict[str, Any]:
  """['res=256', 'd_init=N02'] -> {'res': 256, 'd_init': 'N02'}.

  Raises:
    UserError: something without an equals sign.
  """
  found = {}
  for text in texts:
    key, equals, value = text.partition('=')
    if not equals:
      raise UserError(f'--set={text}: give KEY=VALUE, such as n_classes=5.')
    try:
      found[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      found[key] = value
  return found


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  source = sources.read_published(args.source, args.suffix)
  rows = write_run.write_run(source, args.workdir, changes(args.set), args.partial)
  print(f'{source.kind}: {write_run.table(rows)}')
  for note in source.notes:
    print(f'note: {note}')
  print(
    f'{args.workdir} is a run now; next: python -m gan_jax.sample '
    f'--workdir={args.workdir} --seeds=0-63 --out=sheet.png; to train on: python -m '
    f'gan_jax.main --config={args.workdir}/config.py --workdir={args.workdir} '
    '--config.data.name=... --allow_config_change'
  )


if __name__ == '__main__':
  run_command(main)
