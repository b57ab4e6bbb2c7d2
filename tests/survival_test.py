"""Runs that are killed, starved, broken or moved end as the same run, or say why."""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gan_jax import UserError, recipe, step, train, watch
from gan_jax.biggan import BigGAN
from gan_jax.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent
# Steps of 8 images, each of them saved: 4 pixels, then a fade from image 160 on.
GROWING = (
  '--config=configs/stylegan_lsun.py:tiny',
  '--config.schedule.stabilise=160',
  '--config.schedule.fade=160',
  '--config.log.checkpoint_every=8',
  '--config.log.sheet_every=80',
)
# Orbax raises in its threads what it also hands over.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnhandledThreadExceptionWarning',
  'ignore::pytest.PytestUnraisableExceptionWarning',
)
DIGITS = ('--config=configs/biggan_digits.py:tiny', '--config.log.sheet_rows=2')


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


def end(process, timeout=300):
  """What a process printed, once it is over."""
  try:
    return ''.join(process.communicate(timeout=timeout))
  finally:
    process.kill()


def config(name='biggan_digits', **changes):
  values = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  values['log'] |= dict(sheet_rows=2, sheet_columns=2)
  values['watch'] = {}
  for key, value in changes.items():
    section, key = key.split('__')
    values[section][key] = value
  return values


def run(values, workdir):
  return train.train(recipe.read(values), values, workdir)


def journal(workdir, key='d_real'):
  lines = train.read_lines(workdir / 'metrics.jsonl')
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


def without_times(lines):
  return [{k: v for k, v in line.items() if k != 'images_per_s'} for line in lines]


def test_a_run_killed_again_and_again_is_the_same_run(tmp_path, rng_seed):
  rng, images = np.random.default_rng(rng_seed), 40 * 8
  flags = (*GROWING, f'--config.train.images={images}')
  # Killed while it is written, a kept program would be broken for everyone.
  own = dict(JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'programs'))
  whole = start(tmp_path / 'whole', *flags, **own)
  print(end(whole))
  assert whole.returncode == 0
  killed, lines = tmp_path / 'killed', tmp_path / 'killed' / 'metrics.jsonl'
  for goal in (5, 15, 22):  # lines: before, about and after the change of resolution
    process = start(killed, *flags, **own)
    while process.poll() is None:
      if lines.is_file() and len(lines.read_text().splitlines()) >= goal:
        break
      time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    end(process)
  last = start(killed, *flags, **own)
  said = end(last)
  assert last.returncode == 0 and 'resuming at image' in said, said
  assert_equal(arrays(killed, 40), arrays(tmp_path / 'whole', 40))
  assert without_times(journal(killed)) == without_times(journal(tmp_path / 'whole'))


def test_sigterm_while_compiling(tmp_path):
  process = start(tmp_path, *DIGITS, JAX_ENABLE_COMPILATION_CACHE='false')
  for line in process.stdout:
    if 'the first step compiles' in line:
      break
  time.sleep(0.5)
  since = time.monotonic()
  process.send_signal(signal.SIGTERM)
  said = end(process)
  assert process.returncode == 0, said
  assert 'nothing to save' in said and 'Traceback' not in said
  assert time.monotonic() - since < 10
  assert not journal(tmp_path)


def test_a_second_writer_is_refused(tmp_path):
  values = config()
  with train.own(tmp_path), pytest.raises(UserError, match='is in use'):
    run(values, tmp_path)
  assert not (tmp_path / 'config.json').exists()


