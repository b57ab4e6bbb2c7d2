"""Goodput: how much of the time of a run was training that was kept."""

import collections
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gan_jax.report.charts import Record, finite_number

LOST, WAITING = 'lost to kills', 'waiting for a restart'


def seconds_by_use(starts: Sequence[Record]) -> dict[str, float]:
  """Seconds of a run: 'training' that was kept, other phases, `LOST` and `WAITING`.

  Training that a later start repeats, after a kill or a rollback, is lost. Starts
  without times, of earlier versions, do not count, nor do those of a finished run.

  Args:
    starts: the lines of starts.jsonl, one per start, in their order.
  """
  used: dict[str, float] = collections.defaultdict(float)
  starts = [start for start in starts if not _was_finished(start)]
  for start in starts:
    phases = start.get('seconds')
    for name, value in phases.items() if isinstance(phases, dict) else ():
      used[str(name)] += max(finite_number(value) or 0.0, 0.0)
  for start, following in pairwise(starts):
    lost = _lost(start, following['images'])
    used[LOST] += lost
    used['training'] -= lost
    began, until = _number(start.get('since')), _number(start.get('until'))
    since = _number(following.get('since'))
    if until and since:
      used[WAITING] += max(since - until, 0)
    elif began and since:  # killed before it recorded anything
      used[LOST] += max(since - began, 0)
  return {name: value for name, value in used.items() if value > 0}


def _was_finished(start: Record) -> bool:
  """Whether a run was started again that had nothing left to train."""
  phases = start.get('seconds')
  idle = start.get('until_images') == start['images']
  return idle and isinstance(phases, dict) and 'compiling' not in phases


def _lost(start: Record, resumed_at: int) -> float:
  """Seconds that a start trained beyond the images at which the next one resumed."""
  phases, until = start.get('seconds'), _number(start.get('until_images'))
  if not isinstance(phases, dict) or until is None or until <= resumed_at:
    return 0.0
  training = max(finite_number(phases.get('training')) or 0.0, 0.0)
  trained = until - start['images']
  return training * min((until - resumed_at) / trained, 1) if trained > 0 else 0.0


def _number(value: Any) -> float | None:
  """A finite number with all its digits."""
  return None if finite_number(value) is None else float(value)


def goodput(starts: Sequence[Record]) -> str:
  """'87% of the time was training; compiling 9%, lost to kills 4%'."""
  used = seconds_by_use(starts)
  total = sum(used.values())
  if not total:
    return 'not measured yet'
  others = sorted(
    ((value, name) for name, value in used.items() if name != 'training'), reverse=True
  )
  shares = [f'{name} {value / total:.0%}' for value, name in others]
  text = f'{used.get("training", 0) / total:.0%} of the time was training'
  return f'{text}; {", ".join(shares)}' if shares else text
