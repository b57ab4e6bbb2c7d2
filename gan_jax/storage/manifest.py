"""The seal of a checkpoint: sizes and SHA-256 of its files; finds what is corrupted."""

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = 'manifest.json'  # file beside it -> [bytes, SHA-256]


def write_manifest(folder: Path) -> None:
  """Records all files of a folder."""
  paths = (p for p in sorted(folder.rglob('*')) if p.is_file() and p.name != MANIFEST)
  digests = {str(path.relative_to(folder)): _digest(path) for path in paths}
  (folder / MANIFEST).write_text(json.dumps(digests, indent=1))


def find_corruption(folder: Path) -> str | None:
  """Compares a checkpoint with its manifest; returns what is wrong, or None.

  Args:
    folder: of one step, e.g. checkpoints/100.

  Raises:
    OSError: a file cannot be read, such as EIO; nothing is known about its content.
  """
  try:
    digests = json.loads((folder / 'default' / MANIFEST).read_text())
    for name, expected in digests.items():
      path = folder / 'default' / name
      if not path.is_file():
        return f'{name} is missing'
      if _digest(path) != expected:
        return f'{name} is not what was written'
  except (FileNotFoundError, NotADirectoryError):
    return f'it has no {MANIFEST}'
  except (ValueError, AttributeError):
    return f'{MANIFEST} is not what was written'
  return None


def _digest(path: Path) -> list[Any]:
  with path.open('rb') as f:
    return [path.stat().st_size, hashlib.file_digest(f, 'sha256').hexdigest()]
