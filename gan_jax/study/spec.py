"""What a study is: its TOML file and flags, and the study.json in its folder."""

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import load_raw_config, parse_config
from gan_jax.config.overrides import Override, apply_overrides
from gan_jax.config.values import format_value, parse_text, typed
from gan_jax.plan.__main__ import split_values
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.keys import check_ranges, key
from gan_jax.storage.nested import flatten

STUDY_FILE = 'study.json'
RULES: dict[str, Callable[[float], float]] = {  # of (batch / config's batch)
  'constant': lambda ratio: 1.0,
  'sqrt': lambda ratio: ratio**0.5,
  'linear': lambda ratio: ratio,
}


@dataclasses.dataclass(frozen=True)
class StudySpec:
  """The keys of a study file; each but `sweep` and `set` is also a flag."""

  name: str = key('', 'title of the page; default: the name of the folder')
  config: str = key('', 'as --config')
  images: int = key(0, "budget: images of each run; 0: the config's", at_least=0)
  batches: tuple[int, ...] = key((), "batch sizes; (): the config's", at_least=1)
  lr_rules: tuple[str, ...] = key(
    ('constant',), 'how learning rates follow the batch', choices=tuple(RULES)
  )
  lr_factors: tuple[float, ...] = key(
    (1.0,), 'grid of factors on top of each rule', above=0
  )
  seeds: tuple[int, ...] = key((0,), 'a number of seeds, or a list', at_least=0)
  d_steps: tuple[int, ...] = key((), 'sweep of train.d_steps', at_least=1)
  accum: tuple[int, ...] = key((), 'sweep of train.accum', at_least=1)
  score: str = key('fd_small', 'the score that is followed')
  score_every: int = key(
    0, 'images between scores; 0: a twentieth of images', at_least=0
  )
  targets: tuple[float, ...] = key((), 'values of the score to reach')
  truncations: tuple[float, ...] = key(
    (), 'truncation values at which finished runs are scored', above=0
  )
  topologies: tuple[str, ...] = key((), 'slices to plan for; (): local')
  # Config key -> values, or value, as the command line writes them.
  sweep: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  set: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
  """A study: its folder, its keys and the config that its cells change."""

  folder: Path
  spec: StudySpec
  base: Mapping[str, Any]  # a raw config with all keys

  @property
  def title(self) -> str:
    return self.spec.name or self.folder.resolve().name


_HINTS = typing.get_type_hints(StudySpec)
_FIELDS = {field.name: field for field in dataclasses.fields(StudySpec)}
FLAGS = {name: f for name, f in _FIELDS.items() if 'help' in f.metadata}


