"""Runs that are killed, out of disk space, non-finite or moved to other devices.

Each ends as the same run, or says why not. experiments/reliability repeats these tests
at full size.
"""

import contextlib
import dataclasses
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gan_jax import UserError
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models.biggan import BigGAN
from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.lock import lock_workdir
from gan_jax.training import collapse_monitor, trainer
from tests.runs import (
  metric_lines,
  output,
  run_program,
  start_main,
  tiny_config,
  train,
  wait_until,
)

FULL_DISK = Path(__file__).parent / 'programs' / 'full_disk.py'
# Steps of 8 images, each of them saved: 4 pixels, then a fade from image 96 on.
PROGRESSIVE = (
  '--config=configs/stylegan_lsun.py:tiny',
  '--config.schedule.stabilise=96',
  '--config.schedule.fade=96',
  '--config.train.images=192',
  '--config.log.checkpoint_every=8',
  '--config.log.grid_every=48',
)
DIGITS = (
  '--config=configs/biggan_digits.py:tiny',
  '--config.log.grid_rows=2',
  '--config.log.grid_columns=2',
  '--config.model.d_widths=(1, 2)',
)
ENDLESS = '--config.train.images=100000000'


def small_config(**changes):
  """biggan_digits:tiny with a smaller discriminator and grid."""
  small = dict(log__grid_rows=2, log__grid_columns=2, model__d_widths=(1, 2))
  return tiny_config(**small | changes)


def arrays(workdir, step_):
  """All arrays of a checkpoint, read by orbax alone."""
  folder = (workdir / 'checkpoints' / str(step_) / 'default').absolute()
  reader = ocp.PyTreeCheckpointer()
  tree = reader.metadata(folder).item_metadata.tree
  plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  return jax.tree.leaves(reader.restore(folder, restore_args=plain))


