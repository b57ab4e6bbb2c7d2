"""Atomic writes, and the folder that holds cached results."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
  finally:
    part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
  """Writes indented JSON atomically."""
  with atomic_path(path) as part:
    part.write_text(json.dumps(value, indent=2) + '\n')


def cache_folder(name: str = '') -> Path:
  """The folder of cached results: $GAN_JAX_CACHE/name or ~/.cache/gan_jax/name."""
  root = os.environ.get('GAN_JAX_CACHE') or Path.home() / '.cache' / 'gan_jax'
  return Path(os.path.expanduser(root)) / name
