"""What a workdir says about its run: config.json, run.json and starts.jsonl."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import gan_jax
from gan_jax import UserError
from gan_jax.config import Config
from gan_jax.config.workdir import read_config
from gan_jax.storage.files import write_json
from gan_jax.storage.nested import flatten

STARTS = 'starts.jsonl'  # a line for each time that the run was started
FREE = (
  *('train.images', 'train.mapped', 'data.threads', 'data.data_dir'),
  *('log.', 'score.', 'collapse.'),
)


def prepare_workdir(
  workdir: Path,
  config: Config,
  mesh: Mesh,
  allow: bool,
  first: bool,
  dataset: Mapping[str, Any],
) -> None:
  """Writes what this run is, and of its `dataset`; refuses the workdir of another one.

  Raises:
    UserError: the config there differs, key by key.
  """
  path = workdir / 'config.json'
  values = json.loads(json.dumps(config.to_dict()))
  flat = flatten(values)
  if path.is_file():
    old = flatten(json.loads(json.dumps(read_config(workdir).to_dict())))
    changes = [
      f'{name}: {old.get(name, "absent")} -> {flat.get(name, "absent")}'
      for name in sorted({*old, *flat})
      if old.get(name) != flat.get(name) and not name.startswith(FREE)
    ]
    if any(change.startswith('model.') for change in changes):
      raise UserError(
        f'{workdir} holds another model ({"; ".join(changes)}): take another workdir.'
      )
    if changes and not allow:
      raise UserError(
        f'{workdir} was run with another config ({"; ".join(changes)}): take another '
        'workdir, or --allow_config_change to go on with the new one.'
      )
    if changes and first:
      print(f'accepted config changes: {"; ".join(changes)}')
  if not first:
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, values)
    write_json(workdir / 'run.json', environment_record(mesh) | {'dataset': dataset})
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror}.'
    ) from error


def record_start(workdir: Path, images: int) -> None:
  """Notes in starts.jsonl that the run goes on from here; a full disk is no reason."""
  about = json.loads((workdir / 'run.json').read_text())
  names = ('started', 'devices', 'device_kind', 'processes')
  line = {'images': images} | {name: about[name] for name in names}
  with contextlib.suppress(OSError), (workdir / STARTS).open('a') as f:
    f.write(json.dumps(line) + '\n')


def environment_record(mesh: Mesh) -> dict[str, Any]:
  """Versions, devices and revision, for the record."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  source = Path(__file__).parent
  revision = subprocess.run(
    ['git', 'rev-parse', 'HEAD'], cwd=source, capture_output=True, text=True
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
