"""The command: python -m gan_jax.report DIR [DIR ...]."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from gan_jax.report import write
from gan_jax.runtime.errors import run_command


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.report',
    description="Writes a run's page, DIR/report.html; of several runs, one page with "
    'their curves and pictures side by side.',
  )
  p.add_argument('workdirs', nargs='+', metavar='DIR', help='folder of a run')
  p.add_argument(
    '--out',
    metavar='PAGE.html',
    help='another place for the page, which then has its pictures inside, to be mailed '
    '(default: DIR/report.html; of several runs: compare.html)',
  )
  p.add_argument('--nice', action='store_true', help='leave the processor to others')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  if args.nice:
    os.nice(19)
  out = args.out or ('compare.html' if len(args.workdirs) > 1 else None)
  path = write([Path(d) for d in args.workdirs], Path(out) if out else None)
  print(f'the page is {path}: open it in a browser')


if __name__ == '__main__':
  run_command(main)
