"""Maps arrays with official names onto the variables of a network."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.models.base import Variables

Arrays = Mapping[str, np.ndarray]  # by official name
# (official template, our template). Text in place of <slot> is the same on both sides.
NameTable = tuple[tuple[str, str], ...]

_SLOTS = {
  'i': r'\d+',
  'j': r'\d+',
  'last': r'\d+',
  'conv': r'conv\w+',
  'bn': r'bn\d',
  'affine': 'gain|bias',
  'projection': 'theta|phi|g|o',
  'linear': 'shared|linear|embed',
}


def translate(name: str, table: NameTable, **slots: Any) -> str | None:
  """The other name, by the first template that matches all of `name`.

  Args:
    table: from the names that `name` is one of; see `inverse`.
    slots: values of slots that only the other template has.
  """
  for template, other in table:
    pattern = re.sub(
      r'<(\w+)>', lambda m: f'(?P<{m[1]}>{_SLOTS[m[1]]})', template.replace('.', r'\.')
    )
    if match := re.fullmatch(pattern, name):
      for slot, text in {**slots, **match.groupdict()}.items():
        other = other.replace(f'<{slot}>', str(text))
      return other
  return None


def inverse(table: NameTable) -> NameTable:
  """The table from our names to the official ones."""
  return tuple((ours, official) for official, ours in table)


def tree_path(path: Any) -> str:
  """A key path of `jax.tree_util` as text: 'params/block0/conv1/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def fill_variables(
  arrays: Mapping[str, np.ndarray],
  unknown_names: list[str],
  like: Variables,
  like_by_path: Mapping[str, Any],
) -> Variables:
  """Variables with the structure of `like` and the values of `arrays`.

  Args:
    arrays: by our path. Shapes may differ from those of `like` by axes of size 1.
    unknown_names: official names that no pattern matched.
    like: variables or their shapes.
    like_by_path: the leaves of `like` by path.

  Raises:
    UserError: an array without a place in the network, a missing array or a wrong
      shape.
  """
  unknown = unknown_names + [path for path in arrays if path not in like_by_path]
  missing = [path for path in like_by_path if path not in arrays]
  if unknown or missing:
    raise UserError(
      f'the weights do not fit the network: {len(unknown)} arrays are not part of it '
      f'({", ".join(unknown[:3])}) and {len(missing)} arrays of it are missing '
      f'({", ".join(missing[:3])}).'
    )

  def fill(path: Any, leaf: Any) -> np.ndarray:
    value = arrays[tree_path(path)]
    if _without_unit_axes(value.shape) != _without_unit_axes(leaf.shape):
      raise UserError(
        f'{tree_path(path)} has shape {value.shape}; the network needs {leaf.shape}.'
      )
    return value.reshape(leaf.shape)

  return jax.tree_util.tree_map_with_path(fill, like)


def _without_unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(n for n in shape if n != 1)
