"""launch/restart.sh with Open MPI's mpirun and two processes: `make test-slurm`."""

import os
import shutil
import signal
import subprocess

import pytest

from gan_jax.runtime.exit_codes import ExitCode
from tests.end_to_end.launched_run import BATCH, LaunchedRun
from tests.runs import ROOT

pytestmark = pytest.mark.slurm
RANK = 'OMPI_COMM_WORLD_RANK'


@pytest.fixture
def run(tmp_path):
  if not shutil.which('mpirun'):
    pytest.skip('mpirun is not installed')
  return LaunchedRun(tmp_path, tmp_path / 'programs')


@pytest.fixture
def start(run):
  """Starts `run`; whatever is left of it ends with the test."""
  started = []

  def start():
    mpirun = ['mpirun', '--oversubscribe', '--bind-to', 'none', '-n', '2']
    train = ['python', '-m', 'gan_jax.main', *run.flags, '--distributed=auto']
    env = {**os.environ, **run.env}
    env.pop('JAX_COMPILATION_CACHE_DIR', None)
    env |= dict(OMPI_ALLOW_RUN_AS_ROOT='1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1')
    with run.log.open('a') as log:
      started.append(
        subprocess.Popen(
          [ROOT / 'launch/restart.sh', *mpirun, *train],
          cwd=ROOT,
          env=env,
          stdout=log,
          stderr=log,
        )
      )
    return started[-1]

  yield start
  for process in started:
    if process.poll() is None:
      process.terminate()  # passed on to mpirun and its processes
      process.wait(timeout=120)


def wait_for_restart(run, count):
  """Waits until the run was resumed `count` times; returns the images it began at."""
  run.wait_until(lambda: len(run.resumed_at()) == count)
  return run.resumed_at()[-1]


def test_a_run_under_mpirun_is_stopped_killed_resumed_and_finished(run, start):
  process = start()
  run.wait_for_training()
  os.kill(run.process(1, RANK), signal.SIGTERM)
  seen = wait_for_restart(run, 1)
  assert 'stopped; resume with the same command' in run.printed()
  assert f'at image {seen}' in run.printed()
  run.wait_for_training()
  os.kill(run.process(0, RANK), signal.SIGKILL)
  assert wait_for_restart(run, 2) > seen
  run.wait_for_training()
  process.send_signal(signal.SIGTERM)  # ends the loop, and loses nothing
  assert process.wait(timeout=60) == ExitCode.STOPPED, run.printed()
  seen = run.images()
  run.train_until(seen + 10 * BATCH)
  assert start().wait(timeout=240) == ExitCode.FINISHED, run.printed()
  assert run.resumed_at()[2:] == [seen]
  run.check_finished(seen + 10 * BATCH)
