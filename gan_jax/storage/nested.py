"""Nested mappings, such as configs and variables, by path."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


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


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of names, shapes and float32 values; independent of the file format."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    value = np.ascontiguousarray(arrays[name], np.float32)
    digest.update(f'{name}{value.shape}'.encode())
    digest.update(value.tobytes())
  return digest.hexdigest()
