"""The config that a run wrote into its workdir."""

import json
from pathlib import Path

from gan_jax import UserError
from gan_jax.config import Config, parse_config


def read_config(workdir: str | Path) -> Config:
  """The config of the run in `workdir`.

  Raises:
    UserError: there is no run, or its config.json is of an earlier version.
  """
  path = Path(workdir) / 'config.json'
  if not path.is_file():
    raise UserError(f'{workdir} is not the folder of a run: there is no {path.name}.')
  try:
    return parse_config(json.loads(path.read_text()))
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
