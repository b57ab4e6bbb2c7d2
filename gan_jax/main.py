"""Trains a GAN, or resumes training.

SYNOPSIS
  python -m gan_jax.main --config=CONFIG --workdir=DIR [--config.SECTION.KEY=VALUE ...]

DESCRIPTION
  CONFIG is a config file, such as configs/biggan_emoji.py, with a variant after a colon
  where it has some: configs/biggan_imagenet.py:deep256, or :tiny, which runs two steps
  on any machine. DIR gets checkpoints, sample grids, metrics.jsonl and report.html, a
  page to open in a browser. The same command with the same DIR resumes the run. Ctrl-C
  saves a checkpoint and stops.

EXAMPLES
  Ten minutes on a laptop:
    python -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji
  Your own images, in one folder per class:
    python -m gan_jax.prepare photos/ sets/photos --res=256 --crop
    python -m gan_jax.main --config=configs/stylegan_lsun.py \\
      --config.data.name=./sets/photos --workdir=runs/photos
  A pod, the same command on every host:
    python -m gan_jax.main --config=configs/biggan_imagenet.py:128 \\
      --workdir=/shared/run --distributed=auto

EXIT STATUS
  0: finished, or stopped by a signal. 2: a mistake that only you can correct. Anything
  else: transient, start the same command again.
"""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.files import missing_file
from gan_jax.config.parsing import renamed_key
from gan_jax.runtime.distributed import join
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.training.preemption import StoppedError
from gan_jax.training.trainer import Trainer

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, e.g. configs/biggan_emoji.py or ...py:tiny.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; an existing run is resumed.'
)
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
  'allow_config_change',
  False,
  'Resume although the config differs from that of the run; logs the differences.',
)
_DISTRIBUTED = flags.DEFINE_string(
  'distributed',
  '',
  "Join the other processes of a job: 'auto' on TPU pods, SLURM and GKE, else "
  'HOST:PORT,NUM_PROCESSES,PROCESS_ID.',
)
_PEER_TIMEOUT = flags.DEFINE_integer(
  'peer_timeout', 60, 'Seconds without a heartbeat after which a process is lost.'
)

USAGE = """\
To train, give a config and a folder; this takes ten minutes on a laptop:

  python -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji

Then open runs/emoji/report.html, or sample:

  python -m gan_jax.sample --workdir=runs/emoji --seeds=0-63 --out=grid.png

Configs are in configs/; --help lists all flags."""


def parse(argv: list[str]) -> list[str]:
  """Parses the flags with absl.

  Raises:
    UserError: a mistake in the flags, in one sentence.
  """
  if len(argv) == 1:
    print(USAGE, file=sys.stderr)
    sys.exit(2)
  for arg in argv[1:]:
    match = re.match(r'--?config\.([\w.]+)', arg)
    if match and (clause := renamed_key(match[1])):
      raise UserError(f'renamed config key: {clause}.')
  try:
    positional = flags.FLAGS(argv)[1:]
    if _CONFIG.value is None:
      raise UserError('--config is needed, e.g. --config=configs/biggan_emoji.py')
    if not _WORKDIR.value:
      run = Path(_config_path().partition(':')[0]).stem
      raise UserError(f'--workdir is needed, e.g. --workdir=runs/{run}')
    if positional:
      raise UserError(f'{positional[0]!r} is not a flag.')
    _CONFIG.value.to_dict()
  except UserError:
    raise
  except OSError:
    raise missing_file(_config_path().partition(':')[0]) from None
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(_one_line(error)) from None
  return argv[:1]


def _config_path() -> str:
  flag: Any = flags.FLAGS['config']
  return flag.config_filename


def _one_line(error: Exception) -> str:
  """The message of an error on one line; of a quoted traceback only its last line."""
  lines = str(error.args[0] if error.args else error).strip().splitlines()
  if any('Traceback' in line for line in lines):
    return lines[-1].partition(': ')[2]
  text = ' '.join(lines).replace('\\n', ' ').replace("\\'", '')
  return ' '.join(text.strip('\'"').split())


def main(_: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  try:
    if _DISTRIBUTED.value:
      join(_DISTRIBUTED.value, _PEER_TIMEOUT.value)
    config = parse_config(_CONFIG.value.to_dict())
    Trainer(config, str(_WORKDIR.value), _ALLOW_CONFIG_CHANGE.value).run()
  except StoppedError:
    print('stopped while there was nothing to save; resume with the same command')
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    _exit(2)
  except BaseException:
    traceback.print_exc()
    _exit(1)
  _exit(0)


def _exit(code: int) -> NoReturn:
  """Ends the process without waiting for threads that compile or for other processes.

  After success the processes of a job leave together; otherwise the last ones would
  report the first as lost.
  """
  if code == 0 and jax.process_count() > 1:
    jax.distributed.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


if __name__ == '__main__':
  keep_freed_memory()
  run_command(lambda: app.run(main, flags_parser=parse))
