"""What a run records of itself: config.json, run.json and starts.jsonl."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import gan_jax
from gan_jax import UserError, data
from gan_jax.config import Config
from gan_jax.config.workdir import read_config, read_data_record
from gan_jax.storage.files import atomic_path, write_json
from gan_jax.storage.json_lines import append_json_lines, read_json_lines
from gan_jax.storage.nested import flatten
from gan_jax.training.compile_step import compiler_options

STARTS = 'starts.jsonl'  # one line per start of the run
FREE_KEYS = (  # prefixes of keys that may change when a run is resumed
  *('train.images', 'train.mapped', 'data.threads', 'data.data_dir', 'data.cache'),
  *('log.', 'score.', 'collapse.'),
)


def holds_run(workdir: Path) -> bool:
  return (workdir / 'config.json').is_file()


def check_resume(
  workdir: Path,
  config: Config,
  dataset: data.Dataset,
  *,
  allow_config_change: bool = False,
  allow_data_change: bool = False,
) -> list[str]:
  """Compares config and data with those of the run in `workdir`, if it holds one.

  Data that were only moved or copied are the same; data.name may then change.

  Returns:
    Sentences about accepted changes, and about data that were moved.

  Raises:
    UserError: config or data have changed; the sentence lists the keys and what has
      changed in the data.
  """
  if not holds_run(workdir):
    return []
  changes = config_changes(read_config(workdir), config)
  if any(change.startswith('model.') for change in changes):
    raise UserError(
      f'{workdir} holds another model ({"; ".join(changes)}): take another workdir.'
    )
  record = read_data_record(workdir)
  data_changes = data.find_changes(record, dataset)
  moves = [change for change in changes if change.startswith('data.name: ')]
  if data.is_comparable(record, dataset):  # a new name alone is no change
    changes = [change for change in changes if change not in moves]
    if data_changes:
      data_changes, moves = moves + data_changes, []
  else:
    moves = []
  kinds = (
    ('another config', changes, '--allow_config_change', allow_config_change),
    ('other data', data_changes, '--allow_data_change', allow_data_change),
  )
  refused = [kind for kind in kinds if kind[1] and not kind[3]]
  if refused:
    found = ' and '.join(f'{kind[0]} ({"; ".join(kind[1])})' for kind in refused)
    flags = ' and '.join(kind[2] for kind in refused)
    raise UserError(
      f'{workdir} was run with {found}: take another workdir, or {flags} to go on with '
      'the new one.'
    )
  accepted = [f'accepted {name}: {"; ".join(x)}' for name, x, *_ in kinds if x]
  return [*(f'the same data, moved: {move}' for move in moves), *accepted]


def write_run_record(
  workdir: Path, config: Config, mesh: Mesh, dataset: data.Dataset
) -> None:
  """Writes config.json and run.json, on process 0.

  Raises:
    UserError: the workdir cannot be written.
  """
  if jax.process_index() != 0:
    return
  summary = data.make_record(dataset)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    record = environment_record(mesh) | {
      'matmul_precision': _matmul_precision(config),
      'compiler_options': compiler_options(config.gan, mesh) or {},
    }
    write_json(workdir / 'run.json', record | {'dataset': summary})
    write_json(workdir / 'config.json', config.to_dict())
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror}.'
    ) from error


def config_changes(old: Config, new: Config) -> list[str]:
  """'key: old value -> new value' for each key that may not change on resume."""
  before, after = (flatten(config.to_dict()) for config in (old, new))
  return [
    f'{key}: {before.get(key, "absent")} -> {after.get(key, "absent")}'
    for key in sorted({*before, *after})
    if before.get(key) != after.get(key) and not key.startswith(FREE_KEYS)
  ]


def record_start(workdir: Path, images: int, since: float) -> None:
  """Appends a line to starts.jsonl: training starts or resumes at `images`."""
  record = json.loads((workdir / 'run.json').read_text())
  names = ('started', 'devices', 'device_kind', 'processes')
  line = {'images': images} | {name: record[name] for name in names}
  line['since'] = since
  with contextlib.suppress(OSError), (workdir / STARTS).open('a') as f:  # disk full
    f.write(json.dumps(line) + '\n')


def update_start(workdir: Path, fields: dict[str, Any]) -> None:
  """Replaces fields of the last line of starts.jsonl, that of this session."""
  with contextlib.suppress(OSError):  # disk full
    lines = read_json_lines(workdir / STARTS)
    if lines:
      lines[-1] |= fields
      with atomic_path(workdir / STARTS) as part:
        append_json_lines(part, lines)


def _matmul_precision(config: Config) -> str:
  """The precision of float32 products: the config's, else JAX's own setting."""
  if config.train.matmul_precision != 'default':
    return config.train.matmul_precision
  return jax.config.values['jax_default_matmul_precision'] or 'default'


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
