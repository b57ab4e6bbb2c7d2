"""Profiles some iterations of a run with jax.profiler."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from gan_jax import UserError
from gan_jax.training.callbacks import Iteration

if TYPE_CHECKING:
  from gan_jax.training.session import TrainingSession


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
  """Which iterations are profiled, and in which processes of a job.

  Attributes:
    after: iterations of the run before the first profiled one.
    count: number of profiled iterations.
    processes: numbers of the processes; empty: all.
  """

  after: int
  count: int
  processes: tuple[int, ...] = (0,)


def parse_profile(steps: str, processes: str = '0') -> ProfiledSteps:
  """Reads STEP:N and '0,3' or 'all'.

  Raises:
    UserError: they have another form.
  """
  match = re.fullmatch(r'(\d+):(\d+)', steps)
  if not match or not int(match[1]) or not int(match[2]):
    raise UserError(
      f'--profile={steps}: STEP:N is needed, both at least 1, such as 100:5 for the '
      'five iterations after the 100th.'
    )
  if processes != 'all' and not re.fullmatch(r'\d+(,\d+)*', processes):
    raise UserError(
      f'--profile_processes={processes}: allowed are all and numbers of processes, '
      'such as 0,3.'
    )
  numbers = () if processes == 'all' else tuple(map(int, processes.split(',')))
  return ProfiledSteps(int(match[1]), int(match[2]), numbers)


class Profile:
  """A callback that writes WORKDIR/profile, for xprof or TensorBoard.

  In a job, each process writes into a folder of its own, profile/process_3.
  """

  phase = 'profiling'

  def __init__(self, steps: ProfiledSteps, workdir: Path, log: Callable[[str], Any]):
    """
    Raises:
      UserError: the job has no such process.
    """
    index, count = jax.process_index(), jax.process_count()
    if missing := [i for i in steps.processes if i >= count]:
      raise UserError(
        f'--profile_processes: there is no process {missing[0]}; allowed are all and '
        f'0 to {count - 1}.'
      )
    self._steps, self._log = steps, log
    self._folder = workdir / 'profile'
    if count > 1:
      self._folder /= f'process_{index}'
    self._waiting = not steps.processes or index in steps.processes
    self._running = False

  def due(self, iteration: Iteration) -> bool:
    after, count, step = self._steps.after, self._steps.count, iteration.step
    if self._running:
      return step >= after + count
    if self._waiting and step > after:
      self._waiting = False
      self._log(
        f'--profile={after}:{count}: nothing is profiled, since this run is at '
        f'iteration {step}; take a later one.'
      )
    return self._waiting and step == after

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    if self._running:
      self.close()
      return
    self._waiting = False
    with _going_on(self._folder, self._log):
      self._folder.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(self._folder)
      self._running = True

  def close(self) -> None:
    """Writes the profile, if one is being taken."""
    if not self._running:
      return
    self._running = False
    with _going_on(self._folder, self._log):
      jax.profiler.stop_trace()
      self._log(f'profiled: xprof --logdir={self._folder} shows it (pip install xprof)')


@contextlib.contextmanager
def _going_on(folder: Path, log: Callable[[str], Any]) -> Iterator[None]:
  """Logs an error of the profiler or of the disk; training goes on."""
  try:
    yield
  except (OSError, RuntimeError) as error:
    log(f'{folder}: no profile could be written ({error}): going on')
