"""Runs that are killed, starved, broken or moved end as the same run, or say why.

Each is the small form of a question that experiments/reliability asks at full size.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models.biggan import BigGAN
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.lock import lock_workdir
from gan_jax.training import collapse_monitor, trainer

TESTS = Path(__file__).parents[2]
ROOT = TESTS.parent
# Steps of 8 images, each of them saved: 4 pixels, then a fade from image 96 on.
GROWING = (
  '--config=configs/stylegan_lsun.py:tiny',
  '--config.schedule.stabilise=96',
  '--config.schedule.fade=96',
  '--config.train.images=192',
  '--config.log.checkpoint_every=8',
  '--config.log.grid_every=48',
)
DIGITS = ('--config=configs/biggan_digits.py:tiny', '--config.log.grid_rows=2')
FOR_EVER = '--config.train.images=100000000'


def start(workdir, *flags, devices=1, **env):
  count = f'--xla_force_host_platform_device_count={devices}'
  speed = '--xla_backend_optimization_level=0'
  return subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.main', f'--workdir={workdir}', *flags],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': f'{count} {speed}', **env},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(process):
  """What a process printed, once it is over."""
  try:
    return ''.join(process.communicate(timeout=900))
  finally:
    process.kill()


def until(condition, *processes):
  """Waits for something that running processes bring about."""
  while not condition():
    assert all(p.poll() is None for p in processes), [end(p) for p in processes]
    time.sleep(0.01)


def config(**changes):
  values = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  values['log'] |= dict(grid_rows=2, grid_columns=2)
  values['collapse'] = {}
  for key, value in changes.items():
    section, key = key.split('__')
    values[section][key] = value
  return values


def run(values, workdir):
  return trainer.Trainer(parse_config(values), workdir).run()


def journal(workdir, key='d_real', file='metrics.jsonl'):
  """The lines that have `key`; the last one may be half written."""
  path, lines = workdir / file, []
  with contextlib.suppress(ValueError):
    for text in path.read_text().splitlines() if path.is_file() else ():
      lines.append(json.loads(text))
  return [line for line in lines if key in line]


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
  return [{k: v for k, v in line.items() if k != 'images_per_s'} for line in lines]


def test_a_killed_run_is_the_same_run(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  # Killed while it is written, a kept program would be broken for everyone.
  apart = dict(JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'programs'))
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  process = start(whole, *GROWING, **apart)
  said = end(process)
  assert process.returncode == 0, said
  goal = rng.integers(2, 20)  # steps: before, in or after the change of resolution
  process = start(killed, *GROWING, **apart)
  until(lambda: len(journal(killed)) >= goal, process)
  time.sleep(rng.uniform(0, 0.1))
  process.kill()
  end(process)
  process = start(killed, *GROWING, **apart)
  said = end(process)
  assert process.returncode == 0 and 'resuming at image' in said, said
  assert_equal(arrays(killed, 24), arrays(whole, 24))
  assert without_times(journal(killed)) == without_times(journal(whole))


def test_sigterm_while_compiling(tmp_path):
  process = start(tmp_path, *DIGITS, JAX_ENABLE_COMPILATION_CACHE='false')
  for line in process.stdout:
    if 'compiling the step' in line:
      break
  time.sleep(0.5)
  process.send_signal(signal.SIGTERM)
  said = end(process)
  assert process.returncode == 0, said
  assert 'nothing to save' in said and 'Traceback' not in said
  assert not journal(tmp_path)


def test_a_second_writer_is_refused(tmp_path):
  with lock_workdir(tmp_path), pytest.raises(UserError, match='is in use'):
    run(config(), tmp_path)
  assert not (tmp_path / 'config.json').exists()


FULL = """
import os, resource, sys
from pathlib import Path
from gan_jax import UserError
from gan_jax.storage.checkpoint import Checkpointer
from tests.end_to_end.survival_test import config, run

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
honest, full_before = Checkpointer.save, 5

def save(self, step, *args, **kw):  # and no earlier: compiled programs are kept, too
  limit = 4000 if step < full_before else soft
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  return honest(self, step, *args, **kw)

Checkpointer.save = save
for_a_while, for_ever = (Path(folder) for folder in sys.argv[1:])
state = run(config(train__images=48, log__checkpoint_every=16), for_a_while)
assert int(state.step) == 6
assert Checkpointer(for_a_while, read_only=True).newest() == 6
print('in time')
full_before = 100
try:
  run(config(), for_ever)
except UserError as error:
  print(error, flush=True)
