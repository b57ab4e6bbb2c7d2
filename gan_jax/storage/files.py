"""Files that are there whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
  """A path to write to; when the block ends without an error it becomes `path`.

  Readers see the old file or the new one, and an error leaves the old one. The name
  keeps its ending, and no two processes share it.
  """
  part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
  with atomic_path(path) as part:
    part.write_text(json.dumps(value, indent=2) + '\n')
