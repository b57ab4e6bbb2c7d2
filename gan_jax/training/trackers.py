"""Where the metrics of a run can go besides its workdir: TensorBoard, W&B, MLflow."""

import contextlib
import enum
import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from gan_jax import UserError
from gan_jax.storage.nested import flatten

GRID = 'samples'  # name of the sample grids


class End(enum.Enum):
  """How a run ended."""

  FINISHED = 'finished'
  STOPPED = 'stopped'  # on request; it will be resumed
  FAILED = 'failed'


class Tracker(Protocol):
  """A service that shows runs; its step is the number of images.

  `Sender` calls it from one thread, so that no method has to be quick.
  """

  def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
    """Starts a run, or continues the one with an id.

    Args:
      config: of the run, by section.
      name: shown for the run.
      run_id: as returned by the first start; None: this is the first.

    Returns:
      The id of the run.

    Raises:
      UserError: only the user can correct it, such as a missing login.
    """
    ...

  def scalars(self, images: int, values: Mapping[str, float]) -> None: ...

  def grid(self, images: int, grid: Image.Image) -> None: ...

  def finish(self, end: End) -> None: ...


class WandB:
  """Weights & Biases. Its environment variables, WANDB_..., keep their meaning."""

  def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
    wandb = importlib.import_module('wandb')
    own = {'id': run_id, 'name': name, 'resume': 'allow'}
    variables = {'id': 'WANDB_RUN_ID', 'name': 'WANDB_NAME', 'resume': 'WANDB_RESUME'}
    chosen = {n: x for n, x in own.items() if not os.environ.get(variables[n])}
    try:
      # A run of its own, also where a notebook has one open.
      self._run = wandb.init(config=dict(config), reinit='create_new', **chosen)
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
      raise UserError(
        f"log.trackers contains 'wandb', which cannot start ({_one_line(error)}): run "
        '`wandb login`, or set WANDB_MODE=offline.'
      ) from error
    self._image = wandb.Image
    return run_id or '' if self._run.disabled else self._run.id

  def scalars(self, images: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=images)

  def grid(self, images: int, grid: Image.Image) -> None:
    self._run.log({GRID: self._image(grid)}, step=images)

  def finish(self, end: End) -> None:
    if end == End.STOPPED:
      self._run.mark_preempting()
    self._run.finish(exit_code=0 if end == End.FINISHED else 1)


class MLflow:
  """MLflow. Its environment variables, MLFLOW_..., keep their meaning."""

  _STATUS = {End.FINISHED: 'FINISHED', End.STOPPED: 'KILLED', End.FAILED: 'FAILED'}

  def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
    self._mlflow = importlib.import_module('mlflow')
    error_class = self._mlflow.exceptions.MlflowException
    try:
      run = None
      if run_id and not os.environ.get('MLFLOW_RUN_ID'):
        with _absent_is_none(error_class):
          run = self._mlflow.start_run(run_id=run_id)
      if run is None:
        run = self._mlflow.start_run(run_name=name)
        for part in _parts(flatten(config), 100):  # MLflow accepts so many in a call
          self._mlflow.log_params(part)
    except error_class as error:
      if error.error_code in ('INVALID_PARAMETER_VALUE', 'UNAUTHENTICATED'):
        raise UserError(
          f"log.trackers contains 'mlflow', which cannot start ({_one_line(error)}): "
          'see MLFLOW_TRACKING_URI.'
        ) from error
      raise
    return run.info.run_id

  def scalars(self, images: int, values: Mapping[str, float]) -> None:
    # Its file store has a file for each metric, and a folder for each '/'.
    named = {name.replace('/', '.'): x for name, x in values.items()}
    for part in _parts(named, 1000):
      self._mlflow.log_metrics(part, step=images)

  def grid(self, images: int, grid: Image.Image) -> None:
    self._mlflow.log_image(grid, key=GRID, step=images, synchronous=True)

  def finish(self, end: End) -> None:
    self._mlflow.end_run(self._STATUS[end])


@contextlib.contextmanager
def _absent_is_none(error_class: type[Exception]) -> Iterator[None]:
  """Suppresses MLflow's error that there is no such run."""
  try:
    yield
  except error_class as error:
    if getattr(error, 'error_code', '') != 'RESOURCE_DOES_NOT_EXIST':
      raise


def _parts(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
  items = iter(values.items())
  while part := dict(islice(items, size)):
    yield part


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split()).rstrip('.')


# By name in log.trackers, which is also that of the package and of the extra; with a
# function that the package has.
SERVICES: dict[str, tuple[Callable[[], Tracker], str]] = {
  'wandb': (WandB, 'init'),
  'mlflow': (MLflow, 'start_run'),
}


def check_installed(names: tuple[str, ...]) -> None:
  """Imports the packages of trackers.

  Raises:
    UserError: one is missing.
  """
  for name in names:
    if name not in SERVICES:
      continue
    try:
      # A folder ./wandb, which wandb itself makes, can be imported too.
      getattr(importlib.import_module(name), SERVICES[name][1])
    except (ImportError, AttributeError) as error:
      raise UserError(
        f'log.trackers contains {name!r}, whose package cannot be imported '
        f"({_one_line(error)}): pip install 'gan_jax[{name}]', or leave it out."
      ) from error


class TensorBoard:
  """An event file of TensorBoard, opened at the first write.

  Not `tensorboardX.SummaryWriter`: that writes in a thread of its own, which dies on a
  full disk, and then `add_scalar` or the end of the process waits for it forever.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._writer: EventsWriter | None = None

  def scalars(self, images: int, values: Mapping[str, float]) -> None:
    if self._writer is None:
      self._folder.mkdir(exist_ok=True)
      self._writer = EventsWriter(str(self._folder / 'events'), f'.{time.time_ns()}')
      # TensorBoard discards what earlier processes wrote beyond this step.
      start = SessionLog(status=SessionLog.START)
      self._writer.write_event(Event(step=images, session_log=start))
    entries = [Summary.Value(tag=n, simple_value=x) for n, x in values.items()]
    summary = Summary(value=entries)
    self._writer.write_event(Event(step=images, wall_time=time.time(), summary=summary))
    self._writer.flush()

  def close(self) -> None:
    """Closes the file; the next write opens another one."""
    writer, self._writer = self._writer, None
    if writer:
      writer.close()