def assert_equal(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_same_losses(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    for name in ('d_loss_real', 'd_loss_fake', 'g_loss', 'd_real', 'd_fake'):
      assert a[name] == pytest.approx(b[name], abs=1e-5), (a['images'], name)


def without_times(lines):
  times = {'images_per_s', 'step_s', 'data_wait_s'}
  return [{k: v for k, v in line.items() if k not in times} for line in lines]


@pytest.mark.slow
def test_a_killed_run_resumes_as_the_same_run(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  # A cache of their own: a process killed while it writes a program corrupts the cache.
  own_cache = dict(JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'programs'))
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  process = start_main(f'--workdir={whole}', *PROGRESSIVE, **own_cache)
  printed = output(process)
  assert process.returncode == 0, printed
  goal = rng.integers(2, 20)  # steps: before, in or after the change of resolution
  process = start_main(f'--workdir={killed}', *PROGRESSIVE, **own_cache)
  saved = lambda: any(p.name.isdigit() for p in (killed / 'checkpoints').glob('*'))
  wait_until(lambda: len(metric_lines(killed)) >= goal and saved(), process)
  time.sleep(rng.uniform(0, 0.1))
  process.kill()
  output(process)
  process = start_main(f'--workdir={killed}', *PROGRESSIVE, **own_cache)
  printed = output(process)
  assert process.returncode == 0 and 'resuming at image' in printed, printed
  assert_equal(arrays(killed, 24), arrays(whole, 24))
  assert without_times(metric_lines(killed)) == without_times(metric_lines(whole))


def test_sigterm_while_compiling_stops_at_once(tmp_path):
  process = start_main(
    f'--workdir={tmp_path}', *DIGITS, JAX_ENABLE_COMPILATION_CACHE='false'
  )
  for line in process.stdout:
    if 'compiling the step' in line:
      break
  time.sleep(0.5)
  process.send_signal(signal.SIGTERM)
  printed = output(process)
  assert process.returncode == ExitCode.STOPPED, printed
  assert 'nothing to save' in printed and 'Traceback' not in printed
  assert not metric_lines(tmp_path)


def test_a_second_writer_of_a_workdir_is_rejected(tmp_path):
  with lock_workdir(tmp_path), pytest.raises(UserError, match='is in use'):
    train(small_config(), tmp_path)
  assert not (tmp_path / 'config.json').exists()


@pytest.mark.slow
def test_a_full_disk_does_not_stop_training(tmp_path):
  # In a process of its own: Orbax leaves threads and an event loop of a failed save.
  done = run_program(FULL_DISK, tmp_path / 'briefly_full', tmp_path / 'always_full')
  first, recovered, second = done.stdout.partition('recovered')
  assert 'could not be written' in first and recovered, done.stderr
  assert 'last checkpoint could not be written' in second, done.stderr


@pytest.mark.slow
def test_a_non_finite_loss_skips_the_update_and_stops_the_run_if_repeated(
  tmp_path, monkeypatch
):
  train(small_config(train__images=16), tmp_path)
  before = arrays(tmp_path, 2)
  g_loss_of, phase_of = BigGAN.g_loss, ConstantSchedule.phase_at

  def g_loss(self, g, d, draws, phase, augment):
    loss, aux = g_loss_of(self, g, d, draws, phase, augment)
    return loss * jnp.where(phase.alpha > 1, jnp.nan, 1), aux

  def phase_at(self, images, res):
    # BigGAN ignores alpha: here it marks the faulty iterations.
    faulty = images == 3 * 8 or images >= 6 * 8
    phase = phase_of(self, images, res)
    return dataclasses.replace(phase, alpha=np.float32(1 + faulty))

  monkeypatch.setattr(BigGAN, 'g_loss', g_loss)
  monkeypatch.setattr(ConstantSchedule, 'phase_at', phase_at)
  values = small_config(
    train__images=800, collapse__max_skipped=3, log__checkpoint_every=8
  )
  with pytest.raises(UserError, match='3 iterations in a row'):
    train(values | {'log': values['log'] | dict(keep=20)}, tmp_path)
  skipped = [line['skipped'] for line in metric_lines(tmp_path)]
  assert skipped == [0, 0, 0, 1, 0, 0, 1, 1, 1]
  newest = max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert newest >= 8
  assert all(np.isfinite(x).all() for x in arrays(tmp_path, newest))
  assert_equal(arrays(tmp_path, 2), before)


def set_diversities(monkeypatch, *diversities):
  """Sets the diversity of each sample grid; the last holds for all further ones."""
  values = list(diversities)
  diversity = lambda *_: values.pop(0) if len(values) > 1 else values[0]
  monkeypatch.setattr(collapse_monitor, 'grid_diversity', diversity)


ROLLBACK = dict(
  train__images=64,
  log__checkpoint_every=8,
  log__grid_every=8,
  collapse__action='rollback',
)


@pytest.mark.slow
def test_a_collapse_is_rolled_back_at_lower_learning_rates(
  tmp_path, monkeypatch, capsys
):
  # Collapses after step 3, and again after the rollback, which then goes further back.
  set_diversities(monkeypatch, 0.3, 0.3, 0.3, 0.01, 0.01, 0.01, 0.01, 0.3)
  state = train(small_config(**ROLLBACK), tmp_path)
  assert int(state.step) == 8
  events = metric_lines(tmp_path, 'to_step', 'rollbacks.jsonl')
  assert [(e['images'], e['step'], e['to_step']) for e in events] == [
    (40, 5, 3),
    (40, 5, 2),
  ]
  assert 'learning rates are multiplied by 0.5' in capsys.readouterr().out
  assert [line['images'] for line in metric_lines(tmp_path)] == list(range(8, 65, 8))
  # A resumed run keeps the lower rates.
  g = [np.asarray(x) for x in jax.tree.leaves(state.g['params'])]
  slower = tmp_path / 'slower'
  values = small_config(**ROLLBACK | dict(train__images=16))
  train(values, slower)
  for key in ('g_lr', 'd_lr'):
    values['schedule'][key] *= 0.25
  values['train']['images'] = 64
  other = train(values, slower, allow_config_change=True)
  assert_equal(g, jax.tree.leaves(other.g['params']))


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(collapse__action='stop'), 'stopped at image 24 for a collapse'),
    (dict(collapse__max_rollbacks=0), 'stopped at image 24 for a collapse'),
    (dict(log__checkpoint_every=800), 'no checkpoint from before it'),
    (dict(collapse__action='warn'), None),
  ],
)
def test_other_actions_on_a_collapse(tmp_path, monkeypatch, changes, words):
  set_diversities(monkeypatch, 0.3, 0.01)
  values = small_config(**ROLLBACK | dict(train__images=24) | changes)
  expected = (
    pytest.raises(UserError, match=words) if words else contextlib.nullcontext()
  )
  with expected:
    train(values, tmp_path)
  assert [line['images'] for line in metric_lines(tmp_path, 'collapsed')] == [24]
  assert not (tmp_path / 'rollbacks.jsonl').exists()
  (start,) = metric_lines(tmp_path, 'ended', 'starts.jsonl')
  assert (words or 'finished') in start['ended']


