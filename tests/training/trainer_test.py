"""The loop: what a run leaves behind, resuming, stopping, and foreign workdirs."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.workdir import read_config
from gan_jax.evaluation.metrics import small_network
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import noise_scale, trainer

ROOT = Path(__file__).parents[2]


def tiny(**changes):
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  for name, value in changes.items():
    section, key = name.split('__')
    config[section][key] = value
  return config


def run(config, workdir, **kw):
  return trainer.Trainer(parse_config(config), workdir, **kw).run()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of four steps without a stop: its folder and last state."""
  folder = tmp_path_factory.mktemp('whole')
  return folder, run(tiny(train__images=4 * 8), folder)


def test_four_steps_equal_two_and_two(whole, tmp_path):
  run(tiny(train__images=2 * 8), tmp_path)
  resumed = run(tiny(train__images=4 * 8), tmp_path)
  for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[1]), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  last = sorted((tmp_path / 'samples').iterdir())[-1]
  assert last.read_bytes() == (whole[0] / 'samples' / last.name).read_bytes()


def test_what_a_run_leaves_behind(whole):
  folder, state = whole
  lines = [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]
  steps = [line['images'] for line in lines if 'd_real' in line]
  assert steps == [8, 16, 24, 32]
  sheets = [line for line in lines if 'diversity' in line]
  assert [(line['images'], line['step']) for line in sheets] == [(16, 2), (32, 4)]
  assert all({'d_sigma', 'g_sigma'} <= set(line) for line in sheets)
  assert all(np.isfinite(list(line.values())).all() for line in lines)
  assert json.loads((folder / 'config.json').read_text())['train']['images'] == 32
  surroundings = json.loads((folder / 'run.json').read_text())
  assert surroundings['devices'] == 8 and surroundings['versions']['jax']
  digits = [str(digit) for digit in range(10)]
  assert surroundings['dataset'] == {'images': 1797, 'classes': digits}
  starts = (folder / 'starts.jsonl').read_text().splitlines()
  assert [json.loads(x)['images'] for x in starts] == [0]
  assert 'finished' in (folder / 'report.html').read_text()
  assert int(state.images) == 32
  assert list((folder / 'tensorboard').iterdir())
  with Image.open(folder / 'data.png') as image:
    assert image.width > 200


def test_the_noise_scale_is_a_ratio_of_averages_also_after_a_restart(tmp_path):
  config = tiny(train__images=8 * 8, train__noise_scale=True, log__metrics_every=16)
  config['model']['bn_group'] = 1  # devices that share statistics do not compare
  run(config, tmp_path / 'whole')
  run(config | {'train': config['train'] | {'images': 4 * 8}}, tmp_path / 'parts')
  run(config, tmp_path / 'parts')
  told, again = (
    [x for x in read_json_lines(tmp_path / name / 'metrics.jsonl') if 'd_real' in x]
    for name in ('whole', 'parts')
  )
  assert [x['images'] for x in told] == [16, 32, 48, 64]
  names = (*noise_scale.NAMES, 'd_noise_scale', 'g_noise_scale')
  for a, b in zip(told, again, strict=True):
    assert {n: a[n] for n in names if n in a} == {n: b[n] for n in names if n in b}
  weights = noise_scale.KEPT ** np.arange(3, -1, -1)
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
    scale.see(values)
  first = scale.line()
  assert first == dict(d_signal=2, d_noise=10, d_noise_scale=5)
  scale.see(dict(d_signal=-4.0, d_noise=1.0))
  assert scale.line() == dict(d_signal=-4, d_noise=1)  # below zero on average: none
  assert scale.line() == {}


def test_a_finished_run_stays_as_it_is(whole, tmp_path):
  copy = shutil.copytree(whole[0], tmp_path / 'run')
  before = sorted(p.name for p in (copy / 'checkpoints').iterdir())
  state = run(tiny(train__images=4 * 8), copy)
  assert int(state.step) == 4
  assert sorted(p.name for p in (copy / 'checkpoints').iterdir()) == before


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(model__g_ch=8), 'another model .*model.g_ch: 4 -> 8'),
    (dict(schedule__g_lr=1.0), 'schedule.g_lr: 0.0004 -> 1.0'),
  ],
)
def test_another_config_is_refused(whole, changes, words):
  with pytest.raises(UserError, match=words):
    run(tiny(train__images=32, **changes), whole[0])


def test_a_changed_config_can_be_accepted(tmp_path, capsys):
  run(tiny(), tmp_path)
  changed = tiny(schedule__g_lr=1e-5, train__images=24)
  state = run(changed, tmp_path, allow_config_change=True)
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
    run(tiny(**changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_scores_while_training_decide_which_checkpoints_stay(tmp_path, monkeypatch):
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 5)
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  config = tiny(train__images=6 * 8, log__keep=1, log__keep_periodic=0)
  config['score'] = dict(
    every=16, metrics=('fd_small', 'swd'), n=128, reals=256, best=1, best_by='fd_small'
  )
  run(config, tmp_path / 'run')
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


def test_a_score_that_nobody_takes(tmp_path):
  config = tiny()
  config['score'] = dict(every=16, metrics=('swd',), best=1, best_by='fid')
  with pytest.raises(
    UserError, match="best_by is 'fid', .* take one of swd, swd_16[.]"
  ):
    run(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def command(*flags):
  env = {**os.environ, 'XLA_FLAGS': ''}
  return subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.main', *flags],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_sigterm_saves_and_leaves_with_zero(tmp_path):
  process = command(
    '--config=configs/biggan_digits.py:tiny',
    f'--workdir={tmp_path}',
    '--config.train.images=100000000',
  )
  lines = tmp_path / 'metrics.jsonl'
  while not lines.exists() or len(lines.read_text().splitlines()) < 3:
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert 'stopped' in out
  assert read_config(tmp_path).gan.res == 16
  saved = max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  seen = json.loads(lines.read_text().splitlines()[-1])['images']
  assert saved * 8 == seen


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--workdir=x',), '--config is needed'),
    (('--config=configs/biggan_digits.py',), '--workdir=runs/biggan_digits'),
    (('--config=emoji', '--workdir=x'), 'did you mean configs/biggan_emoji.py?'),
    (
      ('--config=configs/biggan_digit.py', '--workdir=x'),
      'did you mean configs/biggan_digits.py?',
    ),
    (('--config=configs/biggan_digits.py:tini', '--workdir=x'), "no variant 'tini'"),
    (
      (
        '--config=configs/biggan_digits.py',
        '--workdir=x',
        '--config.schedule.batches=3',
      ),
      'batch',
    ),
    (('--config=configs/biggan_digits.py', '--workdir=x', '--wrkdir=y'), 'workdir'),
    (
      ('--config=configs/biggan_digits.py', '--workdir=x', '--config.model.res=48'),
      'model.res is 48',
    ),
  ],
)
def test_mistakes_on_the_command_line_are_one_sentence(flags, words):
  process = command(*flags)
  out, err = process.communicate(timeout=60)
  assert process.returncode not in (0, None)
  assert words in err and 'Traceback' not in err, err
  assert len(err.strip().splitlines()) == 1, err


def test_nothing_says_what_to_type_and_help_is_a_manual_page():
  process = command()
  _, err = process.communicate(timeout=60)
  assert process.returncode not in (0, None)
  line = '--config=configs/biggan_emoji.py --workdir=runs/emoji'
  assert line in err and 'Traceback' not in err
  process = command('--help')
  out, _ = process.communicate(timeout=60)
  assert 'SYNOPSIS' in out and 'EXIT STATUS' in out and '--peer_timeout' in out
