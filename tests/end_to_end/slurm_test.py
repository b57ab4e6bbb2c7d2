"""launch/slurm.sbatch under a real SLURM with two nodes: `make test-slurm`."""

import os
import signal

import pytest

from gan_jax.runtime.exit_codes import ExitCode
from tests.end_to_end.launched_run import BATCH, LaunchedRun
from tests.end_to_end.slurm_cluster import cluster, missing
from tests.runs import ROOT

pytestmark = pytest.mark.slurm


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  if reason := missing():
    pytest.skip(f'SLURM: {reason}')
  with cluster(tmp_path_factory.mktemp('slurm')) as running:
    yield running


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  return tmp_path_factory.mktemp('programs')


class SlurmRun(LaunchedRun):
  """A job of launch/slurm.sbatch."""

  def __init__(self, slurm, folder, programs):
    super().__init__(folder, programs)
    self.slurm = slurm

  def submit(self, *options):
    script = str(ROOT / 'launch/slurm.sbatch')
    options = ['--parsable', '--nodes=2', f'--output={self.log}', *options]
    self.job = self.slurm.run('sbatch', *options, script, *self.flags, **self.env)

  def wait_for_requeue(self):
    """Waits until the job waits for its nodes again; returns the images seen."""
    self.wait_until(lambda: self.slurm.job(self.job)['Restarts'] == '1')
    self.slurm.wait_for_state(self.job, 'PENDING')
    return self.images()

  def finish(self, images, starts=2):
    """Lets the run train until `images`; waits until it has ended by itself."""
    self.train_until(images)
    self.slurm.wait_for_state(self.job, 'COMPLETED', 'FAILED', seconds=240)
    job = self.slurm.job(self.job)
    assert job['JobState'] == 'COMPLETED', self.printed()
    assert int(job['Restarts']) == starts - 1
    self.check_finished(images)


@pytest.fixture
def run(slurm, tmp_path, programs):
  """A run that is cancelled at the end of the test."""
  run = SlurmRun(slurm, tmp_path, programs)
  yield run
  slurm.run('scancel', '--state=PENDING', run.job, check=False)
  slurm.run('scancel', run.job, check=False)
  slurm.wait_for_state(run.job, 'COMPLETED', 'CANCELLED', 'FAILED')


def test_sigterm_by_scancel_loses_nothing_and_a_finished_run_is_not_requeued(run):
  run.submit()
  run.wait_for_training()
  job = run.slurm.job(run.job)
  assert (job['NodeList'], job['NumTasks']) == ('n[0-1]', '2')
  run.slurm.run('scancel', '--signal=TERM', run.job)
  seen = run.wait_for_requeue()
  run.finish(seen + 10 * BATCH)
  assert run.resumed_at() == [seen]
  run.submit()
  run.finish(seen + 10 * BATCH, starts=1)


def test_a_mistake_is_not_requeued(run):
  run.workdir.write_text('a file')
  run.submit()
  run.slurm.wait_for_state(run.job, 'FAILED')
  job = run.slurm.job(run.job)
  assert (job['ExitCode'], job['Restarts']) == (f'{ExitCode.USER_ERROR:d}:0', '0')


def test_scancel_ends_the_job(run):
  run.submit()
  run.wait_for_training()
  run.slurm.run('scancel', run.job)
  run.slurm.wait_for_state(run.job, 'CANCELLED')
  run.slurm.wait_for_idle()
  job = run.slurm.job(run.job)
  assert (job['JobState'], job['Restarts']) == ('CANCELLED', '0')


def test_the_time_limit_loses_nothing(run):
  run.submit('--time=3')  # SIGTERM 120 s before it, or up to 30 s earlier
  seen = run.wait_for_requeue()
  assert seen > 0
  run.finish(seen + 10 * BATCH)
  assert run.resumed_at() == [seen]


def test_preemption_loses_nothing(run):
  run.submit()
  run.wait_for_training()
  options = ['--parsable', '--nodes=2', '--partition=high', '--output=/dev/null']
  other = run.slurm.run('sbatch', *options, '--wrap=srun sleep 1')
  seen = run.wait_for_requeue()
  run.slurm.wait_for_state(other, 'COMPLETED')
  run.finish(seen + 10 * BATCH)
  assert run.resumed_at() == [seen]


@pytest.mark.parametrize('rank', [0, 1])
def test_kill_9_of_a_process_is_survived(run, rank):
  run.submit()
  run.wait_for_training()
  os.kill(run.process(rank, 'SLURM_PROCID'), signal.SIGKILL)
  seen = run.wait_for_requeue()
  run.finish(seen + 10 * BATCH)
  (resumed,) = run.resumed_at()
  assert 0 < resumed <= seen


@pytest.mark.parametrize('node', ['n0', 'n1'])  # n0 runs the batch script
def test_the_death_of_a_node_is_survived(run, node):
  run.submit()
  run.wait_for_training()
  run.slurm.kill_node(node)
  seen = run.wait_for_requeue()
  run.slurm.start_node(node)
  run.finish(seen + 10 * BATCH)
  (resumed,) = run.resumed_at()
  assert 0 < resumed <= seen
