"""Durations of long phases, announced with the time they took in the last run."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gan_jax.storage.files import atomic_path

DURATIONS = 'durations.json'  # of a workdir: phase -> seconds
MIN_SECONDS = 2.0  # shorter phases are not recorded


@contextlib.contextmanager
def timed_phase(
  workdir: Path | None, phase: str, log: Callable[[str], Any]
) -> Iterator[None]:
  """Logs the start and end of a phase; records its duration unless it fails.

  Args:
    workdir: where the duration is recorded; None: nowhere.
  """
  path = workdir and workdir / DURATIONS
  last = _read(path).get(phase) if path else None
  known = isinstance(last, int | float)
  log(f'{phase} (took {last:.0f} s last time) ...' if known else f'{phase} ...')
  began = time.perf_counter()
  yield
  seconds = time.perf_counter() - began
  if seconds < MIN_SECONDS:
    return
  log(f'{phase}: done in {seconds:.0f} s')
  if not path:
    return
  durations = _read(path) | {phase: round(seconds, 1)}
  with contextlib.suppress(OSError), atomic_path(path) as part:
    part.write_text(json.dumps(durations, indent=1) + '\n')


def _read(path: Path) -> dict[str, Any]:
  """The content of durations.json; {} if it is missing or corrupted."""
  try:
    durations = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return durations if isinstance(durations, dict) else {}
