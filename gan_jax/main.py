"""Trains a GAN, or goes on training it.

SYNOPSIS
  python -m gan_jax.main --config=CONFIG --workdir=DIR [--config.SECTION.KEY=VALUE ...]

DESCRIPTION
  CONFIG is a recipe, such as configs/biggan_emoji.py; after a colon it takes a variant:
  configs/biggan_imagenet.py:deep256, or :tiny, which runs two steps anywhere. DIR gets
  checkpoints, sheets of pictures, metrics.jsonl and report.html, a page to open in a
  browser. The same command on the same DIR resumes. Ctrl-C saves first.

EXAMPLES
  Ten minutes on a laptop:
    python -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji
  Your own pictures, a folder with a sub-folder for each label:
    python -m gan_jax.prepare photos/ sets/photos --res=256 --crop
    python -m gan_jax.main --config=configs/stylegan_lsun.py \\
      --config.data.name=./sets/photos --workdir=runs/photos
  A pod, the same on every host:
    python -m gan_jax.main --config=configs/biggan_imagenet.py:128 \\
      --workdir=/shared/run --distributed=auto

EXIT STATUS
  0 finished or asked to stop, 2 something that only you can put right, anything else:
  start the same command again.
"""

import difflib
import glob
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.runtime.distributed import join
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.training import preemption, trainer

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Recipe, such as configs/biggan_emoji.py or ...py:tiny.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; resumed if there.')
_CHANGE = flags.DEFINE_bool(
  'allow_config_change', False, 'Resume although the config differs; says where.'
)
_DISTRIBUTED = flags.DEFINE_string(
  'distributed',
  '',
  "Join the other processes of a job: 'auto' on TPU pods, SLURM and GKE, else "
  'HOST:PORT,NUMBER_OF_PROCESSES,MY_NUMBER.',
)
_PEER = flags.DEFINE_integer(
  'peer_timeout', 60, 'Seconds of silence until another process of the job is lost.'
)


WELCOME = """\
To train, say what and where; this takes ten minutes on a laptop:

  python -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji

Then look at runs/emoji/report.html, or draw:

  python -m gan_jax.sample --workdir=runs/emoji --seeds=0-63 --out=sheet.png

Recipes are in configs/; --help says the rest."""


def parse(argv: list[str]) -> list[str]:
  """absl's parser, whose errors become one sentence."""
  if len(argv) == 1:
    raise SystemExit(WELCOME)
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is None:
      raise ValueError('--config is needed, such as --config=configs/biggan_emoji.py')
    if not _WORKDIR.value:
      config: Any = flags.FLAGS['config']
      name = Path(config.config_filename.partition(':')[0]).stem
      raise ValueError(f'--workdir is needed, such as --workdir=runs/{name}')
    if len(rest) > 1:
      raise ValueError(f'{rest[1]!r} is no flag.')
    _CONFIG.value.to_dict()
  except OSError:
    flag: Any = flags.FLAGS['config']
    path = flag.config_filename.partition(':')[0]
    near = nearest(path)
    hint = f'; did you mean {near}?' if near else '.'
    raise SystemExit(f'error: --config={path}: there is no such file{hint}') from None
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise SystemExit(f'error: {_sentence(error)}') from None
  return rest


def nearest(path: str) -> str | None:
  """The config that a name which is none was probably meant to be."""
  known = {Path(name).stem: name for name in sorted(glob.glob('configs/*.py'))}
  stem = Path(path).stem
  parts = [name for name in known if stem and stem in name]
  near = difflib.get_close_matches(stem, known, 1) or parts
  return known[near[0]] if near else None


def _sentence(error: Exception) -> str:
  """What an error says, on one line; of a quoted traceback only what it ends in."""
  lines = str(error.args[0] if error.args else error).strip().splitlines()
  if any('Traceback' in line for line in lines):
    return lines[-1].partition(': ')[2]
  text = ' '.join(lines).replace('\\n', ' ').replace("\\'", '')
  return ' '.join(text.strip('\'"').split())


def main(_: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  try:
    if _DISTRIBUTED.value:
      join(_DISTRIBUTED.value, _PEER.value)
    config = parse_config(_CONFIG.value.to_dict())
    trainer.Trainer(config, str(_WORKDIR.value), _CHANGE.value).run()
  except preemption.StoppedError:
    print('stopped while there was nothing to save; resume with the same')
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    _leave(2)
  except BaseException:
    traceback.print_exc()
    _leave(1)
  _leave(0)


def _leave(code: int) -> None:
  """Ends this process now: no thread that compiles, no other process is waited for.

  After success the processes of a job leave together, or the last ones would take
  the first for lost.
  """
  if code == 0 and jax.process_count() > 1:
    jax.distributed.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


if __name__ == '__main__':
  keep_freed_memory()
  app.run(main, flags_parser=parse)
