"""What the time of a session goes into, for starts.jsonl and the report's goodput."""

import collections
import contextlib
import time
from collections.abc import Iterator
from typing import Any

RECORD_SECONDS = 60.0  # a killed process has recorded all but so many


class PhaseClock:
  """Seconds since a session began, and those of its phases other than training.

  Attributes:
    since: when it began, in seconds since the epoch.
  """

  def __init__(self) -> None:
    self.since = time.time()
    self._began = self._recorded = time.perf_counter()
    self._seconds: dict[str, float] = collections.defaultdict(float)

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts the time of the block."""
    began = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[name] += time.perf_counter() - began

  def due(self) -> bool:
    """Whether the last record is old. Cheap: called at each iteration."""
    return time.perf_counter() - self._recorded > RECORD_SECONDS

  def record(self, images: int) -> dict[str, Any]:
    """Fields of the session's line in starts.jsonl, of which it has seen `images`."""
    self._recorded = time.perf_counter()
    total = self._recorded - self._began
    training = total - sum(self._seconds.values())
    seconds = {**self._seconds, 'training': training}
    return {
      'until': self.since + total,  # the parts add up to the time in between
      'until_images': images,
      'seconds': {name: round(value, 2) for name, value in seconds.items()},
    }
