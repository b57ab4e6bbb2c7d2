"""Compares the arrays of a source of weights with those that a model needs."""

from typing import Literal, NamedTuple

from gan_jax.models.base import Variables
from gan_jax.storage.nested import flatten

OUTCOMES = ('matched', 'skipped', 're-initialised')


class ArrayMatch(NamedTuple):
  """What became of one array.

  Attributes:
    outcome: 're-initialised' if the source lacks the array or has another shape,
      'skipped' if the model lacks it.
    path: 'g/' or 'd/' and the path of the variable.
    source_shape: None if the source lacks it.
    model_shape: None if the model lacks it.
  """

  outcome: Literal['matched', 'skipped', 're-initialised']
  path: str
  source_shape: tuple[int, ...] | None
  model_shape: tuple[int, ...] | None

  def describe(self) -> str:
    """The path and both shapes: 'd/params/x: 3x4 -> -'."""
    shapes = (self.source_shape, self.model_shape)
    return f'{self.path}: {" -> ".join(map(_format_shape, shapes))}'


def match_arrays(source: Variables, like: Variables, prefix: str) -> list[ArrayMatch]:
  """Compares the shapes of all arrays of `source` or of the model, sorted by path."""
  source_shapes, model_shapes = (
    {path: tuple(x.shape) for path, x in flatten(tree, '/').items()}
    for tree in (source, like)
  )
  matches = []
  for path in sorted({*source_shapes, *model_shapes}):
    of_source, of_model = source_shapes.get(path), model_shapes.get(path)
    outcome: Literal['matched', 'skipped', 're-initialised'] = 're-initialised'
    if of_source == of_model:
      outcome = 'matched'
    elif of_model is None:
      outcome = 'skipped'
    matches.append(ArrayMatch(outcome, f'{prefix}/{path}', of_source, of_model))
  return matches


def format_matches(matches: list[ArrayMatch], max_lines: int = 60) -> str:
  """Counts of the outcomes, then a line for each array that did not match."""
  counts = {
    outcome: sum(match.outcome == outcome for match in matches) for outcome in OUTCOMES
  }
  lines = [', '.join(f'{n} {outcome}' for outcome, n in counts.items())]
  absent = [side for side in 'gd' if not _in_source(matches, side)]
  lines += [
    f'  re-initialised {side}: all, the source does not have it' for side in absent
  ]
  differing = [
    match
    for match in matches
    if match.outcome != 'matched' and match.path[0] not in absent
  ]
  lines += [
    f'  {match.outcome:14} {match.path:48} {_format_shape(match.source_shape):>16} -> '
    f'{_format_shape(match.model_shape)}'
    for match in differing[:max_lines]
  ]
  if len(differing) > max_lines:
    lines.append(f'  and {len(differing) - max_lines} more')
  return '\n'.join(lines)


def _in_source(matches: list[ArrayMatch], side: str) -> bool:
  """Whether the source has any array of the network 'g' or 'd'."""
  return any(m.source_shape is not None for m in matches if m.path[0] == side)


def _format_shape(shape: tuple[int, ...] | None) -> str:
  if shape is None:
    return '-'
  return 'x'.join(map(str, shape)) or 'scalar'