def filling(monkeypatch, until):
  """A disk that is full whenever a checkpoint before step `until` is saved."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  real = Checkpoints.save

  def save(self, step_, state):  # and no earlier: compiled programs are kept, too
    limit = 4000 if step_ < until else soft
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    return real(self, step_, state)

  monkeypatch.setattr(Checkpoints, 'save', save)

  def free():
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()  # what orbax dropped complains here, and not in a later test

  return free


def test_a_full_disk_costs_no_step(tmp_path, monkeypatch, capsys):
  free = filling(monkeypatch, until=5)
  try:
    state = run(config(train__images=48, log__checkpoint_every=16), tmp_path)
  finally:
    free()
  assert int(state.step) == 6
  assert 'could not be written' in capsys.readouterr().out
  assert Checkpoints(tmp_path, read_only=True).newest() == 6


def test_a_disk_that_stays_full_is_one_sentence(tmp_path, monkeypatch):
  free = filling(monkeypatch, until=100)
  try:
    with pytest.raises(UserError, match='last checkpoint could not be written'):
      run(config(), tmp_path)
  finally:
    free()


def test_a_loss_that_is_no_number_stops_the_run_with_its_state_intact(tmp_path):
  run(config(train__images=16), tmp_path)
  before = arrays(tmp_path, 2)
  honest = BigGAN.g_loss

  def broken(self, *args):
    loss, aux = honest(self, *args)
    return loss * np.nan, aux

  values = config(train__images=800, watch__patience=3)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(BigGAN, 'g_loss', broken)
    with pytest.raises(UserError, match='3 iterations in a row'):
      run(values, tmp_path)
  assert [line['skipped'] for line in journal(tmp_path)[-3:]] == [1, 1, 1]
  steps = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert_equal(arrays(tmp_path, 2), before)
  assert all(np.isfinite(x).all() for x in arrays(tmp_path, steps[-1]))
  json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])


def pictures(monkeypatch, *found):
  """Lets the sheets vary as told, the last value for all further ones."""
  values = list(found)
  give = lambda *_: values.pop(0) if len(values) > 1 else values[0]
  monkeypatch.setattr(watch, 'diversity', give)


ROLLING = dict(
  train__images=80,
  log__checkpoint_every=8,
  log__sheet_every=8,
  watch__response='rollback',
)


def test_a_collapse_is_rolled_back_at_a_lower_rate(tmp_path, monkeypatch, capsys):
  pictures(monkeypatch, 0.3, 0.3, 0.3, 0.01, 0.01, 0.3)
  state = run(config(**ROLLING), tmp_path)
  assert int(state.step) == 10
  (event,) = train.read_lines(tmp_path / 'rollbacks.jsonl')
  assert (event['images'], event['to_step']) == (40, 3)
  assert 'learning rates are multiplied by 0.5' in capsys.readouterr().out
  assert [line['images'] for line in journal(tmp_path)] == list(range(8, 81, 8))
  assert (tmp_path / 'watch.png').is_file()
  # And a run that goes on keeps the lower rate.
  g = [np.asarray(x) for x in jax.tree.leaves(state.g['params'])]
  slower = tmp_path / 'slower'
  values = config(**ROLLING | dict(train__images=24))
  run(values, slower)
  for key in ('g_lr', 'd_lr'):
    values['schedule'][key] *= 0.5
  values['train']['images'] = 80
  other = train.train(recipe.read(values), values, slower, allow_config_change=True)
  assert_equal(g, jax.tree.leaves(other.g['params']))


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(watch__response='stop'), 'stopped at image 24 for a collapse'),
    (dict(watch__rollbacks=0), 'stopped at image 24 for a collapse'),
    (dict(log__checkpoint_every=800), 'no checkpoint from before it'),
    (dict(watch__response='tell'), None),
  ],
)
def test_other_answers_to_a_collapse(tmp_path, monkeypatch, changes, words):
  pictures(monkeypatch, 0.3, 0.01)
  values = config(**ROLLING | dict(train__images=32) | changes)
  expected = (
    pytest.raises(UserError, match=words) if words else contextlib.nullcontext()
  )
  with expected:
    run(values, tmp_path)
  assert [line['images'] for line in journal(tmp_path, 'collapsed')][0] == 24


def devices(monkeypatch, n):
  mesh = lambda devices=None: step.make_mesh(devices or jax.devices()[:n])
  monkeypatch.setattr(train, 'make_mesh', mesh)


@pytest.mark.parametrize('rates', [{}, dict(schedule__g_lr=1e-3, schedule__d_lr=1e-3)])
def test_other_numbers_of_devices_continue_the_run(tmp_path, monkeypatch, rates):
  every = dict(log__checkpoint_every=8, log__sheet_every=800, **rates)
  devices(monkeypatch, 4)
  run(config(train__images=48, **every), tmp_path / 'four')
  for n, images in ((4, 16), (2, 32), (8, 48)):
    devices(monkeypatch, n)
    run(config(train__images=images, **every), tmp_path / 'moved')
  ours, theirs = journal(tmp_path / 'moved'), journal(tmp_path / 'four')
  assert [line['images'] for line in ours] == [8, 16, 24, 32, 40, 48]
  for a, b in zip(ours, theirs, strict=True):
    for name in ('d_loss_real', 'd_loss_fake', 'g_loss', 'd_real', 'd_fake'):
      assert a[name] == pytest.approx(b[name], abs=1e-5), (a['images'], name)


def job(workdir, port, *flags):
  return [
    start(
      workdir,
      *DIGITS,
      *flags,
      f'--distributed=127.0.0.1:{port},2,{i}',
      '--peer_timeout=10',
      devices=2,
    )
    for i in range(2)
  ]


def test_two_processes_are_one_run(tmp_path, free_port):
  flags = ('--config.train.images=48', '--config.log.checkpoint_every=16')
  processes = job(tmp_path / 'two', free_port, *flags)
  said = [end(p) for p in processes]
  assert [p.returncode for p in processes] == [0, 0], said
  alone = start(tmp_path / 'one', *DIGITS, *flags, devices=4)
  print(end(alone))
  assert alone.returncode == 0
  ours, theirs = journal(tmp_path / 'two'), journal(tmp_path / 'one')
  assert len(ours) == len(theirs) == 6
  for a, b in zip(ours, theirs, strict=True):
    for name in ('d_loss_real', 'd_loss_fake', 'g_loss'):
      assert a[name] == pytest.approx(b[name], abs=1e-5), (a['images'], name)
  with contextlib.closing(Checkpoints(tmp_path / 'two', read_only=True)) as checkpoints:
    assert checkpoints.newest() == 6


@pytest.mark.parametrize('dies', [0, 1])
def test_a_lost_process_ends_the_others(tmp_path, free_port, dies):
  processes = job(tmp_path, free_port, '--config.train.images=100000000')
  while len(journal(tmp_path)) < 3:
    assert all(p.poll() is None for p in processes), [end(p) for p in processes]
    time.sleep(0.1)
  processes[dies].kill()
  since = time.monotonic()
  said = end(processes[1 - dies])
  assert time.monotonic() - since < 60
  assert processes[1 - dies].returncode not in (0, None), said
  end(processes[dies])


def test_sigterm_to_one_process_stops_both(tmp_path, free_port):
  processes = job(tmp_path, free_port, '--config.train.images=100000000')
  while len(journal(tmp_path)) < 3:
    assert all(p.poll() is None for p in processes), [end(p) for p in processes]
    time.sleep(0.1)
  processes[1].send_signal(signal.SIGTERM)
  said = [end(p) for p in processes]
  assert [p.returncode for p in processes] == [0, 0], said
  saved = max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert saved * 8 == journal(tmp_path)[-1]['images']
