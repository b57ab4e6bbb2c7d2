"""Class names and numbers from labels as they are written."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gan_jax import UserError
from gan_jax.data.label_tables import is_vector
from gan_jax.data.names import compose, escape_unprintable

MAX_CLASSES = 100_000
_NUMBER = r'[-+]?\d+([.,]\d*)?'


def labels_from_folders(
  path: str, images: Sequence[str], prefix: str
) -> dict[str, str]:
  """Image -> sub-folder of `prefix` that holds it; empty if there are no sub-folders.

  Raises:
    UserError: some images are in sub-folders and others are not.
  """
  parts = {n: n.removeprefix(prefix).split('/') for n in images}
  top_level = [n for n in images if len(parts[n]) == 1]
  if top_level and len(top_level) < len(images):
    raise UserError(
      f'{path} has images beside its sub-folders '
      f'({escape_unprintable(top_level[0])} and {len(top_level) - 1} more): '
      'sub-folders are classes, so move these images into one, or write labels.csv.'
    )
  if top_level:
    return {}
  labels = {n: compose(parts[n][0]) for n in images}
  folders = {parts[n][0]: labels[n] for n in images}
  if len(folders) > len(set(folders.values())):
    twice = Counter(folders.values()).most_common(1)[0][0]
    raise UserError(
      f'{path} has two folders called {escape_unprintable(twice)}, which differ only '
      'in the Unicode composition of their names: merge them, or rename one.'
    )
  return labels


def label_vectors(labels: Mapping[str, str]) -> dict[str, list[float]]:
  """Image -> label vector, where the labels of a table are vectors; else none.

  Args:
    labels: image -> label as written; a vector is a list of numbers in JSON.

  Raises:
    UserError: some are vectors and others are not, or their lengths differ.
  """
  vectors = {}
  for file, text in labels.items():
    with contextlib.suppress(json.JSONDecodeError):
      if text.startswith('[') and is_vector(numbers := json.loads(text)):
        vectors[file] = [float(number) for number in numbers]
  if not vectors:
    return {}
  first, vector = next(iter(vectors.items()))
  for file, text in labels.items():
    if len(vectors.get(file, ())) != len(vector):
      raise UserError(
        f'The label of {escape_unprintable(file)} is {text[:40]}, and that of '
        f'{escape_unprintable(first)} is a vector of {len(vector)} numbers: all labels '
        'must have one form.'
      )
  return vectors


def number_classes(
  labels: Mapping[str, str], *, from_table: bool
) -> tuple[tuple[str, ...], dict[str, int]]:
  """Class names, and class number of each label.

  Integers in a table are class numbers, also written as 3.0. Other labels are names,
  sorted by code point as torchvision, Keras and TFDS do. Sub-folders are always names;
  if all of them are integers, they are sorted by number.

  Args:
    labels: image -> label as written.
    from_table: the labels come from a table, not from sub-folders.

  Raises:
    UserError: a number is out of range or is no integer.
  """
  written = sorted(set(labels.values()))
  if not from_table:
    if _all_match(r'-?\d+', written):
      written.sort(key=lambda w: (int(w), w))
    return tuple(written), {w: i for i, w in enumerate(written)}
  if not written or not _all_match(_NUMBER, written):
    return tuple(written), {w: i for i, w in enumerate(written)}
  numbers = {w: _class_number(w) for w in written}
  for file, label in labels.items():
    if not 0 <= numbers[label] < MAX_CLASSES:
      raise UserError(
        f'The label of {escape_unprintable(file)} is {label}: 0 to '
        f'{MAX_CLASSES - 1} are allowed, or names; other numbers are written as label '
        f'vectors, [{label}].'
      )
  return tuple(map(str, range(max(numbers.values()) + 1))), numbers


def _class_number(text: str) -> int:
  """The integer in '3', '3.0' or '3,00'; -1 for other numbers ('3,000' is unclear)."""
  match = re.fullmatch(r'\+?0*(\d+)([.,]0{0,2})?', text)
  return int(match[1][:9]) if match else -1  # 9 digits are out of range anyway


def _all_match(pattern: str, texts: Iterable[str]) -> bool:
  return all(re.fullmatch(pattern, text) for text in texts)


def describe_classes(names: Sequence[str], limit: int = 10) -> str:
  """'3 classes by name: 0 ape, 1 bee, 2 cow': names in the order of their numbers."""
  if tuple(names) == tuple(map(str, range(len(names)))):
    return f'{len(names)} classes by number: 0 to {len(names) - 1}'
  listed = [f'{i} {escape_unprintable(name)}' for i, name in enumerate(names)]
  if len(listed) > limit:
    listed = [*listed[: limit - 2], '...', listed[-1]]
  order = 'number' if _all_match(r'-?\d+', names) else 'name'
  return f'{len(names)} classes by {order}: {", ".join(listed)}'
