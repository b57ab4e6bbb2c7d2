"""Running cells: what is skipped, started again, waited for, and stopped."""

import contextlib
import json
import os
import signal
import sys
import threading
import time

import pytest

from gan_jax import UserError
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.storage.lock import lock_workdir
from gan_jax.study import runner
from gan_jax.study.runner import Runner, Slot
from tests.study.studies import CONFIG, described, write_run

# A stand-in for training: one line per start; `behaviour` may end it otherwise.
PROGRAM = """
import json, os, signal, sys, time
workdir, images, behaviour = sys.argv[1:]
def end(ended, code):
  with open(workdir + '/starts.jsonl', 'a') as file:
    line = {'images': 0, 'until_images': int(images), 'ended': ended}
    file.write(json.dumps(line) + '\\n')
  sys.exit(code)
starts = workdir + '/starts.jsonl'
first = not os.path.exists(starts)
if behaviour == 'mistake':
  print('error: the images are gone.')
  sys.exit(2)
if behaviour == 'crash' or behaviour == 'crash once' and first:
  open(starts, 'a').write('{}\\n')
  sys.exit(250)
if behaviour == 'lose':
  end('stopped at image 3: nan', 2)
if behaviour == 'train':
  signal.signal(signal.SIGTERM, lambda *_: end('stopped', 42))
  open(workdir + '/ready', 'w').close()
  time.sleep(60)
end('finished', 0)
"""


@pytest.fixture
def study(tmp_path):
  return described(tmp_path, CONFIG, '--batches=8,16', '--seeds=2')[:2]


def make_runner(study, cells, *, jobs=1, log=None, **behaviours):
  def command(cell):
    workdir, images = cell.workdir(study.folder), cell.config.train.images
    behaviour = behaviours.get(f'cell{cell.index}', 'finish')
    return [sys.executable, '-S', '-c', PROGRAM, workdir, str(images), behaviour]

  slots = [Slot({'SLOT': str(i)}) for i in range(jobs)]
  return Runner(study.folder, cells, slots, command, log=log or (lambda _: None))


def starts(study, cell):
  return (cell.workdir(study.folder) / 'starts.jsonl').read_text().count('\n')


def test_all_cells_run_once_and_finished_ones_are_skipped(study):
  study, cells = study
  write_run(study, cells[2], {16: 1.0})
  lines = []
  assert make_runner(study, cells, jobs=3, log=lines.append).run() == ExitCode.FINISHED
  assert lines[0] == '1 of 4 cells are complete'
  assert sum('finished' in line for line in lines) == 3
  assert make_runner(study, cells, log=lines.append).run() == ExitCode.FINISHED
  assert [starts(study, cell) for cell in cells] == [1] * 4
  assert lines[-1] == '4 of 4 cells are complete'


def test_what_may_pass_is_started_again_and_the_rest_is_reported(study):
  study, cells = study
  lines, behaviours = [], dict(cell0='crash once', cell1='lose', cell3='mistake')
  found = make_runner(study, cells, log=lines.append, **behaviours)
  assert found.run() == ExitCode.USER_ERROR
  assert starts(study, cells[0]) == 2 and starts(study, cells[1]) == 1
  assert found.failures == {cells[3].name: (2, 'the images are gone.')}
  assert any(f'{cells[1].name} lost: stopped at image 3: nan' in x for x in lines)
  again = make_runner(study, cells, cell3='crash')
  assert again.run() == ExitCode.TRANSIENT
  assert starts(study, cells[3]) == runner.ATTEMPTS
  assert starts(study, cells[1]) == 1  # a lost run is a result


