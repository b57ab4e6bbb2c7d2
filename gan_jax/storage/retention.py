"""Which checkpoints of a run are kept."""

from typing import Any

import orbax.checkpoint as ocp


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
