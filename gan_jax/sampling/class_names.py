"""Labels by number or by the name of a class: '0-2,cat' -> [0, 1, 2, 5]."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from gan_jax import UserError
from gan_jax.config.workdir import read_data_record
from gan_jax.runtime.errors import did_you_mean
from gan_jax.sampling.options import format_ranges, parse_ranges

LABEL = '#'  # before numbers that are labels, where classes have numbers as names
MARKED = re.compile(LABEL + '[0-9]+(-[0-9]+)?')
LISTED = 12  # names in an error message


def read_class_names(workdir: str | Path, n_classes: int) -> tuple[str, ...]:
  """The class names of a run by label, from run.json; () if it has no such names."""
  names = read_data_record(workdir).get('classes')
  if not isinstance(names, list) or len(names) != n_classes:
    return ()
  return tuple(map(str, names))


def parse_classes(text: str, n_classes: int, names: tuple[str, ...]) -> list[int]:
  """The labels that a list of labels, ranges of labels and class names stands for.

  A name counts as it is written, or else in any case. It may contain commas: of several
  readings the one with the longest name is taken. '#3' is always a label; '3' is one
  unless it is also the name of a class with another label, which is an error.

  Args:
    names: class names by label; () if there are none.

  Raises:
    UserError: there is no such class, or the text can mean several.
  """
  labels: list[int] = []
  parts = text.split(',')
  longest = 1 + max((name.count(',') for name in names), default=0)
  while parts:
    for n in range(min(longest, len(parts)), 0, -1):
      entry = ','.join(parts[:n]).strip()
      label = None if MARKED.fullmatch(entry) else _find_name(entry, names, text)
      if label is not None:
        break
    numbers = _find_numbers(entry, n_classes, label is not None, text)
    if label is None and not numbers:
      raise UserError(_unknown_class(entry, n_classes, names, text))
    _reject_ambiguity(entry, numbers, label, names, text)
    labels += numbers if label is None else [label]
    del parts[:n]
  return labels


def format_labels(labels: int | Iterable[int], names: Sequence[str]) -> str:
  """A text that `parse_classes` reads as these labels.

  Raises:
    UserError: something is not an integer.
  """
  text = format_ranges(labels, 'labels')
  numeric = lambda name: re.fullmatch(r'[0-9]+(-[0-9]+)?', name.strip())
  if any(numeric(name) and name != str(label) for label, name in enumerate(names)):
    return ','.join(LABEL + part for part in text.split(','))
  return text


@functools.lru_cache(4)
def _labels_by_name(names: tuple[str, ...], fold: bool) -> dict[str, list[int]]:
  """Normalized name -> its labels, which are several where names differ in case."""
  labels: dict[str, list[int]] = {}
  for label, name in enumerate(names):
    labels.setdefault(_normalized(name, fold), []).append(label)
  return labels


def _normalized(name: str, fold: bool = False) -> str:
  name = unicodedata.normalize('NFC', name.strip())
  return name.casefold() if fold else name


def _find_name(entry: str, names: tuple[str, ...], text: str) -> int | None:
  """The label of the class with this name, exactly or else in any case.

  Raises:
    UserError: several names differ from it in case only.
  """
  for fold in (False, True):
    labels = _labels_by_name(names, fold).get(_normalized(entry, fold), [])
    if len(labels) == 1:
      return labels[0]
    if labels:
      found = ' and '.join(f"'{names[label]}'" for label in labels)
      raise UserError(f'--classes={text}: {entry!r} can be {found}: write one of them.')
  return None


def _find_numbers(entry: str, n_classes: int, is_name: bool, text: str) -> list[int]:
  """The labels that the entry gives as numbers; [] if it gives none.

  Raises:
    UserError: the numbers are not labels, and the entry is not a name either.
  """
  explicit = MARKED.fullmatch(entry)
  if not explicit and not entry[:1].isdecimal():
    return []
  try:
    numbers = parse_ranges(entry.removeprefix(LABEL), 'classes')
  except UserError:
    if not is_name and (explicit or not re.search('[^0-9 -]', entry)):
      raise
    return []
  if max(numbers) < n_classes:
    return numbers
  if is_name:
    return []
  raise UserError(f'--classes={text}: classes are 0-{n_classes - 1}.')


def _reject_ambiguity(
  entry: str, numbers: list[int], label: int | None, names: tuple[str, ...], text: str
) -> None:
  """
  Raises:
    UserError: numbers that are not marked as labels are also names of other classes.
  """
  if MARKED.fullmatch(entry) or not numbers:
    return
  if label is None:
    named = _labels_by_name(names, False)
    shared = [x for x in numbers if named.get(str(x), [x]) != [x]]
    if not shared:
      return
    name, label = str(shared[0]), named[str(shared[0])][0]
  elif numbers == [label]:
    return
  else:
    name = entry
  raise UserError(
    f"--classes={text}: '{name}' is a label and also the name of the class with the "
    f"label {label}; write '{LABEL}{entry}' for labels, or '{LABEL}{label}' for that "
    'class.'
  )


def _unknown_class(
  entry: str, n_classes: int, names: tuple[str, ...], text: str
) -> str:
  if not names:
    return (
      f'--classes={text}: no names of classes are known here, and classes are '
      f'0-{n_classes - 1}.'
    )
  listed = [f'{i} {name}' for i, name in enumerate(names[:LISTED])]
  more = ', ...' if len(names) > LISTED else ''
  return (
    f'--classes={text}: no class is named {entry!r}{did_you_mean(entry, names)}; '
    f'classes are 0-{n_classes - 1} or their names ({", ".join(listed)}{more}).'
  )
