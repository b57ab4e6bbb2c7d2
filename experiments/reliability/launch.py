"""Starts training runs in separate processes, and reads their workdirs."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gan_jax.storage.json_lines import read_json_lines

ROOT = Path(__file__).resolve().parents[2]


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
  """Writes a config as a file for --config, and returns its path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    'from ml_collections import ConfigDict\n\n\n'
    f'def get_config():\n  return ConfigDict({dict(config)!r})\n'
  )
  return path


def start(
  workdir: Path | str,
  *flags: str,
  devices: int = 1,
  log: Path | None = None,
  **env: str,
) -> subprocess.Popen:
  """Starts a run; its output is appended to `log`, by default WORKDIR.log."""
  count = f'--xla_force_host_platform_device_count={devices}'
  quick = '--xla_backend_optimization_level=0'  # as in the tests: half the compile
  log = log or Path(workdir).with_suffix('.log')  # of a URL it has to be given
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open('a') as file:
    return subprocess.Popen(
      [sys.executable, '-m', 'gan_jax.main', f'--workdir={workdir}', *flags],
      cwd=ROOT,
      env={
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': f'{count} {quick}',
        **env,
      },
      stdout=file,
      stderr=file,
    )


def finish(*processes: subprocess.Popen) -> None:
  """Waits for runs, all of which must succeed."""
  codes = [process.wait() for process in processes]
  if any(codes):
    raise SystemExit(f'{processes[0].args}: exit codes {codes}; see the log')


def free_address() -> str:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{s.getsockname()[1]}'


def read_lines(workdir: Path, key: str = 'd_real', file: str = 'metrics.jsonl') -> list:
  """The JSON lines of a workdir's file that have `key`."""
  return [line for line in read_json_lines(workdir / file) if key in line]


def restored(workdir: Path, step: int) -> list[np.ndarray]:
  """All arrays of a checkpoint, restored by Orbax without gan_jax."""
  folder = (workdir / 'checkpoints' / str(step) / 'default').absolute()
  reader = ocp.PyTreeCheckpointer()
  tree = reader.metadata(folder).item_metadata.tree
  plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  return jax.tree.leaves(reader.restore(folder, restore_args=plain))


def equal(ours: list, theirs: list) -> bool:
  return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))