os._exit(0)  # as the command does: nobody waits for the threads of what has failed
"""


def test_a_full_disk_costs_no_step(tmp_path):
  # In a process of its own: orbax leaves threads and an event loop of a failed save.
  done = subprocess.run(
    [sys.executable, '-c', FULL, tmp_path / 'for_a_while', tmp_path / 'for_ever'],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{TESTS}'},
    capture_output=True,
    text=True,
  )
  first, in_time, second = done.stdout.partition('in time')
  assert 'could not be written' in first and in_time, done.stderr
  assert 'last checkpoint could not be written' in second, done.stderr


def test_a_loss_that_is_no_number_costs_a_step_or_stops_the_run(tmp_path, monkeypatch):
  run(config(train__images=16), tmp_path)
  before = arrays(tmp_path, 2)
  honest, planned = BigGAN.g_loss, ConstantSchedule.phase_at

  def g_loss(self, g, d, draws, phase):
    loss, aux = honest(self, g, d, draws, phase)
    return loss * jnp.where(phase.alpha > 1, jnp.nan, 1), aux

  def phase_at(self, images, res):  # alpha, which a BigGAN does not use, is the sign
    sick = images == 3 * 8 or images >= 6 * 8
    phase = planned(self, images, res)
    return dataclasses.replace(phase, alpha=np.float32(1 + sick))

  monkeypatch.setattr(BigGAN, 'g_loss', g_loss)
  monkeypatch.setattr(ConstantSchedule, 'phase_at', phase_at)
  values = config(train__images=800, collapse__max_skipped=3, log__checkpoint_every=8)
  with pytest.raises(UserError, match='3 iterations in a row'):
    run(values | {'log': values['log'] | dict(keep=20)}, tmp_path)
  skipped = [line['skipped'] for line in journal(tmp_path)]
  assert skipped == [0, 0, 0, 1, 0, 0, 1, 1, 1]
  newest = max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert newest >= 8
  assert all(np.isfinite(x).all() for x in arrays(tmp_path, newest))
  assert_equal(arrays(tmp_path, 2), before)


def pictures(monkeypatch, *found):
  """Lets the sheets vary as told, the last value for all further ones."""
  values = list(found)
  give = lambda *_: values.pop(0) if len(values) > 1 else values[0]
  monkeypatch.setattr(collapse_monitor, 'diversity', give)


ROLLING = dict(
  train__images=64,
  log__checkpoint_every=8,
  log__grid_every=8,
  collapse__action='rollback',
)


def test_a_collapse_is_rolled_back_at_a_lower_rate(tmp_path, monkeypatch, capsys):
  # After the third step; and there once more, so that it goes back further.
  pictures(monkeypatch, 0.3, 0.3, 0.3, 0.01, 0.01, 0.01, 0.01, 0.3)
  state = run(config(**ROLLING), tmp_path)
  assert int(state.step) == 8
  events = journal(tmp_path, 'to_step', 'rollbacks.jsonl')
  assert [(e['images'], e['step'], e['to_step']) for e in events] == [
    (40, 5, 3),
    (40, 5, 2),
  ]
  assert 'learning rates are multiplied by 0.5' in capsys.readouterr().out
  assert [line['images'] for line in journal(tmp_path)] == list(range(8, 65, 8))
  # And a run that goes on keeps the lower rate.
  g = [np.asarray(x) for x in jax.tree.leaves(state.g['params'])]
  slower = tmp_path / 'slower'
  values = config(**ROLLING | dict(train__images=16))
  run(values, slower)
  for key in ('g_lr', 'd_lr'):
    values['schedule'][key] *= 0.25
  values['train']['images'] = 64
  other = trainer.Trainer(parse_config(values), slower, allow_config_change=True).run()
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
def test_other_answers_to_a_collapse(tmp_path, monkeypatch, changes, words):
  pictures(monkeypatch, 0.3, 0.01)
  values = config(**ROLLING | dict(train__images=24) | changes)
  expected = (
    pytest.raises(UserError, match=words) if words else contextlib.nullcontext()
  )
  with expected:
    run(values, tmp_path)
  assert [line['images'] for line in journal(tmp_path, 'collapsed')] == [24]
  assert not (tmp_path / 'rollbacks.jsonl').exists()


def on_devices(monkeypatch, n):
  mesh = lambda devices=None: make_mesh(devices or jax.devices()[:n])
  monkeypatch.setattr(trainer, 'make_mesh', mesh)


def test_other_numbers_of_devices_continue_the_run(tmp_path, monkeypatch):
  # An eps far above every gradient makes Adam's step that of SGD, times a factor: the
  # shipped optimizer enlarges differences of rounding, see experiments/reliability.
  sgd = dict(g_adam__eps=1e6, d_adam__eps=1e6, schedule__g_lr=5e4, schedule__d_lr=5e4)
  every = dict(log__checkpoint_every=8, log__grid_every=800, **sgd)
  on_devices(monkeypatch, 4)
  run(config(train__images=48, **every), tmp_path / 'four')
  for n, images in ((4, 16), (2, 32), (8, 48)):
    on_devices(monkeypatch, n)
    run(config(train__images=images, **every), tmp_path / 'moved')
  ours, theirs = journal(tmp_path / 'moved'), journal(tmp_path / 'four')
  assert [line['images'] for line in ours] == [8, 16, 24, 32, 40, 48]
  assert_same_losses(ours, theirs)


def job(workdir, port, timeout):
  """A run of two processes with two devices each."""
  flags = (*DIGITS, FOR_EVER, f'--peer_timeout={timeout}')
  return [
    start(workdir, *flags, f'--distributed=127.0.0.1:{port},2,{i}', devices=2)
    for i in range(2)
  ]


def test_two_processes_are_one_run_and_stop_together(tmp_path, monkeypatch, free_port):
  processes = job(tmp_path / 'two', free_port, timeout=600)
  until(lambda: len(journal(tmp_path / 'two')) >= 6, *processes)
  processes[1].send_signal(signal.SIGTERM)
  said = [end(p) for p in processes]
  assert [p.returncode for p in processes] == [0, 0], said
  ours = journal(tmp_path / 'two')
  with contextlib.closing(
    Checkpointer(tmp_path / 'two', read_only=True)
  ) as checkpoints:
    assert checkpoints.newest() * 8 == ours[-1]['images']
  on_devices(monkeypatch, 4)
  run(config(train__images=48, log__grid_every=800), tmp_path / 'one')
  assert_same_losses(ours[:6], journal(tmp_path / 'one'))


def test_a_lost_process_ends_the_other(tmp_path, free_port):
  processes = job(tmp_path, free_port, timeout=20)
  until(lambda: len(journal(tmp_path)) >= 3, *processes)
  processes[1].kill()
  said = end(processes[0])
  assert processes[0].returncode not in (0, None), said
  end(processes[1])
