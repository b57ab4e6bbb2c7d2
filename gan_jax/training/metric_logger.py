"""Progress of a run: progress bar, metrics.jsonl and trackers."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from gan_jax.storage.files import atomic_path
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import noise_scale
from gan_jax.training.step_times import StepTimes
from gan_jax.training.tracking import Tracking

METRICS = 'metrics.jsonl'


def crosses_multiple(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]."""
  return after // every > before // every


class MetricLogger:
  """Writes metrics on process 0; elsewhere it only fetches them.

  Lines beyond the images of a resumed run are removed, so that the files describe one
  run. A full disk loses lines and does not stop the run.

  Attributes:
    step_times: mean times of the steps, part of each line.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    total: int,
    images: int,
    active: bool,
    tracking: Tracking,
    log: Callable[[str], Any],
    on_line: Callable[[Mapping[str, Any]], Any] = lambda line: None,
  ):
    """
    Args:
      total: images at the end of the run.
      images: images seen so far.
      active: whether to write at all; process 0 of a job should.
      on_line: called with each line of metrics.jsonl, those that exist included.
    """
    self._active, self._log, self._on_line = active, log, on_line
    self._total, self._last_images = total, images
    self._last_line = images, time.perf_counter()
    self._path = workdir / METRICS
    self._tracking = tracking
    self._failure_logged = False
    self._pending: tuple[int, Mapping[str, Any]] | None = None
    self._noise_scale = noise_scale.NoiseScale()
    self.step_times = StepTimes()
    if active:
      self._resume(images)
    self._bar = tqdm(
      total=total, initial=images, unit='img', disable=not active, smoothing=0.1
    )

  def _resume(self, images: int) -> None:
    lines = [x for x in read_json_lines(self._path) if x['images'] <= images]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    if self._path.is_file() and self._path.read_text() != text:
      with atomic_path(self._path) as part:
        part.write_text(text)
    for line in lines:
      self._noise_scale.add_line(line)
      self._on_line(line)
    self._tracking.begin(lines)

  def __enter__(self) -> 'MetricLogger':
    return self

  def __exit__(self, *_: Any) -> None:
    self._bar.close()

  @contextlib.contextmanager
  def tolerate_full_disk(self) -> Iterator[None]:
    """Logs the first OSError of writing and suppresses all."""
    try:
      yield
    except OSError as error:
      if not self._failure_logged:
        self._log(f'{self._path} could not be written ({error.strerror}): going on')
      self._failure_logged = True

  def write(self, line: dict[str, Any]) -> None:
    """Appends a line to metrics.jsonl and passes its numbers on to the trackers.

    Args:
      line: values by name; 'images' is required.
    """
    if not self._active:
      return
    self._on_line(line)
    with self.tolerate_full_disk(), self._path.open('a') as f:
      f.write(json.dumps(line) + '\n')
    self.write_scalars(line['images'], line)

  def write_scalars(self, images: int, values: Mapping[str, Any]) -> None:
    """Passes the numbers among some values on to the trackers."""
    with self.tolerate_full_disk():
      self._tracking.scalars(images, values)

  def defer(self, images: int, metrics: Mapping[str, Any]) -> None:
    """Holds the device metrics of an iteration; `flush` fetches them later."""
    self._pending = images, metrics

  def flush(self, every: int) -> dict[str, float] | None:
    """Fetches the deferred metrics, which waits for their iteration to end.

    A line is written if a multiple of `every` images has been crossed. It leaves out
    non-finite values: JSON has none, and the metric `skipped` counts them.

    Returns:
      The metrics, or None if none were deferred.
    """
    if self._pending is None:
      return None
    images, metrics = self._pending
    self._pending = None
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    if self._active:
      self._noise_scale.add_step(values)
    self._bar.update(images - self._last_images)
    before, self._last_images = self._last_images, images
    if crosses_multiple(before, images, every):
      times = self.step_times.next_line()  # on all processes
      if self._active:
        self._write_metrics(images, values, times)
    return values

  def _write_metrics(
    self, images: int, values: Mapping[str, float], times: Mapping[str, Any]
  ) -> None:
    (images_before, time_before), now = self._last_line, time.perf_counter()
    self._last_line = images, now
    finite = {name: x for name, x in values.items() if math.isfinite(x)}
    finite |= self._noise_scale.next_line()
    rate = (images - images_before) / (now - time_before)
    self.write({'images': images, **finite, 'images_per_s': rate, **times})
    shown = {n: f'{v:.2f}' for n, v in finite.items() if n in ('d_real', 'd_fake')}
    self._bar.set_postfix(shown)