def refuse(faults: Sequence[str]) -> None:
  """Raises a UserError that lists all faults, if there are any."""
  faults = list(dict.fromkeys(faults))
  if len(faults) == 1:
    raise UserError(faults[0])
  if faults:
    lines = ''.join(f'\n  {fault}' for fault in faults)
    raise UserError(f'the study has {len(faults)} mistakes, nothing is done:{lines}')


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds a flag for each key of a study file, and --sweep."""
  for name, field in FLAGS.items():
    if name != 'config':
      parser.add_argument(f'--{name}', help=field.metadata['help'])
  parser.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=VALUE[,VALUE...]',
    help='values of a config key, such as model.remat=False,True; may be repeated',
  )


def read_study(
  args: argparse.Namespace, overrides: Sequence[Override], faults: list[str]
) -> Study:
  """The study that flags, the study file and DIR/study.json describe.

  The file replaces the keys in study.json, and flags replace single ones.

  Args:
    args: with `study`, `spec`, `sweep` and one attribute for each of FLAGS.
    overrides: config keys of the command line, set in all cells.
    faults: gets one sentence for each mistake in keys and values.

  Raises:
    UserError: there is no study and none is described; or its config cannot be read,
      which then comes after the other mistakes.
  """
  stored = _read_stored(args.study) or {'spec': {}, 'base': None}
  values = read_spec_file(args.spec) if args.spec else dict(stored['spec'])
  given = _flag_values(args, faults)
  renewed = 'config' in given or args.spec and 'config' in values
  values |= given
  values['sweep'] = _table(values, 'sweep', faults) | _swept(args.sweep, faults)
  values['set'] = _table(values, 'set', faults) | {
    name: 'true' if text is None else text for name, text in overrides
  }
  values.setdefault('config', stored['spec'].get('config', ''))
  spec, base = parse_spec(values, faults), stored['base']
  try:
    if renewed or base is None:
      base = _read_base(args.study, spec.config)
  except UserError as error:
    refuse([*faults, str(error)])
  return Study(args.study, _valid_keys(spec, base, faults), base)


def _read_base(folder: Path, config: str) -> dict[str, Any]:
  """The config that the cells change, with all keys, as JSON reads it.

  Raises:
    UserError: none is named, or it cannot be read.
  """
  if not config:
    raise UserError(
      f'--study={folder} holds no study yet: give --config=CONFIG, such as '
      '--config=biggan_digits, and a study file with --spec=FILE.toml.'
    )
  return json.loads(json.dumps(parse_config(load_raw_config(config)).to_dict()))


def read_spec_file(path: Path) -> dict[str, Any]:
  """The keys of a TOML file.

  Raises:
    UserError: there is no such file, or it is not TOML.
  """
  try:
    return tomllib.loads(path.read_text())
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise UserError(f'--spec={path} is not TOML: {error}.') from error
  except OSError as error:
    raise UserError(f'--spec={path} cannot be read: {error.strerror}.') from error


def parse_spec(values: Mapping[str, Any], faults: list[str]) -> StudySpec:
  """The keys of a study, checked; adds one sentence to `faults` for each mistake."""
  parsed: dict[str, Any] = {}
  for name, value in values.items():
    if name not in _FIELDS:
      known = ', '.join(_FIELDS)
      hint = did_you_mean(name, _FIELDS)
      faults.append(f'a study has no key {name!r}{hint}: keys are {known}.')
      continue
    if name in ('sweep', 'set'):
      parsed[name] = value
      continue
    try:
      parsed[name] = _typed_key(name, value)
      check_ranges('study', StudySpec(**{name: parsed[name]}))
    except UserError as error:
      parsed.pop(name, None)
      faults.append(str(error))
  return StudySpec(**parsed)


def _typed_key(name: str, value: Any) -> Any:
  """The value of a key; a single value stands for a list of one, 3 seeds for 0, 1, 2.

  Raises:
    UserError: another type, or a value that is there twice.
  """
  hint = _HINTS[name]
  if name == 'seeds' and type(value) is int and value >= 1:
    return tuple(range(value))
  if typing.get_origin(hint) is tuple and not isinstance(value, list | tuple):
    value = [value]
  value = typed(name, value, hint)
  if isinstance(value, tuple) and len(set(value)) < len(value):
    raise UserError(f'{name} contains a value twice: {format_value(value)}.')
  return value


def _flag_values(args: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
  """Keys that the command line gives."""
  values: dict[str, Any] = {}
  for name in FLAGS:
    text = getattr(args, name)
    if text is None:
      continue
    try:
      many = name == 'seeds' and ',' not in text
      values[name] = parse_text(f'--{name}', text, int if many else _HINTS[name])
    except UserError as error:
      faults.append(str(error))
  return values


def _table(values: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, Any]:
  """The table [sweep] or [set]: config key -> text, or texts, of the command line."""
  table = values.get(name, {})
  if not isinstance(table, Mapping):
    faults.append(f'{name} is {table!r}: a table of config keys, [{name}], is needed.')
    return {}
  flat = flatten(table)
  if name == 'set':
    return {k: _text(v) for k, v in flat.items()}
  texts = {}
  for k, choices in flat.items():
    texts[k] = tuple(map(_text, choices if isinstance(choices, list) else [choices]))
    if not texts[k] or len(set(texts[k])) < len(texts[k]):
      faults.append(f'[sweep] {k} needs one or several different values.')
  return texts


def _text(value: Any) -> str:
  """A value of TOML or JSON as the command line writes it."""
  return format_value(tuple(value) if isinstance(value, list | tuple) else value)


def _swept(texts: Sequence[str], faults: list[str]) -> dict[str, tuple[str, ...]]:
  """Config key -> values, of the flags --sweep."""
  swept = {}
  for text in texts:
    name, _, values = text.partition('=')
    swept[name] = tuple(split_values(values))
    if not swept[name]:
      faults.append(
        f'--sweep={text}: give a key of the config and its values, such as '
        'model.remat=False,True.'
      )
  return swept


def _valid_keys(
  spec: StudySpec, base: Mapping[str, Any], faults: list[str]
) -> StudySpec:
  """The spec without keys of [sweep] and [set] that are none, and wrong values."""

  def is_valid(key: str, text: str) -> bool:
    try:
      apply_overrides(base, [(key, text)])
    except UserError as error:
      faults.append(str(error).replace('--config.', ''))
      return False
    return True

  sweep = {
    key: tuple(text for text in texts if is_valid(key, text))
    for key, texts in spec.sweep.items()
  }
  return dataclasses.replace(
    spec,
    sweep={key: texts for key, texts in sweep.items() if texts},
    set={key: text for key, text in spec.set.items() if is_valid(key, text)},
  )


def _read_stored(folder: Path) -> dict[str, Any] | None:
  """What study.json says; None without one.

  Raises:
    UserError: it is corrupted.
  """
  path = folder / STUDY_FILE
  try:
    stored = json.loads(path.read_text())
    return {name: stored[name] for name in ('spec', 'base')}
  except FileNotFoundError:
    return None
  except NotADirectoryError as error:
    raise UserError(f'--study={folder} is not a folder: name one.') from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(
      f'{path} is corrupted: delete it and give --config and --spec again.'
    ) from error


def save_study(study: Study) -> None:
  """Writes study.json, unless it says the same already.

  Several processes, on several hosts, may do so at once: each writes a file of its own
  name and renames it.

  Raises:
    UserError: the folder cannot be written.
  """
  path = study.folder / STUDY_FILE
  stored = {'spec': dataclasses.asdict(study.spec), 'base': study.base}
  text = json.dumps(stored, indent=1) + '\n'
  try:
    if path.is_file() and path.read_text() == text:
      return
    study.folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=study.folder, prefix='.study.', text=True)
    try:
      with open(handle, 'w') as file:
        file.write(text)
      os.chmod(part, 0o644)
      os.replace(part, path)
    finally:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
  except OSError as error:
    raise UserError(
      f'--study={study.folder} cannot be written: {error.strerror}.'
    ) from error