def on_devices(monkeypatch, n):
  mesh = lambda devices=None: make_mesh(devices or jax.devices()[:n])
  monkeypatch.setattr(trainer, 'make_mesh', mesh)


@pytest.mark.slow
def test_a_run_continues_on_other_numbers_of_devices(tmp_path, monkeypatch):
  # An eps far above every gradient makes Adam's step that of SGD, times a factor: the
  # shipped optimizer enlarges differences of rounding, see experiments/reliability.
  sgd = dict(g_adam__eps=1e6, d_adam__eps=1e6, schedule__g_lr=5e4, schedule__d_lr=5e4)
  every = dict(log__checkpoint_every=8, log__grid_every=800, **sgd)
  on_devices(monkeypatch, 4)
  train(small_config(train__images=48, **every), tmp_path / 'four')
  for n, images in ((4, 16), (2, 32), (8, 48)):
    on_devices(monkeypatch, n)
    train(small_config(train__images=images, **every), tmp_path / 'moved')
  ours, theirs = metric_lines(tmp_path / 'moved'), metric_lines(tmp_path / 'four')
  assert [line['images'] for line in ours] == [8, 16, 24, 32, 40, 48]
  assert_same_losses(ours, theirs)


def start_job(workdir, port, timeout, **env):
  """A run of two processes with two devices each."""
  flags = (*DIGITS, ENDLESS, f'--peer_timeout={timeout}')
  return [
    start_main(
      f'--workdir={workdir}',
      *flags,
      f'--distributed=127.0.0.1:{port},2,{i}',
      devices=2,
      **env,
    )
    for i in range(2)
  ]


@pytest.mark.slow
def test_two_processes_train_one_run_and_stop_together(
  tmp_path, monkeypatch, free_port
):
  processes = start_job(tmp_path / 'two', free_port, timeout=600)
  wait_until(lambda: len(metric_lines(tmp_path / 'two')) >= 6, *processes)
  processes[1].send_signal(signal.SIGTERM)
  printed = [output(p) for p in processes]
  assert [p.returncode for p in processes] == [ExitCode.STOPPED] * 2, printed
  ours = metric_lines(tmp_path / 'two')
  with contextlib.closing(
    Checkpointer(tmp_path / 'two', read_only=True)
  ) as checkpoints:
    assert checkpoints.newest() * 8 == ours[-1]['images']
  on_devices(monkeypatch, 4)
  train(small_config(train__images=48, log__grid_every=800), tmp_path / 'one')
  assert_same_losses(ours[:6], metric_lines(tmp_path / 'one'))
  # Resumed and stopped again before the first step.
  processes = start_job(
    tmp_path / 'two', free_port, timeout=600, JAX_ENABLE_COMPILATION_CACHE='false'
  )
  for line in processes[0].stdout:
    if 'restoring' in line:
      break
  processes[1].send_signal(signal.SIGTERM)
  printed = [output(p) for p in processes]
  assert [p.returncode for p in processes] == [ExitCode.STOPPED] * 2, printed
  assert all('nothing to save' in text for text in printed), printed
  assert metric_lines(tmp_path / 'two') == ours


@pytest.mark.slow
def test_losing_one_process_ends_the_other_with_a_restart_code(tmp_path, free_port):
  processes = start_job(tmp_path, free_port, timeout=20)
  wait_until(lambda: len(metric_lines(tmp_path)) >= 3, *processes)
  processes[1].kill()
  printed = output(processes[0])
  code = processes[0].returncode
  assert asks_for_restart(code if code >= 0 else 128 - code), printed
  output(processes[1])


@pytest.mark.slow
def test_a_mistake_that_one_process_sees_ends_all_with_2(tmp_path, free_port):
  with lock_workdir(tmp_path):
    processes = start_job(tmp_path, free_port, timeout=20)
    printed = [output(p) for p in processes]
  assert [p.returncode for p in processes] == [ExitCode.USER_ERROR] * 2, printed
  assert 'error: --workdir=' in printed[0] and 'is in use' in printed[0]
  assert 'error: process 0: --workdir=' in printed[1] and 'is in use' in printed[1]
