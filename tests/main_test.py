"""The training command: mistakes are one sentence and leave with exit code 2."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gan_jax import UserError, main
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.training.preemption import StoppedError
from tests.runs import start_main

DIGITS = '--config=biggan_digits'


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--workdir=x',), '--config is needed'),
    (('--config=', '--workdir=x'), '--config is needed'),
    ((DIGITS,), '--workdir=runs/biggan_digits'),
    (('--config=configs/biggan_digits.py:tiny',), '--workdir=runs/biggan_digits'),
    ((DIGITS, '--workdir='), '--workdir: a path is needed'),
    ((DIGITS, '--workdir'), '--workdir: expected one argument'),
    (('--config=emoji', '--workdir=x'), 'did you mean biggan_emoji?'),
    (
      ('--config=configs/biggan_digit.py', '--workdir=x'),
      'did you mean biggan_digits?',
    ),
    ((f'{DIGITS}:tini', '--workdir=x'), "no variant 'tini'"),
    (
      (DIGITS, '--workdir=x', '--config.schedule.batches=3'),
      '--config.schedule.batch?',
    ),
    (
      (DIGITS, '--workdir=x', '--wrkdir=y'),
      "no flag --wrkdir (did you mean '--workdir'",
    ),
    ((DIGITS, '--work=x'), 'no flag --work '),
    ((DIGITS, '--workdir=x', 'y'), "'y' is not a flag"),
    ((DIGITS, '--workdir=x', '--peer_timeout=soon'), "invalid int value: 'soon'"),
    ((DIGITS, '--workdir=x', '--peer_timeout=0'), '--peer_timeout=0: it must be'),
    ((DIGITS, '--workdir=x', '--join_timeout=0'), '--join_timeout=0: it must be'),
    ((DIGITS, '--workdir=x', '--hang_timeout=-1'), '--hang_timeout=-1: it must be at'),
    ((DIGITS, '--workdir=x', '--profile=5'), '--profile=5: STEP:N is needed'),
    ((DIGITS, '--workdir=x', '--profile=0:5'), 'both at least 1, such as 100:5'),
    (
      (DIGITS, '--workdir=x', '--profile=1:5', '--profile_processes=1;2'),
      '--profile_processes=1;2: allowed are all and numbers',
    ),
    ((DIGITS, '--workdir=x', '--allow_config_change=2'), 'true or false is needed'),
    ((DIGITS, '--workdir=x', '--config.model.res=48'), 'model.res is 48'),
    ((DIGITS, '--show', '--config.train.accum=x'), "train.accum is 'x': int is needed"),
  ],
)
def test_mistakes_on_the_command_line_are_one_sentence(flags, words, capsys):
  with pytest.raises(SystemExit) as exit:
    run_command(lambda: main.main(flags))
  out, err = capsys.readouterr()
  assert exit.value.code == 2 and words in err and not out
  assert err.startswith('error: ') and len(err.strip().splitlines()) == 1, err


def test_a_mistake_ends_the_process_with_2(tmp_path):
  process = start_main(DIGITS, f'--workdir={tmp_path / "x"}', '--config.train.accum=x')
  out, err = process.communicate(timeout=60)
  assert process.returncode == 2 and not out and not (tmp_path / 'x').exists()
  assert err == "error: train.accum is 'x': int is needed.\n"


def test_paths_may_begin_with_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  file = tmp_path / 'mine.py'
  file.write_text(Path('configs/biggan_digits.py').read_text())
  args, config = main.parse(['--config=~/mine.py:tiny', '--workdir=~/runs/a'])
  assert args.workdir == tmp_path / 'runs/a' and config.data.name == 'digits'
  with pytest.raises(UserError, match='--config=~/his.py: there is no such file'):
    main.parse(['--config=~/his.py', '--workdir=~/runs/a'])


def test_flags_may_have_one_dash_or_a_value_of_their_own():
  flags = ['-config', 'biggan_digits', '-workdir=x', '--allow_config_change']
  flags += ['--config.train.accum', '2', '-config.data.flip']
  args, config = main.parse(flags)
  assert args.workdir == Path('x') and args.allow_config_change is True
  assert config.train.accum == 2 and config.data.flip
  assert args.keys == ['train.accum', 'data.flip']
  args, _ = main.parse([DIGITS, '--workdir=x', '--allow_config_change=False'])
  assert args.allow_config_change is False


def test_show_lists_the_keys_and_writes_nothing(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  main.main([f'{DIGITS}:tiny', '--show', '--config.train.accum=2', '--workdir=x'])
  out = capsys.readouterr().out
  assert '> train.accum' in out and '* model.family' in out
  assert os.listdir(tmp_path) == []


def test_without_flags_it_prints_an_example_and_help_is_a_manual_page(
  capsys, monkeypatch
):
  monkeypatch.setattr(sys, 'argv', ['gan_jax.main'])
  with pytest.raises(SystemExit) as exit:
    main.main()
  assert exit.value.code == 2
  assert '--config=biggan_emoji --workdir=runs/emoji' in capsys.readouterr().err
  with pytest.raises(SystemExit) as exit:
    main.main(['--help'])
  out = capsys.readouterr().out
  assert exit.value.code == 0
  for words in ('SYNOPSIS', 'EXIT STATUS', '--peer_timeout', '--show', '8,4 or (8, 4)'):
    assert words in out


@pytest.mark.parametrize(
  'images, stop, at_terminal, code',
  [
    (16, None, False, ExitCode.FINISHED),
    (16, signal.SIGTERM, False, ExitCode.FINISHED),
    (8, signal.SIGTERM, False, ExitCode.STOPPED),
    (8, signal.SIGTERM, True, ExitCode.STOPPED),
    (8, signal.SIGINT, False, ExitCode.STOPPED),
    (8, signal.SIGINT, True, ExitCode.FINISHED),
    (8, None, False, ExitCode.STOPPED),  # several processes
    (StoppedError(), signal.SIGTERM, False, ExitCode.STOPPED),
    (StoppedError(), signal.SIGINT, True, ExitCode.FINISHED),
    (KeyboardInterrupt(), signal.SIGINT, True, ExitCode.INTERRUPTED),
    (UserError('x'), None, False, ExitCode.USER_ERROR),
    (PermissionError(13, 'Permission denied', '/x'), None, False, ExitCode.USER_ERROR),
    (OSError(5, 'Input/output error', '/x'), None, False, ExitCode.TRANSIENT),
    (RuntimeError('a peer is lost'), None, False, ExitCode.TRANSIENT),
  ],
)
def test_the_exit_code_says_how_a_run_ended(
  monkeypatch, images, stop, at_terminal, code
):
  class Run:
    stop_signal = stop

    def __init__(self, *_, **__):
      pass

    def run(self):
      if isinstance(images, BaseException):
        raise images
      return SimpleNamespace(images=images)

  monkeypatch.setattr(main, 'Trainer', Run)
  monkeypatch.setattr(os, 'isatty', lambda _: at_terminal)
  args, config = main.parse([f'{DIGITS}:tiny', '--workdir=x'])
  assert config.train.images == 16
  assert main.train(args, config) == code
