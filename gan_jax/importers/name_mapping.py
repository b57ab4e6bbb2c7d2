"""Filling our variables from arrays under other names, with nothing left over."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.models.base import Variables

Table = tuple[tuple[str, str], ...]  # pattern of a name -> template of ours


def translate(module: str, table: Table) -> str | None:
  for pattern, template in table:
    match = re.fullmatch(pattern, module)
    if match:
      return match.expand(template)
  return None


def path_of(path: Any) -> str:
  return '/'.join(str(entry.key) for entry in path)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(n for n in shape if n != 1)


def fill_variables(
  found: Mapping[str, np.ndarray], unused: list[str], like: Any, shapes: Mapping
) -> Variables:
  """`like` with the arrays of `found` by path.

  Args:
    unused: names in the source that have no place.
    shapes: path -> leaf of `like`.

  Raises:
    UserError: a name without a place, a place without a name, or a shape.
  """
  unused += [place for place in found if place not in shapes]
  missing = [place for place in shapes if place not in found]
  if unused or missing:
    raise UserError(
      f'the weights do not fit: {len(unused)} without a place '
      f'({", ".join(unused[:3])}), {len(missing)} places without a weight '
      f'({", ".join(missing[:3])}).'
    )

  def leaf(path, x):
    value = found[path_of(path)]
    if _sides(value.shape) != _sides(x.shape):
      raise UserError(
        f'{path_of(path)} has shape {value.shape}; the network needs {x.shape}.'
      )
    return value.reshape(x.shape)

  return jax.tree_util.tree_map_with_path(leaf, like)
