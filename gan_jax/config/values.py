"""Values of config keys: their types, and how the command line writes them.

The type of a key is the annotation of its dataclass field: bool, int, float, str,
tuple[X, ...], or one of these with `| None`.
"""

import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from gan_jax import UserError

SYNTAX = """\
  int     52000, 52_000, or 25e6 where that is a whole number
  float   0.5, 3, 2e-4
  bool    true or false; the key alone is true
  str     as it is: --config.data.name=cifar10
  tuple   8,4 or (8, 4) or [8,4], in quotes where the shell needs them; one entry: 8;
          none: (). Any length that the section accepts
  or None none, where the key allows it"""

_TRUE, _FALSE = ('true', 't', '1'), ('false', 'f', '0')
_ENTRY = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")


def typed(key: str, value: Any, annotation: Any) -> Any:
  """The value as the type of its key; accepts ints for floats and lists for tuples.

  Raises:
    UserError: it has another type.
  """
  annotation, optional = _without_none(annotation)
  if value is None and optional:
    return None
  if typing.get_origin(annotation) is tuple:
    if isinstance(value, list | tuple):
      item = typing.get_args(annotation)[0]
      return tuple(typed(f'{key}[{i}]', v, item) for i, v in enumerate(value))
  elif annotation is float and type(value) is int:
    return float(value)
  elif type(value) is annotation and not _is_infinite(value):
    return value
  raise UserError(f'{key} is {value!r}: {type_name(annotation, optional)} is needed.')


def parse_text(key: str, text: str, annotation: Any) -> Any:
  """The value that `text` on the command line stands for; see `SYNTAX`.

  Raises:
    UserError: it stands for no value of this type.
  """
  annotation, optional = _without_none(annotation)
  if optional and text.lower() == 'none':
    return None
  if typing.get_origin(annotation) is tuple:
    item = typing.get_args(annotation)[0]
    try:
      return tuple(_parse_word(entry, item) for entry in entries(text))
    except ValueError:
      pass
  else:
    try:
      return _parse_word(text, annotation)
    except ValueError:
      pass
  raise UserError(f'{key} is {text!r}: {type_name(annotation, optional)} is needed.')


def entries(text: str) -> Iterator[str]:
  """The entries of a tuple: '8,4', '(8, 4)' and '[8,4]' -> '8', '4'.

  An entry may be quoted. A comma after the last entry is ignored.

  Raises:
    ValueError: an entry is empty, or a bracket has no partner.
  """
  text = text.strip()
  if (text[:1], text[-1:]) in (('(', ')'), ('[', ']')):
    text = text[1:-1].strip()
  position = 0
  while position < len(text):
    match = _ENTRY.match(text, position)
    if not match:
      raise ValueError(text)
    single, double, plain = match.groups()
    if plain is not None and (not plain or plain[0] in '([' or plain[-1] in ')]'):
      raise ValueError(text)
    yield next(entry for entry in (single, double, plain) if entry is not None)
    position = match.end()


def format_value(value: Any) -> str:
  """The value as the command line writes it; `parse_text` inverts it."""
  if isinstance(value, tuple):
    return ','.join(map(str, value)) or '()'
  return str(value) if value != '' else "''"


def type_name(annotation: Any, optional: bool = False) -> str:
  """The type in words: 'int', 'a tuple of ints', 'float or none'."""
  if typing.get_origin(annotation) is tuple:
    name = f'a tuple of {typing.get_args(annotation)[0].__name__}s'
  else:
    name = annotation.__name__
  return f'{name} or none' if optional else name


def _without_none(annotation: Any) -> tuple[Any, bool]:
  """`X | None` -> (X, True); X -> (X, False)."""
  if isinstance(annotation, types.UnionType) or (
    typing.get_origin(annotation) is typing.Union
  ):
    (kept,) = (t for t in typing.get_args(annotation) if t is not types.NoneType)
    return kept, True
  return annotation, False


def _is_infinite(value: Any) -> bool:
  """Whether the value is a float, but no finite number."""
  return isinstance(value, float) and not math.isfinite(value)


def _parse_word(text: str, annotation: Any) -> Any:
  """A value that is no tuple; raises ValueError."""
  if annotation is bool:
    if text.lower() not in (*_TRUE, *_FALSE):
      raise ValueError(text)
    return text.lower() in _TRUE
  if annotation is int:
    return _parse_int(text.strip())
  if annotation is float:
    if _is_infinite(float(text)):
      raise ValueError(text)
    return float(text)
  return annotation(text)


def _parse_int(text: str) -> int:
  """'1000', '1_000' and '1e3' -> 1000; raises ValueError."""
  if not re.fullmatch(r'[+-]?\d+(\.\d+)?[eE]\+?\d{1,2}', text):
    return int(text)
  digits, _, exponent = text.lower().partition('e')
  whole, _, fraction = digits.partition('.')
  fraction = fraction.rstrip('0')
  if len(fraction) > int(exponent):
    raise ValueError(text)
  return int(whole + fraction) * 10 ** (int(exponent) - len(fraction))
