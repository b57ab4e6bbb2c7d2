"""The config that a run wrote into its workdir."""

import json
from pathlib import Path

from gan_jax import UserError
from gan_jax.config import Config, parse_config
from gan_jax.runtime.errors import raise_as_user_error


def read_config(workdir: str | Path) -> Config:
  """The config of the run in `workdir`.

  Raises:
    UserError: there is no run, or its config.json is of an earlier version, corrupted
      or not readable.
  """
  path = Path(workdir) / 'config.json'
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
    raise_as_user_error(error, f'{path} cannot be read')
    raise
