"""Command-line flags that are generated from the fields of a dataclass."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar('T')


def flag(
  default: Any,
  help: str,
  *,
  choices: Sequence[str] | None = None,
  metavar: str | None = None,
) -> Any:
  """A dataclass field with a default that `add_flags` turns into `--<field name>`."""
  metadata = {'help': help, 'choices': choices, 'metavar': metavar}
  return dataclasses.field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, options: type) -> None:
  """Adds one flag for each field of the dataclass `options` that `flag` defined.

  The type of the flag is the annotation of the field: bool, or int, float or str, each
  with or without `| None`. The default is the field's, and the help shows it.
  """
  annotations = typing.get_type_hints(options)
  for field in dataclasses.fields(options):
    if 'help' not in field.metadata:
      continue
    name, settings = f'--{field.name}', dict(field.metadata)
    settings['default'] = field.default
    if field.default and 'default' not in settings['help'] and field.default != inf:
      settings['help'] += f'; default: {field.default}'
    value_type = _value_type(annotations[field.name])
    if value_type is bool:
      del settings['choices'], settings['metavar']
      parser.add_argument(name, action='store_true', **settings)
    else:
      parser.add_argument(name, type=value_type, **settings)


def parsed_flags(options: type[T], args: argparse.Namespace) -> T:
  """The dataclass instance that a parsed command line describes."""
  fields = dataclasses.fields(options)  # type: ignore[arg-type]
  values = {f.name: getattr(args, f.name) for f in fields if 'help' in f.metadata}
  return options(**values)


def to_flags(options: Any) -> list[str]:
  """The command line that `parsed_flags` reads as `options`, without the defaults."""
  flags = []
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    if value is True:
      flags.append(f'--{field.name}')
    elif value != field.default:
      flags.append(f'--{field.name}={value}')
  return flags


def path(text: str) -> Path:
  """The type of a flag that takes a path: '~' becomes the home folder.

  Raises:
    argparse.ArgumentTypeError: the path is empty, or there is no such user.
  """
  if not text:
    raise argparse.ArgumentTypeError('a path is needed')
  try:
    return Path(text).expanduser()
  except RuntimeError as error:
    raise argparse.ArgumentTypeError(f'{text}: there is no such user') from error


def _value_type(annotation: Any) -> type:
  """`int | None` -> int; any other annotation is returned as it is."""
  if isinstance(annotation, types.UnionType):
    (annotation,) = [t for t in annotation.__args__ if t is not types.NoneType]
  return annotation
