"""New classes as mixtures of the classes of another run.

Embeddings of classes, the rows or columns by which a layer reads classes, and the
outputs of D for each class all have an axis of classes, on which a mixture acts.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.models.base import GAN, variable_shapes
from gan_jax.sampling.class_names import parse_classes
from gan_jax.storage.nested import flatten

Mixtures = Float[np.ndarray, 'new old']  # each row sums to 1


class ClassAxis(NamedTuple):
  """The axis of an array that has one entry per class, after some others."""

  axis: int
  before: int


def class_axes(gan: GAN) -> dict[str, ClassAxis]:
  """The arrays of the variables of G and D that have an axis of classes, by path.

  These are the arrays that one more class makes longer.
  """
  if not gan.n_classes:
    return {}
  more = dataclasses.replace(gan, n_classes=gan.n_classes + 1)
  shapes, longer = (
    {
      path: x.shape
      for path, x in flatten(
        dict(zip('gd', variable_shapes(model), strict=True)), '/'
      ).items()
    }
    for model in (gan, more)
  )
  found = {}
  for path, shape in shapes.items():
    for axis, (n, m) in enumerate(zip(shape, longer[path], strict=True)):
      if n != m:
        found[path] = ClassAxis(axis, n - gan.n_classes)
  return found


def parse_mixtures(
  entries: Sequence[str], n_classes: int, n_old: int, names: tuple[str, ...]
) -> Mixtures:
  """The weights of the old classes in each new one.

  An entry is a class, as `gan_jax.sample --classes` takes it, or a sum such as
  '0.7*cat+0.3*dog' or '3+5'. Weights are 1 where there is none, and are divided by
  their sum. A range such as '0-8' is all of its classes.

  Args:
    entries: one per new class, or one for all.
    names: of the old classes by label; () if there are none.

  Raises:
    UserError: too few entries, or an entry that is no such sum of old classes.
  """
  if len(entries) not in (1, n_classes):
    raise UserError(
      f'finetune.classes has {len(entries)} entries: model.n_classes={n_classes} needs '
      f'{n_classes}, or one for all.'
    )
  rows = [_parse_mixture(entry, n_old, names) for entry in entries]
  return np.broadcast_to(np.stack(rows), (n_classes, n_old))


def _parse_mixture(
  entry: str, n_old: int, names: tuple[str, ...]
) -> Float[np.ndarray, ' old']:
  weights = np.zeros(n_old, np.float32)
  terms = [entry] if entry.strip() in names else entry.split('+')
  for term in terms:
    weighted = re.fullmatch(r'\s*([^*]*?)\s*\*\s*(.+)', term)
    factor, text = (1.0, term)
    if weighted and term.strip() not in names:
      factor, text = _parse_factor(weighted[1], entry), weighted[2]
    try:
      labels = parse_classes(text, n_old, names)
    except UserError as error:
      message = str(error).replace('--classes=', 'finetune.classes: ', 1)
      raise UserError(message) from None
    weights[labels] += factor
  return weights / weights.sum()


def _parse_factor(text: str, entry: str) -> float:
  try:
    factor = float(text)
  except ValueError:
    factor = math.nan
  if not 0 < factor < math.inf:
    raise UserError(
      f'finetune.classes has the entry {entry!r}: a class of the source, or a sum of '
      "classes with positive weights, such as '0.7*3+0.3*5', is needed."
    )
  return factor


def mix(old: np.ndarray, mixtures: Mixtures, axis: ClassAxis) -> np.ndarray:
  """An array with the new classes along its axis of classes."""
  x = np.moveaxis(old, axis.axis, 0)
  new = np.tensordot(mixtures.astype(x.dtype), x[axis.before :], 1)
  return np.moveaxis(np.concatenate([x[: axis.before], new]), 0, axis.axis)
