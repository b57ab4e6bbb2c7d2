"""What a run wrote about itself into its workdir: its config, and its data."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, parse_config
from gan_jax.config.config import FAMILIES
from gan_jax.runtime.urls import check_path


def read_config(workdir: str | Path) -> Config:
  """The config of the run in `workdir`.

  Raises:
    UserError: there is no run, or its config.json is of an earlier version, corrupted
      or not readable.
  """
  path = Path(check_path(str(workdir))) / 'config.json'
  if not path.is_file():
    raise UserError(f'{workdir} is not the folder of a run: there is no {path.name}.')
  try:
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
      raise ValueError('it is no JSON object')
    return parse_config(values)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  except (ValueError, RecursionError) as error:  # JSON and UTF-8
    raise UserError(
      f'{path} is corrupted ({error}): restore it, or take another workdir.'
    ) from error
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error


def read_data_record(workdir: str | Path) -> dict[str, Any]:
  """What `gan_jax.data.make_record` returned for the data of the run in `workdir`.

  Runs of earlier versions recorded less; imported ones recorded nothing, {}.
  """
  record = _read_run_record(workdir).get('dataset')
  return record if isinstance(record, dict) else {}


def _read_run_record(workdir: str | Path) -> dict[str, Any]:
  """run.json; {} if it cannot be read."""
  try:
    record = json.loads((Path(workdir) / 'run.json').read_text())
  except (OSError, ValueError):
    return {}
  return record if isinstance(record, dict) else {}


def model_identity(workdir: str | Path) -> str:
  """What files of latents and of directions call the model of a run.

  It is the same for all checkpoints of the run, and for copies of its folder: a digest
  of the config without what may change on resume, of the number and the classes of the
  training images, and of imported weights. For example 'stylegan-32-0123456789ab'.

  Raises:
    UserError: as `read_config`.
  """
  config, record = read_config(workdir), read_data_record(workdir)
  sections = {
    name: _changed_keys(section)
    for name, section in vars(config).items()
    if name not in ('data', 'log', 'score', 'collapse')
  }
  for name in ('images', 'mapped'):
    sections['train'].pop(name, None)
  sections = {name: changed for name, changed in sections.items() if changed}
  data = {name: record.get(name) for name in ('images', 'classes')}
  imported = _read_run_record(workdir).get('weights')
  text = json.dumps([sections, data, imported], sort_keys=True)
  family = next(name for name, cls in FAMILIES.items() if type(config.gan) is cls)
  digest = hashlib.sha256(text.encode()).hexdigest()
  return f'{family}-{config.gan.res}-{digest[:12]}'


def _changed_keys(section: Any) -> dict[str, Any]:
  """The fields of a dataclass that differ from their defaults.

  A key or a section that a later version adds with defaults changes nothing.
  """
  return {
    field.name: vars(section)[field.name]
    for field in dataclasses.fields(section)
    if vars(section)[field.name] != field.default
  }
