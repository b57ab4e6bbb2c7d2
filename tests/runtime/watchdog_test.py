"""The watchdog of a process: when it prints the stacks of threads, when it ends it."""

import threading
from pathlib import Path

from gan_jax.runtime import watchdog
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.runtime.watchdog import Watchdog
from tests.runs import run_program

PROGRAM = Path(__file__).parent / 'programs' / 'hang.py'


class Clock:
  """Seconds that pass when a test says so, and what a watchdog does meanwhile."""

  def __init__(self, monkeypatch, limit, hang_timeout):
    self.now, self.printed, self.left = 0.0, [], []
    monkeypatch.setattr(watchdog.time, 'perf_counter', lambda: self.now)
    self.dog = Watchdog(
      limit,
      hang_timeout,
      who=lambda: 'process 3 of 64',
      print_stacks=lambda text: self.printed.append((self.now, text)),
      leave=lambda text: self.left.append((self.now, text)),
    )

  def passes(self, seconds, watched=None, step=0):
    """Checks once a second; with a `step`, there is progress each `step` seconds."""
    for _ in range(seconds):
      self.now += 1
      if step and self.now % step == 0:
        watched.step()
      self.dog.check(1)
    return [at for at, _ in self.printed], [at for at, _ in self.left]


def test_a_run_without_steps_prints_its_stacks_and_ends(monkeypatch):
  clock = Clock(monkeypatch, limit=60, hang_timeout=100)
  with clock.dog.watch('training') as watched:
    assert clock.passes(1000, watched, step=5) == ([], [])
    watched.doing = 'waiting for the next batch of images'
    assert clock.passes(59) == ([], [])
    assert clock.passes(100) == ([1060], [])  # once
    assert clock.passes(1) == ([1060], [1160])
  (_, text), (_, end) = clock.printed[0], clock.left[0]
  assert text == (
    'process 3 of 64 hangs: training has made no progress for 60 s, while waiting for '
    'the next batch of images; ending in 100 s (--hang_timeout). All threads:'
  )
  assert end.startswith('error: process 3 of 64 has hung for 160 s, while waiting for')


def test_ten_median_steps_are_granted(monkeypatch):
  clock = Clock(monkeypatch, limit=60, hang_timeout=100)
  with clock.dog.watch('training') as watched:
    clock.passes(200, watched, step=20)
    assert clock.passes(199) == ([], [])
    assert clock.passes(1) == ([400], [])
    clock.passes(20, watched, step=20)  # it goes on
    assert clock.passes(199) == ([400], [])
    assert clock.passes(1) == ([400, 620], [])


def test_the_first_steps_have_the_hang_timeout(monkeypatch):
  clock = Clock(monkeypatch, limit=60, hang_timeout=100)
  with clock.dog.watch('training') as watched:
    assert clock.passes(100) == ([100], [])
    watched.step()
    clock.passes(100, watched, step=10)
    watched.forget()  # another resolution
    assert clock.passes(100) == ([100], [])
    assert clock.passes(1) == ([100, 301], [])


def test_pauses_and_suspended_processes_are_no_hang(monkeypatch):
  clock = Clock(monkeypatch, limit=10, hang_timeout=10)
  with clock.dog.watch('training') as watched:
    clock.passes(50, watched, step=1)
    with watched.paused(), watched.paused():
      assert clock.passes(500) == ([], [])
    assert clock.passes(10) == ([], [])  # the first check after it is progress
    watched.step()
    assert watched.limit() == 10  # the pause is not the time of a step
    clock.now += 3600
    clock.dog.check(3600)
    clock.dog.check(1)
    assert not clock.printed
  assert clock.passes(500) == ([], [])  # nothing is watched


def test_without_hang_timeout_it_never_ends(monkeypatch):
  clock = Clock(monkeypatch, limit=10, hang_timeout=0)
  with clock.dog.watch('training'):
    assert clock.passes(10_000) == ([10], [])
  assert '; waiting on (--hang_timeout=0). All' in clock.printed[0][1]


def test_each_thing_that_is_watched_counts(monkeypatch):
  clock = Clock(monkeypatch, limit=10, hang_timeout=10)
  with clock.dog.watch('training') as watched, clock.dog.watch('opening the data'):
    assert clock.passes(20, watched, step=1) == ([10], [20])
  assert 'opening the data has made no progress' in clock.printed[0][1]


def test_its_thread_runs_while_it_is_entered():
  names = lambda: [t.name for t in threading.enumerate()]
  with Watchdog():
    assert 'watchdog' not in names()
  with Watchdog(60, 60) as dog:
    (thread,) = [t for t in threading.enumerate() if t.name == 'watchdog']
  thread.join(10)
  assert not thread.is_alive()
  with dog:
    assert 'watchdog' in names()


def test_a_process_that_hangs_prints_its_threads_and_asks_for_a_restart():
  done = run_program(PROGRAM)
  assert done.returncode == ExitCode.TRANSIENT, done
  before, _, after = done.stderr.partition('this process hangs: ')
  assert 'in wait_for_the_signal' in before and 'in the_reader' not in before
  assert after.startswith('training has made no progress for ')
  assert 'while reading; ending in 1 s (--hang_timeout). All threads:' in after
  assert 'in the_reader' in after and 'in another_thread' in after
  assert 'error: this process has hung for ' in after
