"""Signals stop runs of one and of several processes, whatever the moment."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import jax
import pytest
from jax.experimental import multihost_utils

from gan_jax.training import preemption
from gan_jax.training.preemption import PreemptionHandler, StoppedError
from tests.runs import ROOT, output

PROGRAM = Path(__file__).parent / 'programs' / 'stop_two_processes.py'


class SyncPoint:
  """JAX's sync point as one process sees it."""

  def __init__(self):
    self.numbers, self.point = [], None

  def signal(self):
    self.point = max(self.numbers) + 1

  def reached(self, number):
    self.numbers.append(number)
    return number == self.point


@pytest.fixture
def sync_point(monkeypatch):
  """Makes this process one of two; returns their sync point."""
  point = SyncPoint()
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', lambda n: point.reached(n)
  )
  assert not PreemptionHandler(print).requested()  # numbers begin after other tests'
  return point


def compiled():
  future = Future()
  future.set_result('step')
  return future


def test_several_processes_stop_if_the_signal_comes_first(sync_point):
  sync_point.signal()  # before any number is asked for
  with pytest.raises(StoppedError):
    PreemptionHandler(print).result(compiled())


def test_numbers_have_no_gaps_and_grow_across_runs_and_rollbacks(sync_point):
  for _ in range(2):  # runs of this process
    handler = PreemptionHandler(print)
    for _ in range(2):  # a rollback
      assert handler.result(compiled()) == 'step'
      assert not handler.requested() and not handler.requested()
  first, *others = sync_point.numbers
  assert others == list(range(first + 1, first + 1 + 4 * (preemption.POLLS + 2)))
  sync_point.signal()
  assert handler.requested()
  assert not handler.requested()


def test_a_wait_of_several_processes_can_be_stopped(sync_point):
  sync_point.point = sync_point.numbers[0] + 2
  with pytest.raises(StoppedError):
    PreemptionHandler(print).result(Future())  # never compiled
  assert len(sync_point.numbers) == 1 + 2


def test_ctrl_c_stops_several_processes_as_sigterm_does(sync_point):
  lines, received = [], []
  previous = signal.signal(signal.SIGTERM, lambda *_: received.append('SIGTERM'))
  try:
    with PreemptionHandler(lines.append):
      signal.raise_signal(signal.SIGINT)
      assert received == ['SIGTERM'] and lines == ['stopping: saving first']
      with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
  finally:
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_one_process_saves_first_unless_it_is_idle(number):
  lines = []
  with PreemptionHandler(lines.append) as handler:
    with pytest.raises(StoppedError):
      signal.raise_signal(number)
    assert handler.signal is number
  with PreemptionHandler(lines.append) as handler:
    handler.idle = False
    assert not handler.requested()
    signal.raise_signal(number)
    assert handler.requested() and lines == ['stopping: saving first']
    with pytest.raises(KeyboardInterrupt) as second:
      signal.raise_signal(number)
    assert not isinstance(second.value, StoppedError)


@pytest.mark.parametrize(
  'moment, where', [('before', 'restored 0'), ('waiting', 'compiled 3')]
)
def test_two_processes_stop_together(free_port, moment, where):
  processes = [
    subprocess.Popen(
      [sys.executable, PROGRAM, f'127.0.0.1:{free_port}', str(i), moment],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  printed = [output(p) for p in processes]
  for process, text in zip(processes, printed, strict=True):
    assert process.returncode == 0 and f'stopped {where}' in text, printed


def test_another_thread_has_no_signal_handlers_and_is_stopped_by_its_event():
  stop, seen = threading.Event(), []

  def run():
    before = signal.getsignal(signal.SIGINT)
    with PreemptionHandler(print, stop) as handler:
      seen.extend([signal.getsignal(signal.SIGINT) == before, handler.requested()])
      stop.set()
      seen.append(handler.requested())

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert seen == [True, False, True]


def test_a_handler_of_an_embedding_program_is_no_error(monkeypatch):
  """`signal.signal` returns None for it, and does not take None."""
  install, interrupt = signal.signal, signal.getsignal(signal.SIGINT)
  with monkeypatch.context() as patch:
    patch.setattr(signal, 'signal', lambda *args: install(*args) and None)
    handler = PreemptionHandler(print)
    handler.__enter__()
  handler.__exit__()
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  install(signal.SIGINT, interrupt)


def test_sigusr2_is_as_sigterm():
  before = signal.getsignal(signal.SIGUSR2)
  preemption.stop_at_sigusr2()
  try:
    with PreemptionHandler(print) as handler:
      handler.idle = False
      signal.raise_signal(signal.SIGUSR2)
      assert handler.signal == signal.SIGTERM and handler.requested()
  finally:
    signal.signal(signal.SIGUSR2, before)
