"""A workdir in a store, worked on in a local folder that mirrors it.

Files are pulled at the start. Changed files are pushed each minute and before each
checkpoint: one PUT for each, never an append. A checkpoint is written and sealed
locally and put with its manifest last; it counts when that is there.
"""

import contextlib
import hashlib
import importlib.resources
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import jax

from gan_jax import UserError
from gan_jax.runtime.distributed import shared_errors
from gan_jax.runtime.urls import is_url
from gan_jax.storage.store import Store, StoredFile
from gan_jax.storage.store_lock import BEAT, StoreLock, machine

SHOWCASE = 'showcase'  # the name of the workdir in this package
SEAL = 'default/manifest.json'  # of a checkpoint; put last, deleted first
PUSH_EVERY = 4  # beats of the lock

_open: dict[Path, 'WorkingCopy'] = {}  # by local folder


class WorkingCopy:
  """A local folder that mirrors a workdir in a store.

  Attributes:
    url: of the workdir.
    folder: the local one.
  """

  def __init__(self, url: str, log: Callable[[str], Any] = lambda _: None):
    self._store = Store(url)
    self.url, self._log = self._store.url, log
    self.folder = _make_folder()
    self._pulled: dict[str, StoredFile] = {}
    self._pushed: dict[str, tuple[int, int]] = {}  # name -> of the local file
    self._steps: set[int] = set()
    self._lock: StoreLock | None = None
    self._lost: UserError | None = None
    self._pushing = threading.RLock()
    self._ended = threading.Event()
    self._thread: threading.Thread | None = None
    self._failing = False

  def pull(self) -> None:
    """Brings the files of the run, and of each checkpoint all but its arrays."""
    objects = self._store.list()
    self._steps = {
      int(name.split('/')[1])
      for name in objects
      if re.fullmatch(rf'checkpoints/\d+/{SEAL}', name)
    }
    for name, found in objects.items():
      if self._is_mirrored(name) and self._pulled.get(name) != found:
        file = self.folder / name
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
          self._store.download(name, file)
          self._pulled[name] = found
          self._pushed[name] = _stamp(file)

  def _is_mirrored(self, name: str) -> bool:
    parts = name.split('/')
    if parts[0] == 'checkpoints' and len(parts) > 2:
      return (
        parts[1].isdigit() and int(parts[1]) in self._steps and parts[2] != 'default'
      )
    return parts[0] != 'corrupted' and not re.fullmatch(r'owner\.\d+\.json', name)

  def lock(self) -> None:
    """Locks the workdir for writing, brings it up to date and mirrors it from now on.

    Raises:
      UserError: another process holds the lock, or the store cannot be written.
    """
    lock = StoreLock(self._store, self._log)
    lock.acquire()
    self._lock = lock
    self.pull()
    self._delete_unsealed()
    self._thread = threading.Thread(target=self._mirror, daemon=True)
    self._thread.start()

  def _delete_unsealed(self) -> None:
    """Deletes what killed processes have left of checkpoints."""
    for name in self._store.list('checkpoints'):
      step = name.split('/')[1]
      if not (step.isdigit() and int(step) in self._steps):
        self._store.delete([name])

  def _mirror(self) -> None:
    """Gives signs of life, and pushes changed files, until the end."""
    beats = 0
    while not self._ended.wait(BEAT):
      beats += 1
      with self._tolerating():
        self._beat()
        if beats % PUSH_EVERY == 0:
          self.push()

  def _beat(self) -> None:
    assert self._lock
    try:
      self._lock.beat()
    except UserError as error:
      self._lost = error
      raise

  def check(self) -> None:
    """Raises UserError if another process has taken over, or all access is denied."""
    if self._lost:
      raise self._lost

  @contextlib.contextmanager
  def _tolerating(self) -> Iterator[None]:
    """Logs the first of several failures in a row."""
    try:
      yield
      self._failing = False
    except Exception as error:
      if not self._failing:
        self._log(
          f'{self.url} could not be written ({error}): going on, will try again.'
        )
      self._failing = True

  def push(self) -> None:
    """Puts the files that have changed."""
    with self._pushing:
      self.check()
      for file in sorted(self.folder.rglob('*')):
        name = str(file.relative_to(self.folder))
        skipped = name.startswith(('checkpoints/', 'corrupted/')) or file.name[0] == '.'
        if skipped or name == 'owner.json':
          continue
        with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
          stamp = _stamp(file)
          if file.is_file() and self._pushed.get(name) != stamp:
            self._store.write(name, file.read_bytes())
            self._pushed[name] = stamp

  def steps(self) -> set[int]:
    """Steps of the checkpoints in the store."""
    return set(self._steps)

  def fetch(self, step: int) -> None:
    """Brings the arrays of a checkpoint, unless they are here.

    Raises:
      FileNotFoundError: it has been deleted meanwhile.
    """
    target = self.folder / 'checkpoints' / str(step) / 'default'
    if target.is_dir():
      return
    part = self.folder / f'.fetched.{step}'
    shutil.rmtree(part, ignore_errors=True)
    prefix = f'checkpoints/{step}/default'
    for name in self._store.list(prefix):
      self._store.download(name, part / name[len(prefix) + 1 :])
    os.replace(part, target)

  def commit(self, step: int) -> None:
    """Puts a checkpoint that is complete here, after the files that belong to it."""
    self.push()
    if self._lock:
      self._beat()
    folder = self.folder / 'checkpoints' / str(step)
    files = [str(x.relative_to(folder)) for x in folder.rglob('*') if x.is_file()]
    for name in sorted(files, key=lambda name: (name == SEAL, name)):
      self._store.upload(folder / name, f'checkpoints/{step}/{name}')
    self._steps.add(step)
    kept = {int(x.name) for x in folder.parent.iterdir() if x.name.isdigit()}
    for old in self._steps - kept:
      self.delete(old)

  def delete(self, step: int) -> None:
    """Deletes a checkpoint in the store."""
    names = self._store.list(f'checkpoints/{step}')
    self._store.delete(sorted(names, key=lambda name: not name.endswith(SEAL)))
    self._steps.discard(step)

  def set_aside(self, step: int) -> None:
    """Moves a checkpoint to corrupted/ in the store."""
    names = self._store.list(f'checkpoints/{step}')
    for name in sorted(names, key=lambda name: not name.endswith(SEAL)):
      self._store.move(name, name.replace('checkpoints/', 'corrupted/', 1))
    self._steps.discard(step)

  def close(self) -> None:
    """Pushes what is left, if the workdir is locked, and removes the local folder."""
    self._ended.set()
    if self._thread:
      self._thread.join()
    try:
      if self._lock and not self._lost:
        with self._tolerating():
          self.push()
        with self._tolerating():
          self._lock.release()
    finally:
      _open.pop(self.folder, None)
      shutil.rmtree(self.folder, ignore_errors=True)

  @contextlib.contextmanager
  def named(self) -> Iterator[None]:
    """Errors of the block name the URL instead of the local folder."""
    try:
      yield
    except UserError as error:
      text = self.name(str(error))
      if text == str(error):
        raise
      raise UserError(text) from error
    except OSError as error:
      if isinstance(error.filename, str):
        error.filename = self.name(error.filename)
      raise

  def name(self, text: str) -> str:
    """A text with the URL in place of the local folder."""
    return text.replace(str(self.folder), self.url)


