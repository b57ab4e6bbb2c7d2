"""Long silent phases say what they are, and how long they took the last time."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gan_jax.storage.files import atomic_path

DURATIONS = 'durations.json'  # of a workdir: phase -> seconds
SILENCE = 2.0  # seconds; what takes less is not worth a word afterwards


@contextlib.contextmanager
def timed_phase(workdir: Path, what: str, say: Callable[[str], Any]) -> Iterator[None]:
  """Announces a phase of a workdir; remembers how long it took if it went well."""
  path = workdir / DURATIONS
  try:
    before = json.loads(path.read_text())
    last = float(before[what])
  except (OSError, ValueError, KeyError, TypeError):
    last = None
  say(f'{what} ...' if last is None else f'{what} (took {last:.0f} s last time) ...')
  began = time.perf_counter()
  yield
  took = time.perf_counter() - began
  if took < SILENCE:
    return
  say(f'{what}: done in {took:.0f} s')
  try:
    known = json.loads(path.read_text())
  except (OSError, ValueError):
    known = {}
  known = known if isinstance(known, dict) else {}
  with contextlib.suppress(OSError), atomic_path(path) as part:
    part.write_text(json.dumps(known | {what: round(took, 1)}, indent=1) + '\n')
