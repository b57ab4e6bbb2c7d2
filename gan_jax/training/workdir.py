"""What a run records of itself: config.json, run.json and starts.jsonl."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import gan_jax
from gan_jax import UserError, data
from gan_jax.config import Config
from gan_jax.config.workdir import read_config
from gan_jax.runtime.errors import raise_as_user_error
from gan_jax.storage.files import write_json
from gan_jax.storage.nested import flatten

STARTS = 'starts.jsonl'  # one line per start of the run
FREE_KEYS = (  # prefixes of keys that may change when a run is resumed
  *('train.images', 'train.mapped', 'data.threads', 'data.data_dir'),
  *('log.', 'score.', 'collapse.'),
)


def prepare_workdir(
  workdir: Path,
  config: Config,
  mesh: Mesh,
  dataset: data.Dataset,
  log: Callable[[str], Any],
  allow_config_change: bool = False,
) -> None:
  """Writes config.json and run.json, on process 0.

  Raises:
    UserError: the workdir holds a run with another config (the sentence lists the
      keys), or cannot be written.
  """
  if (workdir / 'config.json').is_file():
    changes = config_changes(read_config(workdir), config)
    if any(change.startswith('model.') for change in changes):
      raise UserError(
        f'{workdir} holds another model ({"; ".join(changes)}): take another workdir.'
      )
    if changes and not allow_config_change:
      raise UserError(
        f'{workdir} was run with another config ({"; ".join(changes)}): take another '
        'workdir, or --allow_config_change to go on with the new one.'
      )
    if changes:
      log(f'accepted config changes: {"; ".join(changes)}')
  if jax.process_index() != 0:
    return
  summary = {'images': len(dataset.examples), 'classes': dataset.class_names}
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'config.json', config.to_dict())
    write_json(workdir / 'run.json', environment_record(mesh) | {'dataset': summary})
  except OSError as error:
    raise_as_user_error(error, f'--workdir={workdir} cannot be written')
    raise


def config_changes(old: Config, new: Config) -> list[str]:
  """'key: old value -> new value' for each key that may not change on resume."""
  before, after = (flatten(config.to_dict()) for config in (old, new))
  return [
    f'{key}: {before.get(key, "absent")} -> {after.get(key, "absent")}'
    for key in sorted({*before, *after})
    if before.get(key) != after.get(key) and not key.startswith(FREE_KEYS)
  ]


def record_start(workdir: Path, images: int) -> None:
  """Appends a line to starts.jsonl: training starts or resumes at `images`."""
  record = json.loads((workdir / 'run.json').read_text())
  names = ('started', 'devices', 'device_kind', 'processes')
  line = {'images': images} | {name: record[name] for name in names}
  with contextlib.suppress(OSError), (workdir / STARTS).open('a') as f:  # disk full
    f.write(json.dumps(line) + '\n')


def environment_record(mesh: Mesh) -> dict[str, Any]:
  """Versions, devices and revision of this process."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  revision = subprocess.run(
    ['git', 'rev-parse', 'HEAD'],
    cwd=Path(__file__).parent,
    capture_output=True,
    text=True,
  )
  devices = list(mesh.devices.flat)
  return {
    'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    'gan_jax': gan_jax.__version__,
    'revision': revision.stdout.strip(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in packages},
    'devices': len(devices),
    'device_kind': devices[0].device_kind,
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }
