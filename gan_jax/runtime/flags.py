"""Command-line flags that are generated from the fields of a dataclass."""

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from gan_jax.runtime.commands import program_name
from gan_jax.runtime.errors import UserError, did_you_mean
from gan_jax.runtime.urls import check_path, check_url, is_url

T = TypeVar('T')


class CommandParser(argparse.ArgumentParser):
  """The parser of a command: a mistake is one sentence, and exit code 2.

  Flags cannot be abbreviated, since an abbreviation may change its meaning when a flag
  is added.
  """

  def __init__(
    self,
    module: str,
    description: str,
    epilog: str | None = None,
    formatter: type[argparse.HelpFormatter] = argparse.HelpFormatter,
  ) -> None:
    """`module` is what `python -m` runs, such as 'gan_jax.sample'."""
    super().__init__(
      program_name(module),
      description=description,
      epilog=epilog,
      formatter_class=formatter,
      allow_abbrev=False,
    )

  def parse_args(  # type: ignore[override]
    self, args: Sequence[str] | None = None, namespace: Any = None
  ) -> argparse.Namespace:
    parsed, unknown = self.parse_known_args(args, namespace)
    if unknown:
      self.error(self._unknown(unknown[0]))
    return parsed

  def error(self, message: str) -> NoReturn:
    """Prints the sentence and ends the process."""
    text = message.removeprefix('argument ').rstrip('.')
    print(f'error: {text}; {self.prog} --help lists the flags.', file=sys.stderr)
    sys.exit(2)

  def _unknown(self, argument: str) -> str:
    name = argument.partition('=')[0]
    known = [flag for action in self._actions for flag in action.option_strings]
    if name.startswith('-'):
      return f'there is no flag {name}{did_you_mean(name, known)}'
    return f'{argument!r} is not a flag'


def flag(
  default: Any,
  help: str,
  *,
  choices: Sequence[str] | None = None,
  metavar: str | None = None,
  joined: bool = False,
) -> Any:
  """A dataclass field with a default that `add_flags` turns into `--<field name>`.

  Args:
    joined: the flag may be given several times; commas join the values.
  """
  metadata = {'help': help, 'choices': choices, 'metavar': metavar, 'joined': joined}
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
    if settings.pop('joined'):
      settings['action'] = _Join
    if value_type is bool:
      del settings['choices'], settings['metavar']
      parser.add_argument(name, action='store_true', **settings)
    else:
      parser.add_argument(name, type=value_type, **settings)


class _Join(argparse.Action):
  """Joins the values of a flag that is given several times."""

  def __call__(
    self,
    parser: argparse.ArgumentParser,
    namespace: argparse.Namespace,
    values: Any,
    option_string: str | None = None,
  ) -> None:
    before = getattr(namespace, self.dest)
    joined = f'{before},{values}' if before and isinstance(before, str) else values
    setattr(namespace, self.dest, joined)


def parsed_flags(options: type[T], args: argparse.Namespace) -> T:
  """The dataclass instance that a parsed command line describes."""
  fields = dataclasses.fields(options)  # type: ignore[arg-type]
  values = {f.name: getattr(args, f.name) for f in fields if 'help' in f.metadata}
  return options(**values)


def given_flags(
  parser: argparse.ArgumentParser, options: type, args: Sequence[str] | None = None
) -> dict[str, Any]:
  """Values of the flags of `options` that a command line names, by field.

  Args:
    args: the command line; None for that of the process.
  """
  absent = object()
  names = [f.name for f in dataclasses.fields(options) if 'help' in f.metadata]
  parsed = parser.parse_args(args, argparse.Namespace(**dict.fromkeys(names, absent)))
  values = {name: getattr(parsed, name) for name in names}
  return {name: value for name, value in values.items() if value is not absent}


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
    argparse.ArgumentTypeError: the path is empty or a URL, or there is no such user.
  """
  if not text:
    raise argparse.ArgumentTypeError('a path is needed')
  try:
    return Path(check_path(text)).expanduser()
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
  except RuntimeError as error:
    raise argparse.ArgumentTypeError(f'{text}: there is no such user') from error


def workdir(text: str) -> Path | str:
  """The type of a flag that names the folder of a run: a path, or a URL of a store.

  Raises:
    argparse.ArgumentTypeError: as `path`, or there is a mistake in the URL.
  """
  return _place(text, bucket_alone=False)


def data_dir(text: str) -> Path | str:
  """The type of a flag that names the folder of data sets, or a URL, or a bucket.

  Raises:
    argparse.ArgumentTypeError: as `workdir`.
  """
  return _place(text, bucket_alone=True)


def _place(text: str, bucket_alone: bool) -> Path | str:
  if not is_url(text):
    return path(text)
  try:
    return check_url(text, bucket_alone=bucket_alone)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def boolean(text: str) -> bool:
  """The type of a flag that may have a value: --flag, --flag=true or --flag=false.

  Raises:
    argparse.ArgumentTypeError: another value.
  """
  if text.lower() not in ('true', 'false'):
    raise argparse.ArgumentTypeError(f'{text!r}: true or false is needed')
  return text.lower() == 'true'


def _value_type(annotation: Any) -> type:
  """`int | None` -> int; any other annotation is returned as it is."""
  if isinstance(annotation, types.UnionType):
    (annotation,) = [t for t in annotation.__args__ if t is not types.NoneType]
  return annotation
