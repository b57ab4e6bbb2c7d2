"""What a run tells while it goes on: progress, JSON lines, TensorBoard."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

from gan_jax.storage.files import atomic_path
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import noise_scale
from gan_jax.training.collapse_monitor import CollapseMonitor


def crosses_multiple(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]."""
  return after // every > before // every


class MetricLogger:
  """Progress bar, JSON lines and TensorBoard, on the first process.

  Lines beyond the images of a resumed run are cut: the journal is that of one run.
  A full disk costs lines, not the run.
  """

  def __init__(
    self,
    workdir: Path,
    total: int,
    images: int,
    active: bool,
    say: Callable[[str], Any],
  ):
    self._active, self._say, self._told = active, say, False
    self._total, self._seen = total, images
    self._mark = images, time.perf_counter()
    self._path, self._events = workdir / 'metrics.jsonl', workdir / 'tensorboard'
    self.lines: list[dict[str, Any]] = []  # that were there, on the first process
    self._board: EventsWriter | None = None
    self._scale = noise_scale.NoiseScale()
    if active:
      self.lines = [x for x in read_json_lines(self._path) if x['images'] <= images]
      text = ''.join(json.dumps(line) + '\n' for line in self.lines)
      if self._path.is_file() and self._path.read_text() != text:
        with atomic_path(self._path) as part:
          part.write_text(text)
    for line in self.lines:
      self._scale.follow(line)
    self._bar = tqdm(
      total=total, initial=images, unit='img', disable=not active, smoothing=0.1
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    if self._board:
      with self.forgiving():
        self._board.close()

  @contextlib.contextmanager
  def forgiving(self):
    """Says once that something could not be written."""
    try:
      yield
    except OSError as error:
      if not self._told:
        self._say(f'{self._path} could not be written ({error.strerror}): going on')
      self._told = True

  def note(self, line: dict[str, Any]) -> None:
    """Writes a line; `draw` gets its numbers."""
    if not self._active:
      return
    with self.forgiving(), self._path.open('a') as f:
      f.write(json.dumps(line) + '\n')
    self.draw(line['images'], {n: x for n, x in line.items() if n != 'images'})

  def draw(self, images: int, values: Mapping[str, Any]) -> None:
    """Scalars for TensorBoard; what is no number is left out."""
    numbers = {n: x for n, x in values.items() if isinstance(x, int | float)}
    if not self._active or not numbers:
      return
    with self.forgiving():
      if self._board is None:
        self._events.mkdir(exist_ok=True)
        name = f'.{time.time_ns()}'
        self._board = EventsWriter(str(self._events / 'events'), name)
        # TensorBoard forgets what an earlier process wrote beyond this.
        start = SessionLog(status=SessionLog.START)
        self._board.write_event(Event(step=images, session_log=start))
      summary = Summary(
        value=[Summary.Value(tag=n, simple_value=x) for n, x in numbers.items()]
      )
      event = Event(step=images, wall_time=time.time(), summary=summary)
      self._board.write_event(event)
      self._board.flush()

  def add(
    self, images: int, metrics: Any, every: int, watcher: CollapseMonitor
  ) -> dict[str, float]:
    """Waits for a step's metrics; writes them where a multiple of `every` is passed.

    What is not finite is left out: JSON has no word for it, and `skipped` says so.
    """
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    if self._active:
      self._scale.see(values)
    self._bar.update(images - self._seen)
    before, self._seen = self._seen, images
    if not crosses_multiple(before, images, every) or not self._active:
      return values
    then, since = self._mark
    now = time.perf_counter()
    self._mark = images, now
    found = {name: x for name, x in values.items() if math.isfinite(x)}
    found |= self._scale.line()
    line = {'images': images, **found, 'images_per_s': (images - then) / (now - since)}
    watcher.see(line)
    self.note(line)
    self._bar.set_postfix(
      {n: f'{v:.2f}' for n, v in found.items() if n.startswith(('d_real', 'd_fake'))}
    )
    return values
