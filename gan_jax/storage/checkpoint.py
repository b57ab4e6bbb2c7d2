"""Checkpoints in a workdir: asynchronous, atomic, checked, restored on any devices."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from gan_jax import UserError

MANIFEST = 'manifest.json'  # of the files beside it: [bytes, SHA-256]


class _Sealed(ocp.StandardCheckpointHandler):
  """Orbax's files and our manifest of them become a checkpoint in one rename."""

  def finalize(self, directory):
    super().finalize(directory)
    if jax.process_index() == 0:
      listed = {name: _digest(path) for name, path in _files(Path(directory))}
      (Path(directory) / MANIFEST).write_text(json.dumps(listed, indent=1))


@ocp.args.register_with_handler(_Sealed, for_save=True)
class _Save(ocp.args.StandardSave):
  pass


@ocp.args.register_with_handler(_Sealed, for_restore=True)
class _Restore(ocp.args.StandardRestore):
  pass


def _files(folder: Path) -> list[tuple[str, Path]]:
  paths = (p for p in sorted(folder.rglob('*')) if p.is_file() and p.name != MANIFEST)
  return [(str(p.relative_to(folder)), p) for p in paths]


def _digest(path: Path) -> list[Any]:
  with path.open('rb') as f:
    return [path.stat().st_size, hashlib.file_digest(f, 'sha256').hexdigest()]


def find_corruption(folder: Path) -> str | None:
  """What is wrong with the files of a checkpoint; None: nothing."""
  try:
    listed = json.loads((folder / 'default' / MANIFEST).read_text())
    for name, expected in listed.items():
      path = folder / 'default' / name
      if not path.is_file():
        return f'{name} is missing'
      if _digest(path) != expected:
        return f'{name} is not what was written'
  except FileNotFoundError:
    return f'it has no {MANIFEST}'
  except (ValueError, AttributeError):
    return f'{MANIFEST} is not what was written'
  except OSError as error:
    return f'{error.filename}: {error.strerror}'
  return None


class Checkpointer:
  """The checkpoints of one workdir, by step.

  A save returns at once and is finished in the background; a half-written one is
  never seen as a checkpoint. A save that fails is reported, and leaves the others as
  they were.
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
    say: Callable[[str], None] = print,
  ):
    """
    Args:
      keep: how many of the newest stay.
      keep_periodic: how many older ones stay as well, at least `spacing` steps apart.
      best: how many of the highest score stay as well.
      read_only: touch nothing, as beside a run that is still training.
      say: takes a sentence about what went wrong.
    """
    self.folder = Path(workdir).absolute() / 'checkpoints'
    self.failed = False  # the last save
    self._say, self._read_only = say, read_only
    policies = ocp.checkpoint_managers
    preserved: list[Any] = [policies.LatestN(keep)]
    if keep_periodic:
      preserved.append(
        policies.EveryNSteps(spacing, exact_interval=False, max_to_keep=keep_periodic)
      )
    score = lambda metrics: metrics['score']
    if best:
      preserved.append(
        policies.BestN(
          get_metric_fn=score, n=best, keep_checkpoints_without_metrics=False
        )
      )
    writing: dict[str, Any] = dict(
      best_fn=score if best else None,  # or orbax would not write the scores
      preservation_policy=policies.AnyPreservationPolicy(preserved),
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    options = dict(read_only=True) if read_only else writing
    self._manager = ocp.CheckpointManager(
      self.folder,
      item_handlers=None if read_only else _Sealed(),
      options=ocp.CheckpointManagerOptions(**options),
    )

  def steps(self) -> list[int]:
    """Those on disk, damaged or not."""
    names = (path.name for path in self.folder.iterdir())
    return sorted(int(name) for name in names if name.isdigit())

  def newest(self, up_to: int | None = None) -> int | None:
    """The newest step that is undamaged; damaged ones are reported and set aside.

    Raises:
      UserError: there are checkpoints, and all are damaged.
    """
    chosen = -1
    if jax.process_index() == 0:
      steps = [step for step in self.steps() if up_to is None or step <= up_to]
      for step in reversed(steps):
        complaint = find_corruption(self.folder / str(step))
        if complaint is None:
          chosen = step
          break
        self._report_damaged(step, complaint)
      if steps and chosen < 0:
        chosen = -2
    if jax.process_count() > 1:
      chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen == -2:
      raise UserError(
        f'every checkpoint of {self.folder.parent} is damaged: take a copy if there is '
        'one, or another workdir.'
      )
    if not self._read_only:
      self._manager.reload()
    return None if chosen < 0 else chosen

  def _report_damaged(self, step: int, complaint: str) -> None:
    sentence = f'checkpoint {step} of {self.folder.parent} is damaged ({complaint})'
    if self._read_only:
      self._say(f'{sentence}: taking an older one.')
      return
    aside = self.folder.parent / 'corrupted' / str(step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    os.replace(self.folder / str(step), aside)
    self._say(f'{sentence}: moved to {aside}; taking an older one.')

  def save(self, step: int, state: Any, score: float | None = None) -> bool:
    """Starts saving a tree of arrays; `wait` makes it durable.

    Args:
      score: decides which `best` ones stay; higher is better.

    Returns:
      Whether it was started.
    """
    self.wait()
    scored = None
    if score is not None and math.isfinite(score):  # orbax would rank a NaN
      scored = {'score': float(score)}
    with self._reporting():
      self._manager.save(step, args=_Save(state), metrics=scored)
      self.failed = False
    return not self.failed

  def wait(self) -> bool:
    """Returns when the last save is on disk, or with False when it has failed."""
    with self._reporting():
      self._manager.wait_until_finished()
    return not self.failed

  def poll(self) -> bool:
    """Whether the last save has failed, without waiting."""
    if not self.failed:
      with self._reporting():
        self._manager.check_for_errors()
    return self.failed

  @contextlib.contextmanager
  def _reporting(self) -> Iterator[None]:
    """Errors of writing are told and remembered, not raised: a run goes on."""
    try:
      yield
    except Exception as error:  # whatever tensorstore or orbax make of an errno
      self.failed = True
      with contextlib.suppress(Exception):
        self._manager.wait_until_finished()
      if jax.process_index() == 0:
        for part in self.folder.glob('*.orbax-checkpoint-tmp*'):
          shutil.rmtree(part, ignore_errors=True)
      self._manager.reload()
      self._say(
        f'a checkpoint could not be written to {self.folder} ({_why(error)}): going '
        'on without, to try again.'
      )

  def restore(self, step: int, like: Any) -> Any:
    """The tree at `step` with the shapes, types and shardings of `like`.

    Raises:
      UserError: the checkpoint holds another tree.
    """
    try:
      return self._manager.restore(step, args=_Restore(like))
    except (KeyError, ValueError) as error:
      first = str(error).strip().splitlines()[0]
      raise UserError(
        f'checkpoint {step} in {self.folder} is of another model ({first}).'
      ) from error

  def restore_part(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Some top-level branches of the tree, and nothing else is read."""
    args = ocp.checkpoint_utils.construct_restore_args(like)
    return self._manager.restore(
      step,
      args=ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True),
    )

  def drop_after(self, step: int) -> None:
    """Deletes all newer ones."""
    self.wait()
    if jax.process_index() == 0:
      for newer in self.steps():
        if newer > step:
          shutil.rmtree(self.folder / str(newer))
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('newer checkpoints are gone')
    self._manager.reload()

  def close(self) -> None:
    self._manager.close()


