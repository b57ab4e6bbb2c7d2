"""Copies sets from stores to this machine: once for all its processes, and checked.

A file is received under a temporary name, checked, and renamed; after a kill it goes on
where it stopped. `files.jsonl` notes each file that was checked, with the time of its
modification: a file that has changed since is checked again, and fetched again if its
content differs. Only files that are read are copied.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gan_jax import UserError
from gan_jax.data.set_files import (
  Expected,
  FilesInPlace,
  FolderFiles,
  PreparedFiles,
  SetFiles,
)
from gan_jax.runtime.urls import check_path, is_url
from gan_jax.storage.files import cache_folder, check_output_folder
from gan_jax.storage.json_lines import append_json_lines, read_json_lines
from gan_jax.storage.store import Store

CHUNK = 2**25  # bytes of one request
_THREADS = 8
_NOTES = 'files.jsonl'


def open_files(place: str, cache: str | None) -> PreparedFiles:
  """The files of a set, read where they are or through a copy.

  Args:
    place: a URL, or a folder of this machine, which is copied only if `cache` is given.
    cache: folder of the copies; None or '' for the default.

  Raises:
    UserError: a mistake in the URL or in `cache`.
  """
  if is_url(place):
    return SetCopy(Store(place), data_cache(cache))
  folder = Path(os.path.expanduser(place))
  if cache:
    return SetCopy(FolderFiles(folder.resolve()), data_cache(cache))
  return FilesInPlace(folder)


def data_cache(folder: str | None) -> Path:
  """The folder of copied sets: `folder`, else $GAN_JAX_CACHE/data.

  Raises:
    UserError: it is a URL, or there is no such user.
  """
  if not folder:
    return cache_folder('data')
  try:
    return Path(check_path(folder)).expanduser()
  except UserError as error:
    raise UserError(f'data.cache={error}') from error
  except RuntimeError as error:
    raise UserError(f'data.cache={folder}: there is no such user.') from error


class SetCopy:
  """A copy of the files of a set.

  Attributes:
    files: what is copied.
    folder: of the copy; a folder of the same name, within one for this set.
  """

  def __init__(self, files: SetFiles, cache: Path):
    self.files, self._cache = files, cache
    parts = files.url.rstrip('/').split('/')
    label = re.sub(r'[^\w.-]+', '_', '-'.join(parts[-2:]))
    self._home = cache / f'{label}-{hashlib.sha256(files.url.encode()).hexdigest()[:8]}'
    self.folder = self._home / parts[-1]
    self._notes: dict[str, dict[str, Any]] = {}

  def fetch(
    self, below: str, files: Mapping[str, Expected], names: Collection[str]
  ) -> None:
    """Copies the files that are not here; one process of a machine does it for all.

    Args:
      below: a folder of the set.
      files: all that are below it; others are removed from the copy.
      names: of those that are needed here.

    Raises:
      UserError: the cache cannot be written or is too small; the set has other files
        than those expected.
    """
    expected = {name: files[name] for name in names}
    self._read_notes()
    others = self._others(below, files)
    if not others and all(self._is_noted(*item) for item in expected.items()):
      return
    with self._lock():
      self._read_notes()  # by the process that this one waited for
      for path in others:
        self._remove(path)
      missing = self._find_missing(expected)
      if missing:
        self._check_space(missing)
        with self._explained():
          self._copy(missing)

  def _others(self, below: str, files: Mapping[str, Expected]) -> list[Path]:
    """Files of the copy that the set no longer has."""
    kept = {self.folder / name for name in files}
    kept |= {self._part(*item) for item in files.items()}
    found = (self.folder / below).rglob('*')
    return [path for path in found if path not in kept and not path.is_dir()]

  def _remove(self, path: Path) -> None:
    """Removes a file, and folders that are empty without it."""
    path.unlink(missing_ok=True)
    for folder in path.parents:
      if folder == self.folder or any(folder.iterdir()):
        return
      folder.rmdir()

  def _read_notes(self) -> None:
    self._notes = {}
    with contextlib.suppress(OSError):  # `_lock` says what is wrong
      lines = read_json_lines(self._home / _NOTES)
      self._notes = {line['file']: line for line in lines if 'file' in line}

  def _is_noted(self, name: str, expected: Expected) -> bool:
    """Whether a file was checked, and has not been touched since."""
    note, path = self._notes.get(name), self.folder / name
    return (
      note is not None
      and note.get('version') == expected.version
      and path.is_file()
      and [path.stat().st_size, path.stat().st_mtime_ns]
      == [expected.size, note.get('mtime_ns')]
    )

  def _is_whole(self, name: str, expected: Expected) -> bool:
    """Whether a file is here with the content that is expected."""
    if self._is_noted(name, expected):
      return True
    note, path = self._notes.get(name, {}), self.folder / name
    if not path.is_file() or path.stat().st_size != expected.size:
      return False
    before = note.get('sha256') if note.get('version') == expected.version else None
    sha256 = _digest(path, 'sha256')
    if sha256 != (expected.sha256 or before):
      return False
    self._note(name, expected, sha256)
    return True

  def _note(self, name: str, expected: Expected, sha256: str) -> None:
    mtime_ns = (self.folder / name).stat().st_mtime_ns
    note = {'file': name, 'version': expected.version, 'mtime_ns': mtime_ns}
    append_json_lines(self._home / _NOTES, [note | {'sha256': sha256}])

  def _find_missing(self, expected: Mapping[str, Expected]) -> dict[str, Expected]:
    with ThreadPoolExecutor(_THREADS) as pool:
      whole = pool.map(self._is_whole, expected, expected.values())
      return {name: x for (name, x), ok in zip(expected.items(), whole) if not ok}

  @contextlib.contextmanager
  def _lock(self) -> Iterator[None]:
    """Holds the copy for this process; the lock ends with it."""
    check_output_folder(self._cache, 'data.cache')
    try:
      self._home.mkdir(parents=True, exist_ok=True)
      file = (self._home / 'lock').open('a')
    except OSError as error:
      raise UserError(
        f'data.cache={self._cache} cannot be written: {error.strerror}.'
      ) from error
    with file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        _say(f'waiting for the process that copies {self.files.url}')
        fcntl.flock(file, fcntl.LOCK_EX)
      except OSError as error:
        raise UserError(
          f'data.cache={self._cache} cannot be locked ({error.strerror}): name a '
          'folder on a disk of this machine.'
        ) from error
      yield

  def _check_space(self, missing: Mapping[str, Expected]) -> None:
    needed = sum(file.size for file in missing.values())
    needed -= sum(
      part.stat().st_size
      for part in (self._part(name, file) for name, file in missing.items())
      if part.is_file()
    )
    free = shutil.disk_usage(self._home).free
    if needed > free:
      raise UserError(
        f'data.cache={self._cache} has {_bytes(free)} free, and the copy of '
        f'{self.files.url} needs {_bytes(needed)}: make room, or set data.cache '
        'to a folder on a larger disk.'
      )

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    """Errors of this machine's disk are said to be that."""
    try:
      yield
    except OSError as error:
      if is_url(str(error.filename or '')):
        raise
      reason = ': '.join(filter(None, [error.filename, error.strerror]))
      raise UserError(
        f'data.cache={self._cache}: the copy of {self.files.url} stopped ({reason}); '
        'start again to go on with it.'
      ) from error

  def _copy(self, missing: Mapping[str, Expected]) -> None:
    """Copies files, several at a time."""
    total = sum(file.size for file in missing.values())
    _say(f'copying {_bytes(total)} of {self.files.url} to {self.folder}')
    stop = threading.Event()
    with (
      tqdm(total=total, unit='B', unit_scale=True, desc='copying', disable=None) as bar,
      ThreadPoolExecutor(_THREADS) as pool,
    ):
      try:
        copies = [
          pool.submit(self._receive, name, file, bar, stop)
          for name, file in missing.items()
        ]
        for copy in as_completed(copies):
          copy.result()
      except BaseException:
        stop.set()
        pool.shutdown(cancel_futures=True)
        raise

  def _receive(
    self, name: str, expected: Expected, bar: Any, stop: threading.Event
  ) -> None:
    """Copies a file; a second time if its content is not the one expected."""
    path, part = self.folder / name, self._part(name, expected)
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
      self._receive_part(name, expected.size, part, bar, stop)
      sha256 = _digest(part, 'sha256')
      problem = _problem(part, expected, sha256)
      if not problem:
        os.replace(part, path)
        self._note(name, expected, sha256)
        return
      bar.update(-part.stat().st_size)
      part.unlink()
    raise UserError(
      f'{self.files.url}/{name} {problem}: the set there is incomplete or corrupted, '
      'or has just changed; copy or prepare it again.'
    )

  def _receive_part(
    self, name: str, size: int, part: Path, bar: Any, stop: threading.Event
  ) -> None:
    """Appends the bytes of a file that are not in `part` yet."""
    with part.open('ab') as file:
      bar.update(file.tell())
      while file.tell() < size:
        if stop.is_set():
          raise InterruptedError('stopped')
        start = file.tell()
        try:
          chunk = self.files.read(name, start, min(start + CHUNK, size))
        except FileNotFoundError as error:
          raise UserError(
            f'{self.files.url}/{name} is missing: it was there when the copy began; '
            'copy or prepare the set again.'
          ) from error
        if not chunk:
          break
        file.write(chunk)
        bar.update(len(chunk))
      file.flush()
      os.fsync(file.fileno())

  def _part(self, name: str, expected: Expected) -> Path:
    """The temporary file of a content."""
    key = hashlib.sha256(expected.version.encode()).hexdigest()[:8]
    path = self.folder / name
    return path.with_name(f'.{path.name}.{key}.part')


def _problem(path: Path, expected: Expected, sha256: str) -> str:
  """What is wrong with a file, as a predicate; '' if nothing is."""
  size = path.stat().st_size
  if size != expected.size:
    return f'has {size} bytes, not {expected.size}'
  if expected.sha256 and sha256 != expected.sha256:
    return f'has the SHA-256 {sha256[:16]}..., not {expected.sha256[:16]}...'
  if expected.md5 and (md5 := _digest(path, 'md5')) != expected.md5:
    return f'has the MD5 {md5}, not {expected.md5}'
  return ''


def _digest(path: Path, algorithm: str) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, algorithm).hexdigest()


def _bytes(n: int) -> str:
  return tqdm.format_sizeof(n, 'B')


def _say(sentence: str) -> None:
  tqdm.write(sentence, file=sys.stderr)
