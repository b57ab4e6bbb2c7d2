"""Checkpoints in a workdir: asynchronous, atomic, restored on any number of devices."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from gan_jax import UserError


class Checkpoints:
  """The checkpoints of one workdir, by step; the newest `keep` stay.

  A save returns at once and is finished in the background; a half-written one is
  never seen as a checkpoint.
  """

  def __init__(self, workdir: Path | str, keep: int = 3):
    self.folder = Path(workdir).absolute() / 'checkpoints'
    policies = ocp.checkpoint_managers.preservation_policy
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.LatestN(keep),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
      ),
    )

  def latest(self) -> int | None:
    """The newest step that is saved, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any) -> None:
    """Starts saving a tree of arrays; `wait` makes it durable."""
    self._manager.save(step, args=ocp.args.StandardSave(state))

  def restore(self, step: int, like: Any) -> Any:
    """The tree at `step` with the shapes, types and shardings of `like`.

    Raises:
      UserError: the checkpoint holds another tree.
    """
    try:
      return self._manager.restore(step, args=ocp.args.StandardRestore(like))
    except (KeyError, ValueError) as error:
      first = str(error).strip().splitlines()[0]
      raise UserError(
        f'checkpoint {step} in {self.folder} is of another model or damaged ({first}).'
      ) from error

  def restore_part(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Some top-level branches of the tree, and nothing else is read."""
    args = ocp.checkpoint_utils.construct_restore_args(like)
    return self._manager.restore(
      step,
      args=ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True),
    )

  def wait(self) -> None:
    """Returns when every save is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()


def restore_ema(
  workdir: Path | str, like: Any, step: int | None = None
) -> tuple[Any, int]:
  """The averaged generator of a workdir; D and the optimizers are not read.

  Args:
    like: its variables, shapes suffice.
    step: which checkpoint; None is the newest.

  Returns:
    The variables, and the images that D had seen.

  Raises:
    UserError: there is no checkpoint, or not that one.
  """
  branches = {'ema': like, 'images': jax.ShapeDtypeStruct((), 'uint32')}
  parts, _ = restore_parts(workdir, branches, step)
  return parts['ema'], int(parts['images'])


def restore_parts(
  workdir: Path | str, like: dict[str, Any], step: int | None = None
) -> tuple[dict[str, Any], int]:
  """Branches of the state, such as 'ema' and 'images', and the step they are of.

  Args:
    like: the branches, shapes suffice.
    step: which checkpoint; None is the newest.

  Raises:
    UserError: there is no checkpoint, or not that one.
  """
  folder = Path(workdir) / 'checkpoints'
  if not folder.is_dir():
    raise UserError(f'{workdir} has no checkpoints: train there first.')
  checkpoints = Checkpoints(workdir)
  try:
    steps = sorted(checkpoints._manager.all_steps())
    if not steps:
      raise UserError(f'{workdir} has no finished checkpoint yet.')
    step = steps[-1] if step is None else step
    if step not in steps:
      raise UserError(
        f'{workdir} has no checkpoint {step}: there are {", ".join(map(str, steps))}.'
      )
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return checkpoints.restore_part(step, shapes), step
  finally:
    checkpoints.close()
