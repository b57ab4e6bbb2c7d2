"""Nested mappings, such as configs and variables, by path."""

from collections.abc import Mapping
from typing import Any


def flatten(
  tree: Mapping[str, Any], separator: str = '.', prefix: str = ''
) -> dict[str, Any]:
  """The leaves of a nested mapping by path, such as 'train.images'."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    path = f'{prefix}{key}'
    if isinstance(value, Mapping):
      flat |= flatten(value, separator, f'{path}{separator}')
    else:
      flat[path] = value
  return flat
