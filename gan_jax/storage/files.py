"""Atomic writes, and the folder that holds cached results."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.runtime.urls import is_url


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
  """Yields a temporary path; it replaces `path` when the block ends without an error.

  Readers see the old file or the new one, never a half-written one; an error keeps the
  old file. The temporary name keeps the suffix and is unique to the process.
  """
  part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
  try:
    yield part
    os.replace(part, path)
  except OSError as error:
    if str(error.filename) == str(part):
      error.filename = str(path)  # the name that the user knows
    raise
  finally:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)


def check_output_folder(folder: Path, flag: str) -> None:
  """Checks that files can be written to a folder; leaves nothing behind.

  Args:
    folder: need not exist.
    flag: that names it, such as '--workdir'.

  Raises:
    UserError: it or a folder above it is a file, or may not be written.
  """
  if reason := _not_writable(folder):
    raise UserError(f'{flag}={folder} cannot be written: {reason}.')


def check_output_file(path: Path, flag: str, endings: Sequence[str]) -> None:
  """Checks that a file can be written or replaced; leaves nothing behind.

  Args:
    flag: that names it, such as '--out'.
    endings: of names of such files, such as ('.html', '.htm'), the usual one first.

  Raises:
    UserError: it is a folder, has another ending, or may not be written.
  """
  if path.is_dir():
    raise UserError(
      f'{flag}={path} is a folder: name a file, such as {path / ("NAME" + endings[0])}.'
    )
  if path.suffix.lower() not in endings:
    ending = f'ends in {path.suffix!r}' if path.suffix else 'has no ending'
    raise UserError(
      f'{flag}={path}: the name {ending}, but a {" or ".join(endings)} file is '
      f'written: take {path.with_suffix(endings[0])}.'
    )
  if reason := _not_writable(path.parent):
    raise UserError(f'{flag}={path} cannot be written: {reason}.')


def _not_writable(folder: Path) -> str:
  """Why a folder cannot be written or created; '' if it can."""
  above = (folder, *folder.absolute().parents)
  existing = next(p for p in above if os.path.lexists(p))
  if not existing.is_dir():
    return f'{existing} is a file, not a folder'
  try:
    tempfile.TemporaryFile(dir=existing).close()  # access() says yes to root
  except OSError as error:
    return f'{existing} takes no files ({error.strerror})'
  return ''


def write_json(path: Path, value: Any) -> None:
  """Writes indented JSON atomically."""
  with atomic_path(path) as part:
    part.write_text(json.dumps(value, indent=2) + '\n')


def cache_folder(name: str = '') -> Path:
  """The folder of cached results: $GAN_JAX_CACHE/name or ~/.cache/gan_jax/name.

  Raises:
    UserError: $GAN_JAX_CACHE is a URL.
  """
  named = os.environ.get('GAN_JAX_CACHE')
  if named and is_url(named):
    raise UserError(
      f'$GAN_JAX_CACHE={named} is a URL: name a folder of this machine instead.'
    )
  root = named or Path.home() / '.cache' / 'gan_jax'
  return Path(os.path.expanduser(root)) / name
