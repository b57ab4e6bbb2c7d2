"""Runs the cells of a study on one machine: each in a process, several at a time."""

import contextlib
import fcntl
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax import UserError
from gan_jax.runtime.environment import runs_on_cpu
from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from gan_jax.runtime.local_devices import installed_gpus, visible_gpus
from gan_jax.study.cells import Cell, is_closed, read_progress

OUTPUT = 'output.log'  # in the workdir of a cell: what its process prints
ARRAY_INDICES = ('SLURM_ARRAY_TASK_ID', 'JOB_COMPLETION_INDEX')
ATTEMPTS = 3  # of a cell whose process ends with a failure that may pass
POLL_SECONDS = 0.1
BUSY_SECONDS = 2.0  # between two looks at cells that other processes train


class Slot(NamedTuple):
  """The part of the machine that one cell gets."""

  environ: dict[str, str]  # on top of that of this process
  cores: tuple[int, ...] = ()  # (): all


def make_slots(jobs: int, environ: Mapping[str, str]) -> list[Slot]:
  """Divides the cores or the GPUs of this machine among `jobs` cells at a time.

  Raises:
    UserError: they cannot be divided.
  """
  if jobs < 1:
    raise UserError(f'--jobs={jobs}: it must be at least 1.')
  if jobs == 1:
    return [Slot({})]
  if runs_on_cpu():
    cores = sorted(os.sched_getaffinity(0))
    return [Slot({}, tuple(cores[i::jobs])) for i in range(jobs)]
  gpus = visible_gpus(environ, installed_gpus())
  if not gpus:
    raise UserError(
      f'--jobs={jobs}: TPUs of one machine train one cell at a time: leave out --jobs, '
      'or give each machine its own with --cell=INDEX.'
    )
  if gpus % jobs and jobs % gpus:
    raise UserError(
      f'--jobs={jobs}: {gpus} GPUs cannot be divided evenly among so many cells.'
    )
  named = environ.get('CUDA_VISIBLE_DEVICES', '')
  names = named.split(',')[:gpus] if named else list(map(str, range(gpus)))
  share, sharing = max(gpus // jobs, 1), max(jobs // gpus, 1)
  slots = []
  for i in range(jobs):
    first = i // sharing * share
    settings = {'CUDA_VISIBLE_DEVICES': ','.join(names[first : first + share])}
    if sharing > 1:
      settings['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / sharing:.3f}'
    slots.append(Slot(settings))
  return slots


def count_devices(slot: Slot) -> int:
  """Devices that a cell will see. On accelerators another process looks, and ends."""
  if runs_on_cpu():
    import jax

    return jax.device_count()
  program = 'import jax; print(jax.device_count())'
  done = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, **slot.environ},
    capture_output=True,
    text=True,
  )
  if done.returncode:
    lines = done.stderr.strip().splitlines() or ['no reason given']
    raise UserError(f'JAX finds no devices: {lines[-1]}')
  return int(done.stdout.split()[-1])


def choose_cell(text: str | None, cells: Sequence[Cell], distributed: str) -> Cell:
  """The cell of --cell, an index or a name; without it, that of an array job.

  Raises:
    UserError: there is no such cell.
  """
  source = f'--cell={text}'
  if text is None:
    name = array_variable(distributed)
    assert name
    source, text = f'${name}={os.environ[name]}', os.environ[name]
  by_name = {cell.name: cell for cell in cells}
  if text in by_name:
    return by_name[text]
  if not text.isdecimal() or int(text) >= len(cells):
    raise UserError(
      f'{source} is no cell: this study has the cells 0 to {len(cells) - 1}, '
      f'and their names ({cells[0].name} is the first).'
    )
  return cells[int(text)]


def array_variable(distributed: str = '') -> str:
  """The environment variable that numbers the tasks of an array job; '' outside one.

  JOB_COMPLETION_INDEX numbers the processes of a job that trains one cell on several
  hosts, and then does not count.
  """
  names = ARRAY_INDICES[:1] if distributed else ARRAY_INDICES
  return next((name for name in names if os.environ.get(name)), '')


