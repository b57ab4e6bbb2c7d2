"""What a run wrote about itself into its workdir: its config, and its data."""

import json
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, parse_config
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
  try:
    record = json.loads((Path(workdir) / 'run.json').read_text())['dataset']
  except (OSError, ValueError, KeyError, TypeError):
    return {}
  return record if isinstance(record, dict) else {}
