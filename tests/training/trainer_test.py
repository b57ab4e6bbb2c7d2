"""The trainer: what a run leaves behind, resuming, stopping and foreign workdirs."""

import json
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.workdir import read_config
from gan_jax.evaluation.metrics import small_network
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import noise_scale
from gan_jax.training.trackers import End
from gan_jax.training.trainer import Trainer
from tests.runs import metric_lines, output, start_main, tiny_config, train, wait_until
from tests.training.recorder import Recorder


@pytest.fixture(scope='module')
def four_steps(trained_workdir):
  """A run of four iterations without a stop: its folder and last state."""
  return trained_workdir('biggan_digits', train__images=4 * 8)


def test_four_steps_equal_two_and_two_steps_in_a_thread(
  four_steps, tmp_path, monkeypatch
):
  folder, uninterrupted = four_steps
  tracker = Recorder.in_place_of_wandb(monkeypatch)
  values = tiny_config(train__images=4 * 8, log__trackers=('wandb',))
  trainer = Trainer(parse_config(values), tmp_path)
  thread = threading.Thread(target=trainer.run, kwargs={'images': 2 * 8})
  thread.start()
  thread.join()
  assert read_config(tmp_path).train.images == 16
  resumed = trainer.run()
  for a, b in zip(
    jax.tree.leaves(resumed), jax.tree.leaves(uninterrupted), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  last = sorted((tmp_path / 'samples').iterdir())[-1]
  assert last.read_bytes() == (folder / 'samples' / last.name).read_bytes()
  # The tracker has one run with each line and grid once.
  (config, name, _), (*_, continued) = tracker.starts
  assert config['data']['name'] == 'digits' and name == tmp_path.name
  assert continued == 'run-1' and tracker.ends == [End.FINISHED] * 2
  assert tracker.steps == [8, 16, 16, 24, 32, 32]
  assert [images for images, _ in tracker.grids] == [16, 32]
  assert not (tmp_path / 'tensorboard').exists()


def test_what_a_run_leaves_behind(four_steps):
  folder, state = four_steps
  lines = [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]
  steps = [line['images'] for line in lines if 'd_real' in line]
  assert steps == [8, 16, 24, 32]
  grids = [line for line in lines if 'diversity' in line]
  assert [(line['images'], line['step']) for line in grids] == [(16, 2), (32, 4)]
  assert all({'d_sigma', 'g_sigma'} <= set(line) for line in grids)
  assert all(np.isfinite(list(line.values())).all() for line in lines)
  assert json.loads((folder / 'config.json').read_text())['train']['images'] == 32
  environment = json.loads((folder / 'run.json').read_text())
  assert environment['devices'] == 8 and environment['versions']['jax']
  digits = [str(digit) for digit in range(10)]
  record = environment['dataset']
  assert {key: record[key] for key in ('images', 'classes')} == {
    'images': 1797,
    'classes': digits,
  }
  assert list(record['digests']) == ['labels']
  (start,) = read_json_lines(folder / 'starts.jsonl')
  assert (start['images'], start['until_images']) == (0, 32)
  assert start['ended'] == 'finished'
  assert {'compiling', 'saving', 'training'} < start['seconds'].keys()
  time = start['until'] - start['since']
  assert time == pytest.approx(sum(start['seconds'].values()), abs=0.1)
  assert 'finished' in (folder / 'report.html').read_text()
  assert int(state.images) == 32
  assert list((folder / 'tensorboard').iterdir())
  with Image.open(folder / 'data.png') as image:
    assert image.width > 200


@pytest.mark.slow
def test_the_noise_scale_is_a_ratio_of_averages_and_survives_a_restart(tmp_path):
  # Noise scales are undefined for devices that share batch statistics: bn_group=1.
  changes = dict(train__noise_scale=True, log__metrics_every=16, model__bn_group=1)
  config = tiny_config(train__images=8 * 8, **changes)
  train(config, tmp_path / 'whole')
  train(config | {'train': config['train'] | {'images': 4 * 8}}, tmp_path / 'parts')
  train(config, tmp_path / 'parts')
  told, again = (
    [x for x in read_json_lines(tmp_path / name / 'metrics.jsonl') if 'd_real' in x]
    for name in ('whole', 'parts')
  )
  assert [x['images'] for x in told] == [16, 32, 48, 64]
  names = (*noise_scale.METRICS, 'd_noise_scale', 'g_noise_scale')
  for a, b in zip(told, again, strict=True):
    assert {n: a[n] for n in names if n in a} == {n: b[n] for n in names if n in b}
  weights = noise_scale.DECAY ** np.arange(3, -1, -1)
  for net in ('d', 'g'):
    signal, noisy = (
      weights @ [x[f'{net}_{part}'] for x in told] for part in ('signal', 'noise')
    )
    assert noisy > 0
    if signal > 0:
      assert told[-1][f'{net}_noise_scale'] == pytest.approx(noisy / signal)
    else:
      assert f'{net}_noise_scale' not in told[-1]
  assert any('d_noise_scale' in x for x in told)


def test_a_line_has_the_means_of_its_steps():
  scale = noise_scale.NoiseScale()
  steps = [dict(d_signal=s, d_noise=n) for s, n in ((1, 5), (np.nan, np.nan), (3, 15))]
  for values in steps:
    scale.add_step(values)
  first = scale.next_line()
  assert first == dict(d_signal=2, d_noise=10, d_noise_scale=5)
  scale.add_step(dict(d_signal=-4.0, d_noise=1.0))
  assert scale.next_line() == dict(
    d_signal=-4, d_noise=1
  )  # below zero on average: none
  assert scale.next_line() == {}


def test_a_finished_run_stays_as_it_is(four_steps, tmp_path):
  copy = shutil.copytree(four_steps[0], tmp_path / 'run')
  before = sorted(p.name for p in (copy / 'checkpoints').iterdir())
  state = train(tiny_config(train__images=4 * 8), copy)
  assert int(state.step) == 4
  assert sorted(p.name for p in (copy / 'checkpoints').iterdir()) == before


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(model__g_ch=8), 'another model .*model.g_ch: 4 -> 8'),
    (dict(schedule__g_lr=1.0), 'schedule.g_lr: 0.0004 -> 1.0'),
  ],
)
def test_another_config_is_rejected(four_steps, changes, words):
  with pytest.raises(UserError, match=words):
    train(tiny_config(train__images=32, **changes), four_steps[0])


