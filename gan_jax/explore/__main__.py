"""The command: python -m gan_jax.explore --workdir=DIR."""

import argparse
import contextlib
import functools
import socket
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from gan_jax import UserError
from gan_jax.explore.controls import ControlValues
from gan_jax.explore.session import SAVE_FOLDER, ExplorerSession, GeneratorChoice
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.sampling.directions import FILE
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.durations import timed_phase
from gan_jax.storage.working_copy import is_packaged, open_workdir

LOOPBACK = '127.0.0.1'


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.explore',
    description='Explores a generator in the browser: a run, weights that '
    'gan_jax.importers imported, or an exported .stablehlo in the folder.',
  )
  p.add_argument(
    '--workdir',
    type=workdir,
    required=True,
    help='folder of the run, or a gs:// or s3:// URL',
  )
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  p.add_argument(
    '--directions',
    type=path,
    metavar='FILE.npz',
    help=f'file of the directions; default: {FILE} in the workdir, or SeFa',
  )
  p.add_argument('--port', type=int, default=8080, help='default: 8080')
  p.add_argument(
    '--host',
    default=LOOPBACK,
    help='address to listen on; default: 127.0.0.1, which only this machine can reach',
  )
  p.add_argument('--open', action='store_true', help='open the page in the browser')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  try:
    from gan_jax.explore import view
  except ImportError as error:
    raise UserError(
      "the explorer needs a package: pip install 'gan_jax[explore]'."
    ) from error
  check_address(args.host, args.port)
  with open_workdir(args.workdir) as folder:
    if not folder.is_dir():
      raise UserError(f'--workdir={folder}: there is no such folder.')
    results, file = None, args.directions
    packaged = is_packaged(args.workdir)  # nothing is written there
    if packaged:
      results, file = Path(), file or Path(SAVE_FOLDER) / FILE
    session = ExplorerSession(folder, not args.raw, file, results)
    choice = session.select()
    if args.directions:
      check_directions(session, choice)
    log = functools.partial(print, flush=True)
    with timed_phase(
      None if packaged else folder, f'opening and compiling {choice.name}', log
    ):
      capabilities = session.capabilities(choice)
      values = ControlValues(truncated_layers=capabilities.truncated_layers)
      session.render_png(choice, session.displayed_options(capabilities, values))
    log(f'ready: http://{args.host}:{args.port} in a browser (Ctrl-C ends this)')
    view.serve(session, args.host, args.port, args.open)


def check_directions(session: ExplorerSession, choice: GeneratorChoice) -> None:
  """Checks the value of --directions.

  Raises:
    UserError: there is no such file, it holds directions of another model, or the
      generator was exported and has none.
  """
  file = session.directions_file
  if choice.path is not None:
    raise UserError(f'--directions={file}: {choice.path} is exported and has none.')
  if not file.exists():
    raise UserError(f'--directions={file}: there is no such file.')
  session.directions(choice)


def check_address(host: str, port: int) -> None:
  """Checks that a server can listen there.

  Raises:
    UserError: it cannot.
  """
  if not 0 < port < 65536:
    raise UserError(f'--port={port} is no port; allowed are 1 to 65535.')
  with contextlib.closing(socket.socket()) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      s.bind((host, port))
    except OSError as error:
      flag = '--host' if isinstance(error, socket.gaierror) else '--port'
      raise UserError(
        f'{host}:{port} cannot be listened on ({error.strerror}): take another {flag}.'
      ) from error


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