def working_copy(folder: Path | str) -> WorkingCopy | None:
  """The open working copy in a local folder, if it is one."""
  return _open.get(Path(folder)) if _open else None


def local_workdir(workdir: str | Path) -> Path:
  """The folder of a workdir that is read: the one in this package for SHOWCASE.

  A folder of that name takes precedence.
  """
  folder = Path(workdir).expanduser()
  if str(workdir) != SHOWCASE or folder.exists():
    return folder
  return Path(str(importlib.resources.files('gan_jax.data'))) / 'embedded' / SHOWCASE


def is_packaged(workdir: str | Path) -> bool:
  """Whether a workdir is the one in this package, into which nothing is written."""
  return local_workdir(workdir) != Path(workdir).expanduser()


def check_results_folder(workdir: str | Path, out: Path | None) -> None:
  """Checks that results have a place: not in SHOWCASE, which is in this package.

  Args:
    out: where they are written; None: in the workdir.

  Raises:
    UserError: it has no place for results.
  """
  if out is None and is_packaged(workdir):
    raise UserError(
      f'--workdir={workdir} is a part of the package, into which nothing is written: '
      'give --out too.'
    )


@contextlib.contextmanager
def open_workdir(
  workdir: str | Path,
  log: Callable[[str], Any] = lambda _: None,
  *,
  write: bool = False,
) -> Iterator[Path]:
  """The local folder of a workdir, which may be a URL.

  Args:
    workdir: a folder, which is yielded as it is, or a URL.
    write: lock a workdir in a store and mirror what is written. Collective: process 0
      does it for all.

  Raises:
    UserError: the store cannot be read or written, or is in use by another process.
  """
  if not is_url(str(workdir)):
    yield Path(workdir).expanduser() if write else local_workdir(workdir)
    return
  errors = shared_errors if write else contextlib.nullcontext
  with contextlib.ExitStack() as stack:
    with errors():
      copy = WorkingCopy(str(workdir), log)
      _open[copy.folder] = copy
      stack.callback(copy.close)
      stack.enter_context(copy.named())
      if write and jax.process_index() == 0:
        copy.lock()
    with errors():  # the others see what they find with the lock taken
      if not write or jax.process_index() != 0:
        copy.pull()
    yield copy.folder


def _make_folder() -> Path:
  """A new folder below $TMPDIR; removes those that killed processes have left there."""
  prefix = f'gan_jax-{hashlib.sha256(machine().encode()).hexdigest()[:8]}'
  for folder in Path(gettempdir()).glob(f'{prefix}-*-*'):
    with contextlib.suppress(ValueError, PermissionError):
      try:
        os.kill(int(folder.name.split('-')[2]), 0)
      except ProcessLookupError:
        shutil.rmtree(folder, ignore_errors=True)
  return Path(mkdtemp(prefix=f'{prefix}-{os.getpid()}-')).resolve()


def _stamp(file: Path) -> tuple[int, int]:
  stat = file.stat()
  return stat.st_size, stat.st_mtime_ns
