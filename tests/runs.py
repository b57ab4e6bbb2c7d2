"""Tiny training runs and the training command, for tests of any package."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gan_jax.config import parse_config
from gan_jax.models.augmentation import OFF
from gan_jax.training.first_weights import draw_weights
from gan_jax.training.train_state import init_state
from gan_jax.training.trainer import Trainer
from tests.xla_flags import QUICK_COMPILES

ROOT = Path(__file__).parents[1]


def tiny_config(name: str = 'biggan_digits', **changes: Any) -> dict[str, Any]:
  """The raw config of configs/NAME.py:tiny; `train__images=8` sets train.images."""
  config = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  for path, value in changes.items():
    section, key = path.split('__')
    config.setdefault(section, {})[key] = value
  return config


def train(raw_config, workdir, **kwargs):
  """Trains in this process; returns the last train state."""
  return Trainer(parse_config(raw_config), workdir, **kwargs).run()


def first_state(gan, g_tx, d_tx, key, augmentation=OFF):
  """`init_state` in less time: an array at a time, each would be a compiled program."""
  return draw_weights(lambda key: init_state(gan, g_tx, d_tx, key, augmentation), key)


def start_main(*flags, devices=1, **env):
  """Starts `python -m gan_jax.main` on virtual devices."""
  count = f'--xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.main', *flags],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': f'{count} {QUICK_COMPILES}', **env},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run_program(path, *args, **env):
  """Runs a Python file to its end in a process of its own."""
  return subprocess.run(
    [sys.executable, path, *map(str, args)],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), **env},
    capture_output=True,
    text=True,
  )


def output(process):
  """All that a process prints, once it has ended."""
  try:
    return ''.join(process.communicate(timeout=900))
  finally:
    process.kill()


def wait_until(condition, *processes):
  """Waits for something that running processes bring about."""
  while not condition():
    assert all(p.poll() is None for p in processes), [output(p) for p in processes]
    time.sleep(0.01)


def metric_lines(workdir, key='d_real', file='metrics.jsonl'):
  """The lines of metrics.jsonl that have `key`; the last may be half written."""
  path, lines = workdir / file, []
  with contextlib.suppress(ValueError):
    for text in path.read_text().splitlines() if path.is_file() else ():
      lines.append(json.loads(text))
  return [line for line in lines if key in line]
