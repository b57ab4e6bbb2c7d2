"""The list of all keys of a config, with values and explanations."""

import dataclasses
from collections.abc import Collection

from gan_jax.config.config import Config
from gan_jax.config.parsing import section_classes, section_keys
from gan_jax.config.values import format_value

_FAMILY = 'architecture and losses: biggan, progan or stylegan; changes the other keys'
LEGEND = """\
# SECTION.KEY = VALUE, as --config.SECTION.KEY=VALUE sets it
# *: differs from the default, or has none; >: set on the command line"""


def list_keys(config: Config, on_command_line: Collection[str] = ()) -> str:
  """One line per key: a mark, the key, its value, and what it is.

  Args:
    on_command_line: keys that are marked as set there, such as 'train.accum'.
  """
  values = config.to_dict()
  rows: list[tuple[str, str, str]] = []
  classes = section_classes(values['model'])
  for section in classes:
    fields = {field.name: field for field in dataclasses.fields(classes[section])}
    for key in section_keys(section, classes):
      value, field = values[section][key], fields.get(key)
      mark = ' ' if field and value == field.default else '*'
      mark = '>' if f'{section}.{key}' in on_command_line else mark
      text = field.metadata['help'] if field else _FAMILY
      rows.append((f'{mark} {section}.{key} =', format_value(value), text))
  name_width = max(len(name) for name, _, _ in rows)
  value_width = min(max(len(value) for _, value, _ in rows), 16)
  lines = [
    f'{name:{name_width}} {value:{value_width}}  # {text}' for name, value, text in rows
  ]
  return '\n'.join([LEGEND, *lines])