def _why(error: BaseException) -> str:
  """The operating system's words for what went wrong, if they can be found."""
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, OSError) and seen.strerror:
      return seen.strerror
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
      if os.strerror(code) in str(seen):
        return os.strerror(code)
    seen = seen.__cause__ or seen.__context__
  return str(error).strip().splitlines()[0][:200] if str(error) else repr(error)


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
  """Holds a workdir against every other writer; a process that dies lets go of it.

  Raises:
    UserError: another process holds it, or it cannot be written.
  """
  path = workdir / 'owner.json'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = path.open('a+')
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror}.'
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise UserError(
        f'--workdir={workdir} is in use ({file.read().strip() or "owner unknown"}): '
        'stop that run, or take another workdir.'
      ) from None
    owner = {
      'host': socket.gethostname(),
      'pid': os.getpid(),
      'since': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    }
    with contextlib.suppress(OSError):  # a full disk; the lock itself holds
      file.truncate(0)
      file.write(json.dumps(owner))
      file.flush()
    yield


def restore_ema(
  workdir: Path | str, like: Any, step: int | None = None
) -> tuple[Any, int]:
  """The averaged generator of a workdir; D and the optimizers are not read.

  Args:
    like: its variables, shapes suffice.
    step: which checkpoint; None is the newest undamaged one.

  Returns:
    The variables, and the images that D had seen.

  Raises:
    UserError: there is no checkpoint, or not that one, or it is damaged.
  """
  branches = {'ema': like, 'images': jax.ShapeDtypeStruct((), 'uint32')}
  parts, _ = restore_subtrees(workdir, branches, step)
  return parts['ema'], int(parts['images'])


def restore_subtrees(
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
    elif complaint := find_corruption(folder / str(step)):
      raise UserError(f'checkpoint {step} of {workdir} is damaged ({complaint}).')
    if step is None:
      raise UserError(f'{workdir} has no checkpoint that is whole: all are damaged.')
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return checkpoints.restore_part(step, shapes), step
  finally:
    checkpoints.close()
