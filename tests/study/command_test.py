"""The command: all mistakes before the first cell, array jobs, kills and restarts."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gan_jax import UserError
from gan_jax.study import __main__ as command
from gan_jax.study.cells import read_progress
from tests.report.pages import page_data
from tests.runs import ROOT
from tests.study.studies import CONFIG, described, write_run
from tests.xla_flags import QUICK_COMPILES


def test_all_mistakes_come_before_the_first_cell(tmp_path):
  (tmp_path / 'x.toml').write_text(
    'batches = [8, 12]\ntopologies = ["v5e:3x3"]\n[sweep]\nmodel.remt = [true, false]'
  )
  flags = [f'--study={tmp_path / "a"}', f'--spec={tmp_path / "x.toml"}', CONFIG]
  with pytest.raises(UserError) as error:
    command.main(['run', *flags])
  text = str(error.value)
  assert text.startswith('the study has 2 mistakes, nothing is done')
  assert 'did you mean model.remat?' in text and 'did you mean v5e:2x4?' in text
  (tmp_path / 'x.toml').write_text('batches = [8, 12, 20]')
  with pytest.raises(UserError) as error:  # of eight devices
    command.main(['run', *flags, '--config.data.name=./nosuch'])
  text = str(error.value)
  assert 'has 3 mistakes' in text and text.count('8 devices') == 2 and 'nosuch' in text
  assert not (tmp_path / 'a').exists()


def test_a_report_without_runs_and_a_cell_that_has_ended(tmp_path, capsys, monkeypatch):
  folder = tmp_path / 'a'
  command.main(['report', f'--study={folder}', CONFIG, '--images=16', '--seeds=2'])
  assert f'wrote {folder}/report.html' in capsys.readouterr().out
  assert page_data((folder / 'report.html').read_text())['title'] == 'a'
  study, cells, _ = described(folder)
  write_run(study, cells[1], {16: 1.0})
  monkeypatch.setattr(os, '_exit', sys.exit)
  monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '1')
  with pytest.raises(SystemExit) as exit:
    command.main(['run', f'--study={folder}'])
  assert exit.value.code == 0
  assert f'cell 1 of 2: {cells[1].name}' in capsys.readouterr().out
  assert not cells[0].workdir(folder).exists()


def start(log, folder, *flags):
  """Starts `run` in a process of its own, one cell of one device after the other."""
  words = ['run', f'--study={folder}', *flags]
  with log.open('w') as file:
    return subprocess.Popen(
      [sys.executable, '-m', 'gan_jax.study', *words],
      cwd=ROOT,
      env={**os.environ, 'XLA_FLAGS': QUICK_COMPILES},
      stdout=file,
      stderr=subprocess.STDOUT,
    )


@pytest.mark.slow
def test_no_cell_is_lost_or_run_twice_after_a_kill(tmp_path):
  folder = tmp_path / 'a'
  flags = ['--batches=8,16', '--images=32', '--score=swd']
  flags += ['--score_every=32', '--targets=1e9']
  flags += ['--config.score.n=64', '--config.score.reals=64']  # quick
  _, cells, _ = described(folder, CONFIG, *flags[:-2])
  states = lambda: [read_progress(c, c.workdir(folder)).state for c in cells]
  log = tmp_path / 'log'
  first = start(log, folder, CONFIG, *flags)
  while not {'finished', 'started'} <= {*states()}:
    assert first.poll() is None, log.read_text()
    time.sleep(0.05)
  first.kill()
  first.wait()
  for cell in cells:  # its processes live in sessions of their own
    with contextlib.suppress(OSError, ValueError):
      owner = json.loads((cell.workdir(folder) / 'owner.json').read_text())
      os.kill(owner['pid'], signal.SIGKILL)
  killed = states()
  assert killed == ['finished', 'started']
  second = start(log, folder)
  code, text = second.wait(), log.read_text()
  assert code == 0, text
  assert '1 of 2 cells are complete' in text
  assert states() == ['finished'] * 2
  for cell, state in zip(cells, killed, strict=True):
    starts = (cell.workdir(folder) / 'starts.jsonl').read_text().splitlines()
    ended = [line for line in starts if '"finished"' in line]
    assert len(ended) == 1 and (state != 'finished' or len(starts) == 1)
  data = page_data((folder / 'report.html').read_text())
  assert data['done'] == 1
  assert any('batch 8' in text for text in data['answers'])
