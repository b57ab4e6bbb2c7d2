"""Config files: 'configs/x.py', or 'configs/x.py:variant' -> `Config`."""

import glob
import importlib.util
import os
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config.config import Config
from gan_jax.config.parsing import parse_config
from gan_jax.runtime.errors import closest


def load_config(path: str) -> Config:
  """The config of a file, 'configs/x.py' or 'configs/x.py:variant'.

  Raises:
    UserError: the file or the variant does not exist, or the config is invalid.
  """
  return parse_config(load_raw_config(path))


def load_raw_config(path: str) -> dict[str, Any]:
  """What `get_config(variant)` of a config file returns, as nested dictionaries.

  Raises:
    UserError: the file or the variant does not exist.
  """
  file, _, variant = path.partition(':')
  if not os.path.isfile(file):
    raise missing_file(file)
  spec = importlib.util.spec_from_file_location('config', file)
  try:
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant) if variant else module.get_config()
    return config.to_dict()
  except (AssertionError, AttributeError, SyntaxError, TypeError, ValueError) as error:
    raise UserError(f'--config={path}: {error}') from None


def missing_file(path: str) -> UserError:
  """The error for a missing config file; suggests the closest one in configs/."""
  known = {Path(name).stem: name for name in sorted(glob.glob('configs/*.py'))}
  stem = Path(path).stem
  containing = [name for name in known if stem and stem in name]
  close = closest(stem, known) or containing
  hint = f'; did you mean {known[close[0]]}?' if close else '.'
  return UserError(f'--config={path}: there is no such file{hint}')