def test_a_changed_config_can_be_accepted(tmp_path, capsys):
  train(tiny_config(), tmp_path)
  changed = tiny_config(schedule__g_lr=1e-5, train__images=24)
  state = train(changed, tmp_path, allow_config_change=True)
  assert int(state.step) == 3
  assert 'schedule.g_lr: 0.0004 -> 1e-05' in capsys.readouterr().out


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(data__name='digit'), 'digits'),
    (dict(model__n_classes=9), 'n_classes=9.*10'),
    (dict(schedule__batch=9), 'schedule.batch=9 .*multiple of 8'),
  ],
)
def test_mistakes_end_before_anything_is_written(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    train(tiny_config(**changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_scores_during_training_decide_which_checkpoints_are_kept(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 5)
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  config = tiny_config(train__images=6 * 8, log__keep=1, log__keep_periodic=0)
  config['score'] = dict(
    every=16, metrics=('fd_small', 'swd'), n=128, reals=256, best=1, best_by='fd_small'
  )
  train(config, tmp_path / 'run')
  lines = read_json_lines(tmp_path / 'run' / 'evaluations.jsonl')
  taken = {x['checkpoint']: x['value'] for x in lines if x['metric'] == 'fd_small'}
  assert list(taken) == [2, 4, 6]
  assert lines[0]['images'] == 16 and lines[0]['stamp']['n'] == 128
  logged = [
    line['eval/fd_small']
    for line in read_json_lines(tmp_path / 'run' / 'metrics.jsonl')
    if 'eval/fd_small' in line
  ]
  assert logged == list(taken.values())
  stay = {int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir()}
  assert stay == {6, min(taken, key=taken.__getitem__)}


def test_a_ranking_score_that_is_not_computed_is_rejected(tmp_path):
  config = tiny_config()
  config['score'] = dict(every=16, metrics=('swd',), best=1, best_by='fid')
  with pytest.raises(
    UserError, match="best_by is 'fid', .* take one of swd, swd_16[.]"
  ):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_sigterm_saves_and_asks_for_a_restart(tmp_path):
  process = start_main(
    '--config=configs/biggan_digits.py:tiny',
    f'--workdir={tmp_path}',
    '--config.train.images=100000000',
  )
  wait_until(lambda: len(metric_lines(tmp_path)) >= 3, process)
  process.send_signal(signal.SIGTERM)
  printed = output(process)
  assert process.returncode == ExitCode.STOPPED and 'stopped' in printed, printed
  assert read_config(tmp_path).gan.res == 16
  saved = max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert saved * 8 == metric_lines(tmp_path)[-1]['images']
