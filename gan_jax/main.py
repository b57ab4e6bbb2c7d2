"""Trains a GAN, or resumes training.

SYNOPSIS
  python -m gan_jax.main --config=CONFIG --workdir=DIR [--config.SECTION.KEY=VALUE ...]
  python -m gan_jax.main --config=CONFIG --show [--config.SECTION.KEY=VALUE ...]

DESCRIPTION
  CONFIG is a config that gan_jax ships, by its name, or a config file of your own. A
  variant, where it has some, follows after a colon: biggan_imagenet:deep256, or :tiny,
  which runs two steps on any machine. DIR gets checkpoints, sample grids,
  metrics.jsonl and report.html, a page to open in a browser. The same command with the
  same DIR resumes the run. Ctrl-C saves a checkpoint and stops.

CONFIG KEYS
  --config.SECTION.KEY=VALUE sets any key, whether or not the config file has it.
  --show lists them all: value, explanation, and which differ from their default.
  VALUE is written by the type of the key:
{syntax}

EXAMPLES
  Ten minutes on a laptop:
    python -m gan_jax.main --config=biggan_emoji --workdir=runs/emoji
  Your own images, in one folder per class:
    python -m gan_jax.prepare photos/ sets/photos --res=256 --crop
    python -m gan_jax.main --config=stylegan_lsun --config.data.name=./sets/photos \\
      --workdir=runs/photos
  Batches of 64 images at 4 to 64 pixels, then of 32 and 16, in two micro-batches:
    python -m gan_jax.main --config=progan_lsun --config.train.accum=2 \\
      --config.schedule.batch=64,64,64,64,64,32,16 --workdir=runs/lsun
  A pod, the same command on every host:
    python -m gan_jax.main --config=biggan_imagenet:128 --workdir=/shared/run \\
      --distributed=auto

EXIT STATUS
  0: finished, or stopped by Ctrl-C at a terminal. 2: a mistake that only you can
  correct. 42: stopped on request before the end. 127 or more: another failure, or
  killed. After 42 and after 127 or more, start the same command again; docs/pods.md
  says what schedulers do.
"""

import argparse
import faulthandler
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import flags, logging

from gan_jax import UserError
from gan_jax.config import Config, load_config
from gan_jax.config.listing import list_keys
from gan_jax.config.overrides import split_overrides
from gan_jax.config.values import SYNTAX
from gan_jax.runtime.distributed import join, leave, own_name
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import report_failure, run_command
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.runtime.flags import CommandParser, boolean, workdir
from gan_jax.runtime.watchdog import Watchdog, print_stacks_at_signal
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.training.preemption import StoppedError, stop_at_sigusr2
from gan_jax.training.profiling import parse_profile
from gan_jax.training.trainer import Trainer

USAGE = """\
To train, give a config and a folder; this takes ten minutes on a laptop:

  python -m gan_jax.main --config=biggan_emoji --workdir=runs/emoji

Then open runs/emoji/report.html, or sample:

  python -m gan_jax.sample --workdir=runs/emoji --seeds=0-63 --out=grid.png

--help explains all flags, and --config=CONFIG --show lists the keys of a config."""