def is_locked(workdir: Path) -> bool:
  """Whether another process trains in a workdir."""
  with contextlib.suppress(OSError), (workdir / 'owner.json').open('r+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


class Runner:
  """Trains cells until each is finished or lost.

  Attributes:
    failures: cell -> exit code and last words of its process.
  """

  def __init__(
    self,
    study: Path,
    cells: Sequence[Cell],
    slots: Sequence[Slot],
    command: Callable[[Cell], list[str]],
    ended: Callable[[], Any] = lambda: None,
    log: Callable[[str], Any] = print,
    is_complete: Callable[[Cell], bool] | None = None,
  ):
    """
    Args:
      study: folder of the study.
      command: the command line that trains a cell, or resumes it.
      ended: called after each cell.
      is_complete: whether a cell needs no process; default: its run has ended.
    """
    self._study, self._cells, self._slots = study, cells, slots
    self._command, self._ended, self._log = command, ended, log
    self._complete = is_complete or (lambda cell: is_closed(self._progress(cell)))
    self._waiting: deque[Cell] = deque()
    self._running: dict[int, tuple[Cell, subprocess.Popen[bytes], float]] = {}
    self._attempts: Counter[str] = Counter()
    self._seconds: list[float] = []
    self._signals = self._forwarded = 0
    self._signal: signal.Signals | None = None
    self._busy: set[str] = set()
    self.failures: dict[str, tuple[int, str]] = {}

  def _progress(self, cell: Cell) -> Any:
    return read_progress(cell, cell.workdir(self._study))

  def run(self) -> ExitCode:
    """Runs all cells that are not complete; Ctrl-C and SIGTERM save and stop."""
    self._waiting.extend(cell for cell in self._cells if not self._complete(cell))
    done = len(self._cells) - len(self._waiting)
    if done:
      self._log(f'{done} of {len(self._cells)} cells are complete')
    with self._handle_signals():
      while self._running or self._waiting and not self._signals:
        started = self._start_cells()
        self._forward_signals()
        ended = [
          slot for slot, (_, p, _) in self._running.items() if p.poll() is not None
        ]
        for slot in ended:
          self._judge(*self._running.pop(slot))
        if not ended and not started:
          idle = not self._running and not self._signals
          time.sleep(BUSY_SECONDS if idle else POLL_SECONDS)
    return self._exit_code()

  def _exit_code(self) -> ExitCode:
    if self._signals:
      at_terminal = self._signal == signal.SIGINT and os.isatty(0)
      return ExitCode.FINISHED if at_terminal else ExitCode.STOPPED
    for name, (code, words) in self.failures.items():
      self._log(f'{name} failed with exit code {code}: {words}')
    codes = {code for code, _ in self.failures.values()}
    if not codes:
      return ExitCode.FINISHED
    passing = any(asks_for_restart(code) for code in codes)
    return ExitCode.TRANSIENT if passing else ExitCode.USER_ERROR

  def _start_cells(self) -> bool:
    """Gives each free slot a cell; returns whether any began."""
    began = False
    free = [i for i in range(len(self._slots)) if i not in self._running]
    for _ in range(len(self._waiting)):
      if not free or self._signals:
        break
      cell = self._waiting.popleft()
      if self._complete(cell):  # meanwhile, by another process
        self._report(cell, 'is complete')
      elif is_locked(cell.workdir(self._study)):
        self._put_back(cell)
      else:
        slot = free.pop(0)
        self._running[slot] = (cell, self._start(cell, slot), time.monotonic())
        began = True
    return began

  def _put_back(self, cell: Cell) -> None:
    """Puts a cell that another process trains at the end of the queue."""
    if cell.name not in self._busy:
      self._busy.add(cell.name)
      self._log(f'{cell.name} is being trained by another process')
    self._waiting.append(cell)

  def _start(self, cell: Cell, slot: int) -> subprocess.Popen[bytes]:
    self._attempts[cell.name] += 1
    workdir = cell.workdir(self._study)
    workdir.mkdir(parents=True, exist_ok=True)
    settings = self._slots[slot]
    with (workdir / OUTPUT).open('ab') as output:
      process = subprocess.Popen(
        self._command(cell),
        env={**os.environ, **settings.environ},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches it through this process, once
      )
    if settings.cores:  # before XLA counts them
      with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(process.pid, settings.cores)
    return process

  def _judge(self, cell: Cell, process: subprocess.Popen[bytes], since: float) -> None:
    """Says how a cell has ended, and puts it back if it is to go on."""
    code, progress = process.returncode, self._progress(cell)
    code = code if code >= 0 else 128 - code
    words = last_words(cell.workdir(self._study) / OUTPUT)
    if self._complete(cell):
      self._seconds.append(time.monotonic() - since)
      what = 'finished' if progress.state == 'finished' else f'lost: {progress.ended}'
      self._report(cell, f'{what} ({self._seconds[-1]:.0f} s)')
      self._ended()
    elif self._signals:
      self._log(f'{cell.name} stopped at image {progress.images:,}')
    elif code == ExitCode.USER_ERROR and 'is in use' in words:
      self._put_back(cell)  # another process was quicker
    elif asks_for_restart(code) and self._attempts[cell.name] < ATTEMPTS:
      self._log(f'{cell.name} ended with exit code {code}: it will be started again')
      self._waiting.append(cell)
    else:
      self.failures[cell.name] = code, words
      self._report(cell, f'failed: {words}')

  def _report(self, cell: Cell, what: str) -> None:
    left = len(self._waiting) + len(self._running)
    done = len(self._cells) - left
    text = f'[{done}/{len(self._cells)}] {cell.name} {what}'
    if left and self._seconds:
      rounds = -(-left // len(self._slots))
      text += f'; about {_duration(statistics.median(self._seconds) * rounds)} left'
    self._log(text)

  def _forward_signals(self) -> None:
    """Stops all processes after a first signal, and kills them after a second one."""
    if self._signals == self._forwarded:
      return
    if not self._forwarded:
      self._log('stopping: the cells save first')
    self._forwarded = self._signals
    for _, process, _ in self._running.values():
      with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

  @contextlib.contextmanager
  def _handle_signals(self) -> Iterator[None]:
    """Notes Ctrl-C and SIGTERM."""

    def stop(number: int, _: Any) -> None:
      self._signals += 1
      self._signal = signal.Signals(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
      yield
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)


def last_words(path: Path) -> str:
  """The last sentence about an error in the output of a process, else its last line."""
  try:
    lines = path.read_text(errors='replace').replace('\r', '\n').splitlines()
  except OSError:
    return 'it printed nothing'
  lines = [line.strip() for line in lines if line.strip()]
  errors = [
    line.removeprefix('error: ') for line in lines if line.startswith('error: ')
  ]
  return (errors or lines or ['it printed nothing'])[-1][:500]


def _duration(seconds: float) -> str:
  return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min'
