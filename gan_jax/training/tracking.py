"""Passes what a run logs on to its trackers, which can neither stop nor delay it."""

import contextlib
import functools
import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from PIL import Image

from gan_jax import UserError
from gan_jax.storage.files import write_json
from gan_jax.training.trackers import SERVICES, End, TensorBoard, Tracker

START_SECONDS = 30.0  # for which training waits for a tracker to start
FINISH_SECONDS = 20.0  # for which the end waits for what has not been sent yet
MAX_WAITING = 10_000  # lines that wait to be sent
MAX_GRIDS = 50  # of them when a grid, which is large, is added

Line = Mapping[str, Any]


class Sender:
  """Calls a tracker from a thread of its own.

  A file keeps the id of the tracker's run and the images up to which it has been sent,
  so that a resumed run continues that run, and what it repeats is not sent again.
  """

  def __init__(
    self, name: str, tracker: Tracker, file: Path, log: Callable[[str], Any]
  ):
    """
    Args:
      file: WORKDIR/trackers/NAME.json.
    """
    self._name, self._tracker, self._file, self._log = name, tracker, file, log
    self._run_id, self._sent = self._read()
    self._floor = self._sent  # nothing up to here is sent
    self._last_grid = -1
    self._calls: queue.SimpleQueue[Callable[[], Any] | End] = queue.SimpleQueue()
    self._started: futures.Future[None] = futures.Future()
    self._warned = self._ended = False
    self._thread = threading.Thread(target=lambda: None)

  def _read(self) -> tuple[str | None, int]:
    with contextlib.suppress(OSError, ValueError, KeyError):
      record = json.loads(self._file.read_text())
      return record['run'] or None, int(record['images'])
    return None, -1

  def _write(self) -> None:
    with contextlib.suppress(OSError):  # disk full
      self._file.parent.mkdir(parents=True, exist_ok=True)
      write_json(self._file, {'run': self._run_id, 'images': self._sent})

  def start(self, config: Mapping[str, Any], name: str) -> None:
    """Starts the tracker's run, or continues it; waits for that, but not for long.

    Raises:
      UserError: only the user can correct why it does not start.
    """
    self._thread = threading.Thread(
      target=self._run, args=(config, name), name=self._name, daemon=True
    )
    self._thread.start()
    done, _ = futures.wait([self._started], START_SECONDS)
    if not done:
      self._log(f'{self._name} has not started yet: training does not wait for it')
      self._started.add_done_callback(lambda late: self._explain(late.exception()))
    elif isinstance(error := self._started.exception(), UserError):
      raise error
    else:
      self._explain(error)

  def _explain(self, error: BaseException | None) -> None:
    if error is not None:
      self._log(f'{self._name} cannot start ({error}): training goes on without it')

  def _run(self, config: Mapping[str, Any], name: str) -> None:
    try:
      run_id = self._tracker.start(config, name, self._run_id)
      if run_id != self._run_id:  # a new one: it gets all lines of metrics.jsonl
        self._run_id, self._sent = run_id, -1
        self._floor = self._sent
      self._write()
    except Exception as error:
      self._ended = True
      self._started.set_exception(error)
      return
    self._started.set_result(None)
    while not isinstance(call := self._calls.get(), End):
      self._attempt(call)
    self._attempt(lambda: self._tracker.finish(call))

  def _attempt(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      self._warn(str(error) or type(error).__name__)

  def _warn(self, reason: str) -> None:
    if not self._warned:
      self._log(f'{self._name} could not be written ({reason}): going on')
    self._warned = True

  def _put(self, call: Callable[[], Any] | End) -> None:
    if self._ended:
      return
    if self._calls.qsize() < MAX_WAITING or isinstance(call, End):
      self._calls.put(call)
    else:
      self._warn('too many lines wait to be sent')

  def begin(self, lines: Sequence[Line]) -> None:
    """A session begins, whose metrics so far are `lines`: what is missing is sent."""

    def send() -> None:
      self._floor = self._sent
      for line in lines:
        self._attempt(functools.partial(self._send_scalars, line['images'], line))

    self._put(send)

  def scalars(self, images: int, values: Line) -> None:
    self._put(lambda: self._send_scalars(images, values))

  def grid(self, images: int, grid: Image.Image) -> None:
    if self._calls.qsize() < MAX_GRIDS and images != self._last_grid:
      self._last_grid = images
      self._put(lambda: self._send_grid(images, grid))

  def _send_scalars(self, images: int, line: Line) -> None:
    values = numbers_of(line)
    if self._is_new(images) and values:
      self._tracker.scalars(images, values)

  def _send_grid(self, images: int, grid: Image.Image) -> None:
    if self._is_new(images):
      self._tracker.grid(images, grid)

  def _is_new(self, images: int) -> bool:
    if images <= self._floor:
      return False
    if images > self._sent:
      self._sent = images
      self._write()
    return True

  def finish(self, end: End) -> None:
    """Ends the tracker's run; waits for that, but not for long."""
    self._put(end)
    self._ended = True
    self._thread.join(FINISH_SECONDS)
    if self._thread.is_alive():
      self._warn(f'not all was sent within {FINISH_SECONDS:g} s of the end')


class Tracking:
  """The trackers of a run. Process 0 of a job has them; elsewhere there are none."""

  def __init__(self, workdir: Path, names: Sequence[str], log: Callable[[str], Any]):
    """
    Args:
      names: as in log.trackers.
    """
    folder = workdir / 'tensorboard'
    self._tensorboard = TensorBoard(folder) if 'tensorboard' in names else None
    self._senders = [
      Sender(name, tracker(), workdir / 'trackers' / f'{name}.json', log)
      for name, (tracker, _) in SERVICES.items()
      if name in names
    ]
    self._finished = False

  def start(self, config: Mapping[str, Any], name: str) -> None:
    """Starts all trackers.

    Raises:
      UserError: only the user can correct why one does not start.
    """
    for sender in self._senders:
      sender.start(config, name)

  def __enter__(self) -> 'Tracking':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    on_request = kind and issubclass(kind, KeyboardInterrupt)
    self.finish(End.STOPPED if on_request else End.FAILED)

  def begin(self, lines: Sequence[Line]) -> None:
    """A session begins.

    Args:
      lines: of metrics.jsonl, up to the images at which it begins.
    """
    if self._tensorboard:
      self._tensorboard.close()
    for sender in self._senders:
      sender.begin(lines)

  def scalars(self, images: int, values: Line) -> None:
    """Passes the numbers of a line on.

    Raises:
      OSError: TensorBoard's file could not be written.
    """
    for sender in self._senders:
      sender.scalars(images, values)
    if self._tensorboard and (numbers := numbers_of(values)):
      self._tensorboard.scalars(images, numbers)

  def grid(self, images: int, grid: Image.Image) -> None:
    """Passes a sample grid on; TensorBoard does not get it."""
    for sender in self._senders:
      sender.grid(images, grid)

  def finish(self, end: End) -> None:
    """Ends all trackers. Only the first call counts."""
    if self._finished:
      return
    self._finished = True
    if self._tensorboard:
      with contextlib.suppress(OSError):
        self._tensorboard.close()
    for sender in self._senders:
      sender.finish(end)


def numbers_of(line: Line) -> dict[str, float]:
  """The entries of a line that are numbers, without 'images'."""
  numbers = {name: x for name, x in line.items() if isinstance(x, int | float)}
  numbers.pop('images', None)
  return numbers
