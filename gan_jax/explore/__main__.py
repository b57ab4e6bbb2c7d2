"""The command: python -m gan_jax.explore --workdir=DIR."""

import argparse
import contextlib
import functools
import socket
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from gan_jax import UserError
from gan_jax.explore.session import ControlValues, ExplorerSession
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.storage.durations import timed_phase

LOOPBACK = '127.0.0.1'


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.explore',
    description='Plays with a trained generator in the browser: of a run, of weights '
    'that gan_jax.importers brought in, or of an exported .stablehlo in the folder.',
  )
  p.add_argument('--workdir', required=True, help='folder of the run')
  p.add_argument('--port', type=int, default=8080, help='default: 8080')
  p.add_argument(
    '--host',
    default=LOOPBACK,
    help='address to listen on; default: 127.0.0.1, which only this machine reaches',
  )
  p.add_argument('--open', action='store_true', help='open the browser, too')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns of reading what it may not write
  try:
    from gan_jax.explore import view
  except ImportError as error:
    raise UserError(
      "the explorer needs a package: pip install 'gan_jax[explore]'."
    ) from error
  workdir = Path(args.workdir)
  if not workdir.is_dir():
    raise UserError(f'--workdir={workdir}: there is no such folder.')
  with contextlib.closing(socket.socket()) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      s.bind((args.host, args.port))
    except OSError as error:
      raise UserError(
        f'{args.host}:{args.port} cannot be listened on ({error.strerror}): take '
        'another --port.'
      ) from error
  desk = ExplorerSession(workdir)
  source = desk.select()
  say = functools.partial(print, flush=True)
  with timed_phase(workdir, f'opening and compiling {source.name}', say):
    able = desk.abilities(source)
    desk.draw(source, desk.shown(able, ControlValues(layers=able.cut)))
  say(f'ready: http://{args.host}:{args.port} in a browser (Ctrl-C ends this)')
  view.serve(desk, args.host, args.port, args.open)


if __name__ == '__main__':
  keep_freed_memory()
  run_command(main)
