"""Keys of a config: dataclass fields that explain themselves and state their range."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gan_jax.runtime.errors import UserError

REQUIRED: Any = dataclasses.MISSING


def key(
  default: Any,
  help: str,
  *,
  at_least: float | None = None,
  above: float | None = None,
  at_most: float | None = None,
  choices: Sequence[str] = (),
) -> Any:
  """A dataclass field that is a key of a config.

  Args:
    default: its default, or REQUIRED.
    help: one line, which `gan_jax.main --show` prints.
    at_least: smallest value; of a tuple, smallest entry.
    above: number that every value exceeds.
    at_most: largest value.
    choices: the values allowed, if not all; of a tuple, the entries.
  """
  metadata = {
    'help': help,
    'at_least': at_least,
    'above': above,
    'at_most': at_most,
    'choices': tuple(choices),
  }
  return dataclasses.field(default=default, metadata=metadata)


def check_ranges(section: str, values: Any) -> None:
  """Checks the fields of a dataclass that `key` defined.

  Raises:
    UserError: a value is out of its range, or none of its choices.
  """
  for field in dataclasses.fields(values):
    if 'at_least' not in field.metadata:
      continue
    value, limits = getattr(values, field.name), field.metadata
    name = f'{section}.{field.name}'
    least, above, most = limits['at_least'], limits['above'], limits['at_most']
    entries = value if isinstance(value, tuple) else (value,)
    numbers = [n for n in entries if isinstance(n, int | float)]
    verb, subject = ('contains', 'entries') if type(value) is tuple else ('is', 'it')
    if least is not None and numbers and min(numbers) < least:
      raise UserError(
        f'{name} {verb} {min(numbers)}: {subject} must be at least {least}.'
      )
    if above is not None and numbers and min(numbers) <= above:
      raise UserError(f'{name} {verb} {min(numbers)}: {subject} must be above {above}.')
    if most is not None and numbers and max(numbers) > most:
      raise UserError(
        f'{name} {verb} {max(numbers)}: {subject} must be at most {most}.'
      )
    strange = [entry for entry in entries if entry not in limits['choices']]
    if limits['choices'] and strange:
      *others, last = limits['choices']
      raise UserError(
        f'{name} {verb} {strange[0]!r}: allowed are {", ".join(others)} and {last}.'
      )
