"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
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
