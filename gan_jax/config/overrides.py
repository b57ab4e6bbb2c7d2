"""Config keys on the command line: --config.SECTION.KEY=VALUE.

Every key of every section can be set, whether or not the config file has it: names and
types are those of the sections' dataclasses.
"""

import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax import UserError
from gan_jax.config.parsing import (
  check_sections,
  present_name,
  present_value,
  section_classes,
  section_keys,
  with_present_names,
)
from gan_jax.config.values import parse_text
from gan_jax.runtime.errors import closest, did_you_mean

Override = tuple[str, str | None]  # 'section.key' and its text; None: no text was given

_FLAG = re.compile(r'--?(?P<no>no)?config\.(?P<key>[^=]*)(=(?P<text>.*))?', re.DOTALL)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
  """Separates flags of config keys from the other arguments.

  A key and its value are one argument, --config.a.b=1, or two, --config.a.b 1. A key
  without a value stands for true, --noconfig.a.b for false.
  """
  others: list[str] = []
  overrides: list[Override] = []
  arguments = list(argv)
  while arguments:
    argument = arguments.pop(0)
    match = _FLAG.fullmatch(argument)
    if not match:
      others.append(argument)
      continue
    text = 'false' if match['no'] else match['text']
    if text is None and arguments and not re.match(r'-(?![\d.])', arguments[0]):
      text = arguments.pop(0)
    overrides.append((match['key'], text))
  return others, overrides


def apply_overrides(
  values: Mapping[str, Any], overrides: Sequence[Override]
) -> dict[str, dict[str, Any]]:
  """A raw config with some keys replaced or added; the last value of a key counts.

  Raises:
    UserError: an unknown key, a value of another type, or a family that the
      config file does not fit; or the sections of the config are not valid.
  """
  values = with_present_names(values)
  check_sections(values)
  changed = {name: dict(section) for name, section in values.items()}
  changed.setdefault('model', {})
  before = changed['model'].get('family')
  for key, text in overrides:
    if key == 'model.family':
      changed['model']['family'] = text
  classes = section_classes(changed['model'])
  for key, text in overrides:
    section, name = _known_key(key, classes)
    if name == 'family' and section == 'model':
      continue
    annotation = typing.get_type_hints(classes[section])[name]
    if text is None and annotation is not bool:
      raise UserError(f'--config.{key} needs a value: --config.{key}=VALUE.')
    value = parse_text(key, 'true' if text is None else text, annotation)
    value = present_value(f'{section}.{name}', value)
    changed.setdefault(section, {})[name] = value
  _check_family(before, changed, classes)
  return changed


def _known_key(key: str, classes: Mapping[str, type]) -> tuple[str, str]:
  """'section.key' -> (section, key).

  Raises:
    UserError: there is no such key; names similar ones.
  """
  section, _, name = present_name(key).partition('.')
  if section in classes and name in section_keys(section, classes):
    return section, name
  known = [f'{s}.{k}' for s in classes for k in section_keys(s, classes)]
  last = (name or section).rpartition('.')[2]
  elsewhere = [k for k in known if last and k.partition('.')[2] == last]
  close = (closest(key, known) if name else []) or elsewhere or closest(key, known)
  hint = f' (did you mean --config.{close[0]}?)' if close else ''
  if section in classes and name:
    keys = ', '.join(section_keys(section, classes))
    raise UserError(
      f'--config.{key}: {section} has no key {name!r}{hint}: keys are {keys}.'
    )
  if not hint and section not in classes:
    hint = did_you_mean(section, classes)
  raise UserError(
    f'--config.{key}: there is no such key{hint}: a key is SECTION.KEY, and the '
    f'sections are {", ".join(classes)}.'
  )


def _check_family(
  before: Any, values: Mapping[str, Mapping[str, Any]], classes: Mapping[str, type]
) -> None:
  """Refuses another family for a config file whose keys that family does not have."""
  family = values['model'].get('family')
  strange = [
    f'{section}.{key}'
    for section in ('model', 'schedule')
    for key in values.get(section, {})
    if key not in section_keys(section, classes)
  ]
  if before != family and strange:
    raise UserError(
      f'--config.model.family={family}: the config file is for {before}, and '
      f'{", ".join(strange)} {"is no key" if len(strange) == 1 else "are no keys"} of '
      f'{family}: take a config file for {family}.'
    )
