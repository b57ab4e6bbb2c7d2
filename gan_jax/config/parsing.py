"""Raw mappings -> `Config`, with one sentence for each mistake."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from absl import logging

from gan_jax import UserError
from gan_jax.config.config import FAMILIES, SCHEDULES, SECTIONS, Config
from gan_jax.config.values import typed
from gan_jax.models.base import GAN
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.keys import check_ranges

RENAMED = {  # keys of earlier versions, which are still read
  'watch.patience': 'collapse.max_skipped',
  'watch.diversity': 'collapse.min_diversity',
  'watch.gap': 'collapse.max_gap_ratio',
  'watch.sigma': 'collapse.max_sigma_ratio',
  'watch.gradient': 'collapse.max_gradient_ratio',
  'watch.sheets': 'collapse.grids',
  'watch.response': 'collapse.action',
  'watch.lower': 'collapse.lr_factor',
  'watch.rollbacks': 'collapse.max_rollbacks',
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
  values = with_present_names(values)
  check_sections(values)
  classes = section_classes(values.get('model', {}))
  gan = build_gan(values['model'])
  parsed = {
    name: _parse_section(cls, name, values.get(name, {}))
    for name, cls in classes.items()
    if name != 'model'
  }
  config = Config(gan=gan, **parsed)
  for stage in config.stages:
    config.shape(stage, n_devices=1)
  config.augment.check(
    channels=gan.channels,
    res=min(min(gan.size(stage.res)) for stage in config.stages),
    signs=min(config.images_per_step(stage) for stage in config.stages),
  )
  return config


def build_gan(model: Mapping[str, Any]) -> GAN:
  """The model section of a config as a GAN.

  Raises:
    UserError: as `parse_config`.
  """
  cls = section_classes(model)['model']
  return _parse_section(cls, 'model', {k: v for k, v in model.items() if k != 'family'})


def section_classes(model: Mapping[str, Any]) -> dict[str, Any]:
  """Section -> its dataclass, which depends on model.family.

  Raises:
    UserError: the family is unknown or missing.
  """
  family = model.get('family')
  if family not in FAMILIES:
    raise UserError(
      f'model.family is {family!r}{did_you_mean(str(family), FAMILIES)}: families are '
      f'{", ".join(FAMILIES)}.'
    )
  return {'model': FAMILIES[family], 'schedule': SCHEDULES[family], **SECTIONS}


def section_keys(section: str, classes: Mapping[str, Any]) -> list[str]:
  """The keys of a section, `model.family` included."""
  keys = [field.name for field in dataclasses.fields(classes[section])]
  return ['family', *keys] if section == 'model' else keys


def present_name(key: str) -> str:
  """The name of a key, 'section.key', that an earlier version may have called `key`.

  A name that has changed is logged as a warning.
  """
  if key in RENAMED:
    logging.warning('The config key %s is called %s now.', key, RENAMED[key])
  return RENAMED.get(key, key)


def present_value(key: str, value: Any) -> Any:
  """The value of a key, given by its present name, which may be of earlier versions."""
  return 'warn' if (key, value) == ('collapse.action', 'tell') else value


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
  """A raw config in which keys of earlier versions have their present names.

  Raises:
    UserError: a key is there under both names.
  """
  sections: dict[str, Any] = {}
  for section, keys in values.items():
    if not isinstance(keys, Mapping) or not keys:
      sections[section] = keys
      continue
    for old_key in keys:
      old_name = f'{section}.{old_key}'
      name = present_name(old_name)
      new_section, _, key = name.partition('.')
      if name != old_name and key in values.get(new_section, {}):
        raise UserError(
          f'{old_name} and {name} are both set, but {name} is the present name of '
          f'{old_name}: remove {old_name}.'
        )
      value = present_value(name, keys[old_key])
      sections.setdefault(new_section, {})[key] = value
  return sections


def check_sections(values: Mapping[str, Any]) -> None:
  """Checks the names of the sections.

  Raises:
    UserError: an unknown section, or a section that is no mapping.
  """
  names = ('model', 'schedule', *SECTIONS)
  for name, section in values.items():
    if name not in names:
      raise UserError(
        f'the config has no section {name!r}{did_you_mean(name, names)}: sections are '
        f'{", ".join(names)}.'
      )
    if not isinstance(section, Mapping):
      raise UserError(
        f'{name} is {section!r}: a section, a mapping of keys, is needed.'
      )


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
  section = cls(**{k: typed(f'{name}.{k}', v, hints[k]) for k, v in values.items()})
  check_ranges(name, section)  # g_adam and d_adam are one class
  return section