def make_parser() -> CommandParser:
  """The flags besides --config.SECTION.KEY."""
  p = CommandParser(
    'gan_jax.main',
    description=(__doc__ or '').format(syntax=SYNTAX),
    formatter=argparse.RawDescriptionHelpFormatter,
  )
  p.add_argument(
    '--config', help='a shipped config or a file, such as biggan_emoji or my/x.py:tiny'
  )
  p.add_argument(
    '--workdir',
    type=workdir,
    help='folder of the run, or a gs:// or s3:// URL; an existing run is resumed',
  )
  p.add_argument(
    '--show', action='store_true', help='print the config with all its keys, and end'
  )
  p.add_argument(
    '--allow_config_change',
    type=boolean,
    nargs='?',
    const=True,
    default=False,
    help='resume although the config differs from that of the run; logs the '
    'differences',
  )
  p.add_argument(
    '--allow_data_change',
    type=boolean,
    nargs='?',
    const=True,
    default=False,
    help='resume although the images, their order or their classes differ from those '
    'that the run began with; logs the differences',
  )
  p.add_argument(
    '--distributed',
    default='',
    help="join the other processes of a job: 'auto' on TPU pods, SLURM and GKE, else "
    'HOST:PORT,NUM_PROCESSES,PROCESS_ID',
  )
  p.add_argument(
    '--peer_timeout',
    type=int,
    default=60,
    help='seconds without a heartbeat after which a process is lost; default: 60',
  )
  p.add_argument(
    '--join_timeout',
    type=int,
    default=300,
    help='seconds to wait for the other processes at the start; default: 300',
  )
  p.add_argument(
    '--hang_timeout',
    type=int,
    default=600,
    help='seconds after which a run that hangs ends with 250: without a step for '
    '--peer_timeout seconds and ten times the median step it first prints the stacks '
    'of all threads; 0: it never ends; default: 600',
  )
  p.add_argument(
    '--profile',
    default='',
    metavar='STEP:N',
    help='profile the N iterations after iteration STEP into WORKDIR/profile, which '
    'xprof and TensorBoard show',
  )
  p.add_argument(
    '--profile_processes',
    default='0',
    metavar='NUMBERS',
    help='processes that --profile profiles, such as 0,3, or all; default: 0',
  )
  return p


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, Config]:
  """The flags, and the config with the keys that the command line sets.

  `args.keys` are the names of those keys, such as 'train.accum'.

  Raises:
    UserError: a mistake in the flags or in the config.
    SystemExit: --help, or a mistake in the form of the flags.
  """
  others, overrides = split_overrides(argv)
  parser = make_parser()
  # As with other absl programs, flags may have one dash.
  args = parser.parse_args([re.sub(r'^-(?=[a-z_]{2})', '--', text) for text in others])
  if not args.config:
    raise UserError('--config is needed, e.g. --config=biggan_emoji.')
  if args.workdir is None and not args.show:
    run = Path(args.config.partition(':')[0]).stem
    raise UserError(f'--workdir is needed, e.g. --workdir=runs/{run}.')
  for name, least in (('peer_timeout', 1), ('join_timeout', 1), ('hang_timeout', 0)):
    if (seconds := getattr(args, name)) < least:
      raise UserError(f'--{name}={seconds}: it must be at least {least}.')
  args.profile = args.profile and parse_profile(args.profile, args.profile_processes)
  args.keys = [name for name, _ in overrides]
  return args, load_config(args.config, overrides)


def main(argv: Sequence[str] | None = None) -> None:
  argv = sys.argv[1:] if argv is None else argv
  if not argv:
    print(USAGE, file=sys.stderr)
    sys.exit(2)
  args, config = parse(argv)
  if args.show:
    print(list_keys(config, args.keys))
    return
  prepare_process()
  end_process(train(args, config))


def prepare_process() -> None:
  """Sets the signals and the log of a process that trains."""
  faulthandler.enable()
  print_stacks_at_signal()
  stop_at_sigusr2()
  flags.FLAGS.mark_as_parsed()  # absl's log handler asks for it
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)


def train(args: argparse.Namespace, config: Config) -> ExitCode:
  """Trains as the flags say; returns how it ended."""
  try:
    if args.distributed:
      join(args.distributed, args.peer_timeout, args.join_timeout)
    use_compile_cache(jax.process_index())
    trainer = Trainer(
      config,
      args.workdir,
      allow_config_change=args.allow_config_change,
      allow_data_change=args.allow_data_change,
      watchdog=Watchdog(args.peer_timeout, args.hang_timeout, who=own_name),
      profile=args.profile or None,
    )
    try:
      if int(trainer.run().images) >= config.train.images:
        return ExitCode.FINISHED
    except StoppedError:
      print('stopped while there was nothing to save; resume with the same command')
    at_terminal = trainer.stop_signal == signal.SIGINT and os.isatty(0)
    return ExitCode.FINISHED if at_terminal else ExitCode.STOPPED
  except KeyboardInterrupt:
    return ExitCode.INTERRUPTED
  except BaseException as error:
    return report_failure(error)


def end_process(code: ExitCode) -> NoReturn:
  """Ends the process without waiting for threads that compile."""
  if code in (ExitCode.FINISHED, ExitCode.USER_ERROR, ExitCode.STOPPED):
    leave()
  sys.stdout.flush()
  sys.stderr.flush()
  if code == ExitCode.INTERRUPTED:  # die of it, as loops in a shell expect
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
  os._exit(code)


if __name__ == '__main__':
  keep_freed_memory()
  run_command(main)
