"""Config files, named by path or by name: 'my/recipe.py:variant', 'biggan_emoji'."""

import json
import os
import traceback
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax import UserError
from gan_jax.config.config import Config
from gan_jax.config.overrides import Override, apply_overrides
from gan_jax.config.parsing import parse_config
from gan_jax.runtime.errors import closest
from gan_jax.runtime.urls import check_path


def load_config(name: str, overrides: Sequence[Override] = ()) -> Config:
  """The config of a file, or one of those that gan_jax ships.

  Args:
    name: 'path/x.py' or 'path/x.py:variant'; or a shipped config by its name,
      'biggan_emoji' or 'biggan_imagenet:tiny'. An existing file takes precedence.
    overrides: keys to set, ('train.accum', '2'), as the command line writes them.

  Raises:
    UserError: there is no such config or variant, or the config is invalid.
  """
  return parse_config(apply_overrides(load_raw_config(name), overrides))


def load_raw_config(name: str) -> dict[str, Any]:
  """What `get_config(variant)` of a config file returns, as nested dictionaries.

  Raises:
    UserError: there is no such config or variant, or its file cannot be run.
  """
  file, variant = find_config(name)
  try:
    values = _read_json(file) if file.suffix == '.json' else _run_file(file, variant)
  except Exception as error:  # of the user's code
    raise UserError(f'--config={name}: {_explain(error, file, variant)}') from error
  if isinstance(values, ConfigDict):
    values = values.to_dict()
  if not isinstance(values, dict):
    raise UserError(
      f'--config={name}: get_config returned {values!r}, but a ConfigDict of '
      'ml_collections is needed.'
    )
  return values


def find_config(name: str) -> tuple[Path, str]:
  """The file of a config, and the variant after the colon ('' without one).

  Raises:
    UserError: there is no such file and no such shipped config.
  """
  check_path(name)
  path, _, variant = name.rpartition(':')
  for text, chosen in ((name, ''), (path, variant)):
    file = Path(os.path.expanduser(text))
    if text and file.is_file():
      return file, chosen
  path, _, variant = name.partition(':')
  asked, configs = Path(path), shipped_configs()
  by_name = str(asked.parent) in ('.', 'configs') and asked.suffix in ('', '.py')
  if by_name and asked.stem in configs:
    return configs[asked.stem], variant
  raise _missing_config(name, path, configs)


def shipped_configs(package: Path = Path(__file__).parents[1]) -> dict[str, Path]:
  """Name -> file of the configs that gan_jax ships.

  They are in gan_jax/configs of a wheel, and in configs/ of the repository.
  """
  for folder in (package / 'configs', package.parent / 'configs'):
    if folder.is_dir():
      return {path.stem: path for path in sorted(folder.glob('*.py'))}
  return {}


def _run_file(file: Path, variant: str) -> Any:
  """What `get_config` of a Python file returns."""
  loader = SourceFileLoader('config', str(file))
  spec = spec_from_loader('config', loader)
  assert spec
  module = module_from_spec(spec)
  loader.exec_module(module)
  return module.get_config(variant) if variant else module.get_config()


def _read_json(file: Path) -> Any:
  """The config.json of a run."""
  return json.loads(file.read_text())


def _missing_config(name: str, path: str, configs: Mapping[str, Path]) -> UserError:
  """The error for a config that does not exist; suggests a shipped one."""
  folder = Path(path).expanduser()
  if folder.is_dir():
    run = folder / 'config.json'
    hint = f'; that of this run is {run}.' if run.is_file() else '.'
    return UserError(f'--config={name} is a folder, but a file is needed{hint}')
  stem = Path(path).stem
  containing = [known for known in configs if stem and stem in known]
  close = closest(stem, configs) or containing
  hint = f'did you mean {close[0]}?' if close else f'shipped are {", ".join(configs)}.'
  return UserError(f'--config={name}: there is no such file and no such config; {hint}')


def _explain(error: Exception, file: Path, variant: str) -> str:
  """Why a config file could not be run, in one clause with its line."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(file)]
  text = ' '.join(str(error).split())
  if isinstance(error, ValueError) and variant and lines:
    return text  # what get_config says about a variant
  if lines:
    return f'line {lines[-1]} failed with {type(error).__name__}: {text}'
  if isinstance(error, AttributeError):
    return 'it has no function get_config.'
  if isinstance(error, TypeError):
    variants = 'takes no variant' if variant else 'needs a variant after a colon'
    return f'its get_config {variants} ({text}).'
  return text