def test_a_cell_that_another_process_trains_is_waited_for(study, monkeypatch):
  study, cells = study
  monkeypatch.setattr(runner, 'BUSY_SECONDS', 0.05)
  workdir, lines = cells[0].workdir(study.folder), []
  with contextlib.ExitStack() as stack:
    stack.enter_context(lock_workdir(workdir))
    assert runner.is_locked(workdir)

    def finish(line):
      lines.append(line)
      if line.startswith('[3/4]'):  # the other process ends, once all others have run
        write_run(study, cells[0], {16: 1.0})
        stack.close()

    found = make_runner(study, cells, log=finish, cell0='mistake')
    assert found.run() == ExitCode.FINISHED and not found.failures
  assert f'{cells[0].name} is being trained by another process' in lines
  assert lines[-1] == f'[4/4] {cells[0].name} is complete'
  assert not runner.is_locked(workdir)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_all_cells(study, number):
  study, cells = study
  ready = [cell.workdir(study.folder) / 'ready' for cell in cells[:2]]

  def send():
    while not all(path.exists() for path in ready):
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  behaviours = {f'cell{i}': 'train' for i in range(4)}
  found = make_runner(study, cells, jobs=2, **behaviours)
  thread = threading.Thread(target=send)
  thread.start()
  code = found.run()
  thread.join()
  assert code in (ExitCode.STOPPED, ExitCode.FINISHED)  # 0: Ctrl-C at a terminal
  assert code == ExitCode.STOPPED or number == signal.SIGINT and os.isatty(0)
  ends = [cell.workdir(study.folder) / 'starts.jsonl' for cell in cells]
  assert [path.exists() for path in ends] == [True, True, False, False]
  assert all(json.loads(path.read_text())['ended'] == 'stopped' for path in ends[:2])


def test_the_machine_is_divided(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1, 2, 3, 5})
  assert runner.make_slots(1, {}) == [Slot({})]
  assert [slot.cores for slot in runner.make_slots(2, {})] == [(0, 2, 5), (1, 3)]
  assert {slot.cores for slot in runner.make_slots(9, {})} >= {(0,), ()}
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  environ = {'CUDA_VISIBLE_DEVICES': '4,5,6,7', 'JAX_PLATFORMS': 'cuda'}
  devices = [s.environ['CUDA_VISIBLE_DEVICES'] for s in runner.make_slots(2, environ)]
  assert devices == ['4,5', '6,7']
  shared = [slot.environ for slot in runner.make_slots(8, environ)]
  assert [x['CUDA_VISIBLE_DEVICES'] for x in shared] == list('44556677')
  assert {x['XLA_PYTHON_CLIENT_MEM_FRACTION'] for x in shared} == {'0.450'}
  with pytest.raises(UserError, match='4 GPUs cannot be divided evenly'):
    runner.make_slots(3, environ)
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  with pytest.raises(UserError, match='one cell at a time'):
    runner.make_slots(2, {'JAX_PLATFORMS': 'tpu'})
  with pytest.raises(UserError, match='--jobs=0: it must be at least 1'):
    runner.make_slots(0, {})


def test_the_cell_of_an_array_job(study, monkeypatch):
  _, cells = study
  for name in runner.ARRAY_INDICES:
    monkeypatch.delenv(name, raising=False)
  assert runner.array_variable() == ''
  assert runner.choose_cell('2', cells, '') == cells[2]
  assert runner.choose_cell(cells[1].name, cells, '') == cells[1]
  monkeypatch.setenv('JOB_COMPLETION_INDEX', '3')
  assert runner.choose_cell(None, cells, '') == cells[3]
  assert runner.array_variable('auto') == ''  # there it numbers processes
  monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '0')
  assert runner.choose_cell(None, cells, 'auto') == cells[0]
  for text in ('4', '-1', 'b9', '1.0'):
    with pytest.raises(UserError, match=f'--cell={text} is no cell: .* 0 to 3'):
      runner.choose_cell(text, cells, '')
  monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '4')
  with pytest.raises(UserError, match='SLURM_ARRAY_TASK_ID=4 is no cell'):
    runner.choose_cell(None, cells, '')


def test_last_words(tmp_path):
  path = tmp_path / 'output.log'
  assert runner.last_words(path) == 'it printed nothing'
  path.write_text('1%\r2%\rerror: first\nerror: second.\nbye\n\n')
  assert runner.last_words(path) == 'second.'
  path.write_text('Traceback\n  x\nValueError: no\n')
  assert runner.last_words(path) == 'ValueError: no'
