"""Which checkpoints of a run are kept, and how unfinished ones are deleted."""

import shutil
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

_UNFINISHED = '*.orbax-checkpoint-tmp*'
_TRIES, _PAUSE = 20, 0.1  # of remove_unfinished, and seconds between them


def score_of(metrics: Any) -> float:
  """The score among the metrics that a checkpoint was saved with."""
  return metrics['score']


def preservation_policy(keep: int, keep_periodic: int, spacing: int, best: int) -> Any:
  """Orbax's policy: a checkpoint is kept if one of the rules keeps it.

  Args:
    keep: number of newest checkpoints.
    keep_periodic: number of older ones, at least `spacing` steps apart.
    best: number of those with the highest scores.
  """
  policies = ocp.checkpoint_managers
  preserved: list[Any] = [policies.LatestN(keep)]
  if keep_periodic:
    preserved.append(
      policies.EveryNSteps(spacing, exact_interval=False, max_to_keep=keep_periodic)
    )
  if best:
    preserved.append(
      policies.BestN(
        get_metric_fn=score_of, n=best, keep_checkpoints_without_metrics=False
      )
    )
  return policies.AnyPreservationPolicy(preserved)


def remove_unfinished(folder: Path) -> None:
  """Deletes what failed saves have written; their last threads may still add to it."""
  for _ in range(_TRIES):
    for part in folder.glob(_UNFINISHED):
      shutil.rmtree(part, ignore_errors=True)
    if not any(folder.glob(_UNFINISHED)):
      return
    time.sleep(_PAUSE)
