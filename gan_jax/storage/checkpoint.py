"""Checkpoints of a workdir: asynchronous, atomic, checksummed, for any devices."""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from gan_jax import UserError
from gan_jax.runtime.distributed import shared_errors
from gan_jax.storage.manifest import find_corruption, write_manifest
from gan_jax.storage.retention import (
  preservation_policy,
  remove_unfinished,
  score_of,
)
from gan_jax.storage.working_copy import working_copy

_NONE, _UNREADABLE = -1, -2  # what `newest` sends to other processes instead of a step


class _ManifestHandler(ocp.StandardCheckpointHandler):
  """Writes a manifest before Orbax's rename makes the files a checkpoint."""

  def finalize(self, directory: Any) -> None:
    super().finalize(directory)
    if jax.process_index() == 0:
      write_manifest(Path(directory))


@ocp.args.register_with_handler(_ManifestHandler, for_save=True)
class _Save(ocp.args.StandardSave):
  pass


@ocp.args.register_with_handler(_ManifestHandler, for_restore=True)
class _Restore(ocp.args.StandardRestore):
  pass


class _Manager(ocp.CheckpointManager):
  """Leaves preemption to the training loop, which counts JAX's numbers for it."""

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpointer:
  """Saves and restores the checkpoints of one workdir, by step.

  A save returns at once and completes in the background. A partial save is never seen
  as a checkpoint. A failed save is logged and leaves the other checkpoints as they are.
  In the working copy of a store, process 0 writes for all, and the save completes when
  the store has the checkpoint.

  Attributes:
    folder: the checkpoints/ folder.
    failed: whether the last save has failed.
  """

  def __init__(
    self,
    workdir: Path | str,
    keep: int = 3,
    *,
    keep_periodic: int = 0,
    spacing: int = 1,
    best: int = 0,
    read_only: bool = False,
    log: Callable[[str], Any] = print,
  ):
    """
    Args:
      keep: number of newest checkpoints to keep.
      keep_periodic: number of older ones to keep, at least `spacing` steps apart.
      best: number of checkpoints with the highest scores to keep.
      read_only: neither write nor clean up, e.g. beside a run that is training.
      log: takes a sentence about each failure.
    """
    self.folder = Path(workdir).absolute() / 'checkpoints'
    self.failed = False
    self._copy = working_copy(workdir)
    self._uploads = ThreadPoolExecutor(1) if self._copy else None
    self._upload: Future[None] | None = None
    self._closed = False
    self._log, self._read_only = log, read_only
    writing: dict[str, Any] = dict(
      # Without best_fn Orbax does not write the scores.
      best_fn=score_of if best else None,
      preservation_policy=preservation_policy(keep, keep_periodic, spacing, best),
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    options: dict[str, Any] = dict(read_only=True) if read_only else writing
    if self._copy:  # each process has its own
      self.folder.mkdir(exist_ok=True)
      options |= {'create': False, 'multiprocessing_options': _alone()}
    self._manager = _Manager(
      self.folder,
      item_handlers=None if read_only else _ManifestHandler(),
      options=ocp.CheckpointManagerOptions(**options),
    )

  def steps(self) -> list[int]:
    """Steps of the checkpoints on disk, corrupted ones included; ascending."""
    return saved_steps(self.folder.parent)

  def find_corruption(self, step: int) -> str | None:
    """What is wrong with a checkpoint, or None.

    Raises:
      OSError: it cannot be read now.
    """
    try:
      self._fetch(step)
    except FileNotFoundError:
      return 'it has been deleted meanwhile'
    return find_corruption(self.folder / str(step))

  def _fetch(self, step: int) -> None:
    """Brings a checkpoint from the store, if it is in one."""
    if self._copy:
      self._copy.fetch(step)
      if not self._read_only:
        self._manager.reload()

  def newest(self, up_to: int | None = None) -> int | None:
    """The newest intact checkpoint, or None if there are no checkpoints.

    Corrupted ones are logged and, unless read_only, moved to corrupted/. Collective:
    all processes must call it.

    Args:
      up_to: ignore checkpoints of later steps.

    Raises:
      UserError: there are checkpoints, and all are corrupted; or permission is missing.
      OSError: a checkpoint cannot be read now; it stays where it is.
    """
    chosen, failure = _NONE, None
    with shared_errors():
      if jax.process_index() == 0:
        try:
          chosen = self._newest(up_to)
        except OSError as error:
          chosen, failure = _UNREADABLE, error
    if jax.process_count() > 1:
      chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen == _UNREADABLE:
      raise failure or OSError(errno.EIO, 'process 0 cannot read it', str(self.folder))
    if not self._read_only:
      self._manager.reload()
    return None if chosen < 0 else chosen

  def _newest(self, up_to: int | None) -> int:
    steps = [step for step in self.steps() if up_to is None or step <= up_to]
    for step in reversed(steps):
      corruption = self.find_corruption(step)
      if corruption is None:
        return step
      self._set_aside(step, corruption)
    if steps:
      raise UserError(
        f'every checkpoint of {self.folder.parent} is corrupted: restore a backup, or '
        'take another workdir.'
      )
    return _NONE

  def _set_aside(self, step: int, corruption: str) -> None:
    sentence = f'checkpoint {step} of {self.folder.parent} is corrupted ({corruption})'
    if self._read_only:
      self._log(f'{sentence}: taking an older one.')
      return
    aside = self.folder.parent / 'corrupted' / str(step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    if self._copy:
      self._copy.set_aside(step)
    os.replace(self.folder / str(step), aside)
    self._log(f'{sentence}: moved to {aside}; taking an older one.')

  def save(self, step: int, state: Any, score: float | None = None) -> bool:
    """Starts to save a tree of arrays; `wait` returns when it is on disk.

    Args:
      score: ranks the `best` checkpoints; higher is better, non-finite is ignored.

    Returns:
      Whether the save was started.
    """
    self.wait()
    metrics = None
    if score is not None and math.isfinite(score):  # Orbax would rank a NaN
      metrics = {'score': float(score)}
    if self._copy:
      self._copy.check()
      if jax.process_index() != 0:
        return True
      state = jax.tree.map(_local, state)
    with self._reporting():
      self._manager.save(step, args=_Save(state), metrics=metrics)
      if self._uploads:
        self._upload = self._uploads.submit(self._put, step)
      self.failed = False
    return not self.failed

  def _put(self, step: int) -> None:
    """Puts a checkpoint into the store when it is complete here."""
    assert self._copy
    self._manager.wait_until_finished()
    self._copy.commit(step)

  def wait(self) -> bool:
    """Waits for the last save; returns whether it succeeded."""
    with self._reporting():
      if self._upload:
        self._upload.result()
      self._manager.wait_until_finished()
    return not self.failed

  def poll(self) -> bool:
    """Whether the last save has failed so far; does not wait."""
    if not self.failed:
      with self._reporting():
        if self._upload and self._upload.done():
          self._upload.result()
        self._manager.check_for_errors()
    return self.failed

  @contextlib.contextmanager
  def _reporting(self) -> Iterator[None]:
    """Logs errors of writing and sets `failed` instead of raising."""
    try:
      yield
    except Exception as error:  # TensorStore and Orbax wrap an errno in many types
      self.failed, self._upload = True, None
      with contextlib.suppress(Exception):
        self._manager.wait_until_finished()
      if jax.process_index() == 0:
        remove_unfinished(self.folder)
        if self._copy:
          self._drop_unsaved()
      self._manager.reload()
      self._log(
        f'a checkpoint could not be written to {self.folder} ({_reason(error)}): '
        'going on, will try again.'
      )

  def _drop_unsaved(self) -> None:
    """Deletes here what did not get into the store."""
    for folder in self.folder.iterdir():
      if folder.name.isdigit() and int(folder.name) not in self.steps():
        shutil.rmtree(folder, ignore_errors=True)

  def restore(self, step: int, like: Any) -> Any:
    """The tree saved at `step`, with the shapes, dtypes and shardings of `like`.

    Raises:
      UserError: the checkpoint holds a tree of another model.
    """
    self._fetch(step)
    try:
      if self._copy and jax.process_count() > 1:
        arrays = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        found = self._manager.restore(step, args=_Restore(arrays))
        return jax.tree.map(_spread, found, like)
      return self._manager.restore(step, args=_Restore(like))
    except (KeyError, ValueError) as error:
      first = str(error).strip().splitlines()[0]
      raise UserError(
        f'checkpoint {step} in {self.folder} is of another model ({first}).'
      ) from error

  def shapes(self, step: int, name: str) -> Any:
    """Shapes of a top-level subtree saved at `step`; None if there is none."""
    self._fetch(step)
    # The manager itself does not know it of a folder that is opened read_only.
    folder = self.folder / str(step) / 'default'
    tree = dict(ocp.StandardCheckpointHandler().metadata(folder).tree)
    as_shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.tree.map(as_shape, tree[name]) if name in tree else None

  def subtrees(self, step: int) -> set[str]:
    """Names of the top-level subtrees of a checkpoint."""
    metadata = ocp.PyTreeCheckpointHandler().metadata(
      self.folder / str(step) / 'default'
    )
    return set(metadata.tree)

  def restore_part(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Some top-level subtrees, with the shapes of `like`; reads nothing else."""
    args = ocp.checkpoint_utils.construct_restore_args(like)
    return self._manager.restore(
      step,
      args=ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True),
    )

  def drop_after(self, step: int) -> None:
    """Deletes all checkpoints of later steps. Collective: all must call it."""
    self.wait()
    if jax.process_index() == 0:
      for newer in self.steps():
        if newer > step:
          if self._copy:
            self._copy.delete(newer)
          shutil.rmtree(self.folder / str(newer))
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('newer checkpoints are deleted')
    self._manager.reload()

  def close(self) -> None:
    """Waits for the last save and stops the threads; may be called again."""
    if not self._closed:
      self._closed = True
      self.wait()
      self._manager.close()
      if self._uploads:
        self._uploads.shutdown()


def _alone() -> Any:
  """Orbax's options for a process that shares its checkpoints with no other."""
  own = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=own, active_processes={own}, barrier_sync_key_prefix=f'process{own}'
  )


def _local(x: Any) -> Any:
  """A replicated array in the memory of the host, if other processes share it."""
  shared = isinstance(x, jax.Array) and not x.is_fully_addressable
  return np.asarray(x.addressable_data(0)) if shared else x


def _spread(x: np.ndarray, like: Any) -> jax.Array:
  """An array that is the same on all processes, with the sharding of `like`."""
  return jax.make_array_from_callback(x.shape, like.sharding, lambda i: x[i])


def _reason(error: BaseException) -> str:
  """The operating system's message behind an error, if there is one."""
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, OSError) and seen.strerror:
      return seen.strerror
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
      if os.strerror(code) in str(seen):
        return os.strerror(code)
    seen = seen.__cause__ or seen.__context__
  return str(error).strip().splitlines()[0][:200] if str(error) else repr(error)


def saved_steps(workdir: Path | str) -> list[int]:
  """Steps of the checkpoints of a workdir, corrupted ones included; ascending."""
  if copy := working_copy(workdir):
    return sorted(copy.steps())
  folder = Path(workdir) / 'checkpoints'
  names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
  return sorted(int(name) for name in names if name.isdigit())


@contextlib.contextmanager
def open_checkpoint(
  workdir: Path | str, step: int | None = None
) -> Iterator[tuple[Checkpointer, int]]:
  """The checkpoints of a workdir, to be read only, and the step of one that is intact.

  Args:
    step: of the checkpoint; None: the newest intact one.

  Raises:
    UserError: there is no such checkpoint, or it is corrupted.
  """
  folder = Path(workdir) / 'checkpoints'
  if not folder.is_dir():
    raise UserError(f'{workdir} has no checkpoints: train there first.')
  checkpoints = Checkpointer(workdir, read_only=True)
  try:
    steps = checkpoints.steps()
    if not steps:
      raise UserError(f'{workdir} has no finished checkpoint yet.')
    if step is None:
      step = checkpoints.newest()
    elif step not in steps:
      raise UserError(
        f'{workdir} has no checkpoint {step}: there are {", ".join(map(str, steps))}.'
      )
    elif corruption := checkpoints.find_corruption(step):
      raise UserError(f'checkpoint {step} of {workdir} is corrupted ({corruption}).')
    if step is None:
      raise UserError(f'{workdir} has no intact checkpoint: all are corrupted.')
    yield checkpoints, step
  finally:
    checkpoints.close()


def restore_subtrees(
  workdir: Path | str, like: dict[str, Any], step: int | None = None
) -> tuple[dict[str, Any], int]:
  """Top-level subtrees of the train state, e.g. 'ema' and 'images', and their step.

  Args:
    like: name -> subtree of arrays or shapes.
    step: of the checkpoint; None: the newest intact one.

  Raises:
    UserError: there is no such checkpoint, or it is corrupted.
  """
  with open_checkpoint(workdir, step) as (checkpoints, found):
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return checkpoints.restore_part(found, shapes), found
