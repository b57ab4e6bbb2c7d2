"""The command python -m gan_jax.report DIR [DIR ...]."""

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from gan_jax.report import write_report
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.storage.working_copy import open_workdir, working_copy


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.report',
    description='Writes the report of a run to DIR/report.html; of several runs, one '
    'page that compares their curves and sample grids.',
  )
  p.add_argument(
    'workdirs', nargs='+', metavar='DIR', type=workdir, help='workdir of a run'
  )
  p.add_argument(
    '--out',
    type=path,
    metavar='PAGE.html',
    help='write this file instead, with all images embedded, so that it can be sent '
    '(default: DIR/report.html; of several runs: compare.html)',
  )
  p.add_argument('--nice', action='store_true', help='run at the lowest priority')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  if args.nice:
    os.nice(19)
  out = args.out or (Path('compare.html') if len(args.workdirs) > 1 else None)
  with contextlib.ExitStack() as stack:
    folders = [stack.enter_context(open_workdir(place)) for place in args.workdirs]
    page = str(write_report(folders, out))
    if copy := working_copy(folders[0]):
      copy.push()
      page = copy.name(page)
  print(f'wrote {page}: open it in a browser')


if __name__ == '__main__':
  run_command(main)
