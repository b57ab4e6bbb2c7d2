"""Raw mappings -> `Config`, with one sentence for each mistake."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from gan_jax import UserError
from gan_jax.config.config import FAMILIES, SCHEDULES, SECTIONS, Config
from gan_jax.models.base import GAN
from gan_jax.runtime.errors import did_you_mean

RENAMED = {  # keys of earlier versions
  'watch.patience': 'collapse.max_skipped',
  'watch.diversity': 'collapse.min_diversity',
  'watch.gap': 'collapse.max_gap_ratio',
  'watch.sigma': 'collapse.max_sigma_ratio',
  'watch.gradient': 'collapse.max_gradient_ratio',
  'watch.sheets': 'collapse.grids',
  'watch.response': "collapse.action ('tell' is now 'warn')",
  'watch.lower': 'collapse.lr_factor',
  'watch.rollbacks': 'collapse.max_rollbacks',
  'watch': 'collapse',
  'log.sheet_every': 'log.grid_every',
  'log.sheet_rows': 'log.grid_rows',
  'log.sheet_columns': 'log.grid_columns',
  'log.ring': 'log.keep_periodic',
}


def parse_config(values: Mapping[str, Any]) -> Config:
  """A raw config, a mapping of sections, as a `Config`.

  Raises:
    UserError: an unknown, renamed or missing key, a wrong type or an impossible value;
      one sentence that names the key and what is allowed.
  """
  _reject_renamed(values)
  names = ('model', 'schedule', *SECTIONS)
  for key in values:
    if key not in names:
      raise UserError(
        f'the config has no section {key!r}{did_you_mean(key, names)}: sections are '
        f'{", ".join(names)}.'
      )
  gan = build_gan(values.get('model', {}))
  sections = SECTIONS | {'schedule': SCHEDULES[values['model']['family']]}
  parsed = {
    name: _parse_section(cls, name, values.get(name, {}))
    for name, cls in sections.items()
  }
  config = Config(gan=gan, **parsed)
  for stage in config.stages:
    config.shape(stage, n_devices=1)
  return config


def build_gan(model: Mapping[str, Any]) -> GAN:
  """The model section of a config as a GAN.

  Raises:
    UserError: as `parse_config`.
  """
  fields = dict(model)
  family = fields.pop('family', None)
  if family not in FAMILIES:
    raise UserError(
      f'model.family is {family!r}{did_you_mean(str(family), FAMILIES)}: families are '
      f'{", ".join(FAMILIES)}.'
    )
  return _parse_section(FAMILIES[family], 'model', fields)


def renamed_key(key: str) -> str | None:
  """One clause that names the successor of a key of an earlier version, or None."""
  return f'{key} is now {RENAMED[key]}' if key in RENAMED else None


def _reject_renamed(values: Mapping[str, Any]) -> None:
  keys: list[str] = []
  for name, section in values.items():
    inner = section if isinstance(section, Mapping) else {}
    keys += [f'{name}.{key}' for key in inner] or [name]
  clauses = [clause for key in keys if (clause := renamed_key(key))]
  if clauses:
    raise UserError(f'renamed config keys: {", ".join(clauses)}.')
  if values.get('collapse', {}).get('action') == 'tell':
    raise UserError("collapse.action is 'tell': it is now called 'warn'.")


def _parse_section(cls: type, name: str, values: Mapping[str, Any]) -> Any:
  hints = typing.get_type_hints(cls)
  fields = {f.name: f for f in dataclasses.fields(cls)}
  for key in values:
    if key not in fields:
      raise UserError(
        f'{name} has no key {key!r}{did_you_mean(key, fields)}: keys are '
        f'{", ".join(fields)}.'
      )
  for key, field in fields.items():
    if field.default is dataclasses.MISSING and key not in values:
      raise UserError(f'{name}.{key} is missing; it has no default.')
  return cls(**{k: _typed(f'{name}.{k}', v, hints[k]) for k, v in values.items()})


def _typed(key: str, value: Any, hint: Any) -> Any:
  """The value as the field's type; accepts ints for floats and lists for tuples."""
  if typing.get_origin(hint) is tuple:
    item = typing.get_args(hint)[0]
    if isinstance(value, list | tuple):
      return tuple(_typed(f'{key}[{i}]', v, item) for i, v in enumerate(value))
    raise UserError(f'{key} is {value!r}: a tuple of {item.__name__}s is needed.')
  if hint is float and type(value) is int:
    return float(value)
  if type(value) is not hint:
    raise UserError(f'{key} is {value!r}: {hint.__name__} is needed.')
  return value
