"""Messages before and after a long phase, and the durations kept."""

import json

import pytest

from gan_jax.storage import durations


@pytest.fixture
def clock(monkeypatch):
  """The time of perf_counter, which tests advance."""
  now = [0.0]
  monkeypatch.setattr(durations.time, 'perf_counter', lambda: now[0])
  return now


def test_a_phase_logs_its_duration_in_the_last_run(tmp_path, clock):
  messages = []
  for seconds in (12.4, 30.0):
    with durations.timed_phase(tmp_path, 'compiling', messages.append):
      clock[0] += seconds
  with durations.timed_phase(tmp_path, 'restoring', messages.append):
    clock[0] += 1.0
  assert messages == [
    'compiling ...',
    'compiling: done in 12 s',
    'compiling (took 12 s last time) ...',
    'compiling: done in 30 s',
    'restoring ...',
  ]
  assert json.loads((tmp_path / durations.DURATIONS).read_text()) == {'compiling': 30.0}


def test_without_a_workdir_nothing_is_recorded(tmp_path, clock, monkeypatch):
  monkeypatch.chdir(tmp_path)
  messages = []
  for _ in range(2):
    with durations.timed_phase(None, 'compiling', messages.append):
      clock[0] += 5
  assert messages == ['compiling ...', 'compiling: done in 5 s'] * 2
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('content', ['', '[]', '{"compiling": []}'])
def test_a_corrupted_file_is_ignored(tmp_path, clock, content):
  (tmp_path / durations.DURATIONS).write_text(content)
  messages = []
  with durations.timed_phase(tmp_path, 'compiling', messages.append):
    clock[0] += 5
  assert messages[0] == 'compiling ...'
  assert json.loads((tmp_path / durations.DURATIONS).read_text()) == {'compiling': 5.0}


def test_a_failed_phase_is_not_recorded(tmp_path, clock):
  with (
    pytest.raises(KeyError),
    durations.timed_phase(tmp_path, 'compiling', lambda _: None),
  ):
    clock[0] += 5
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_not_an_error(tmp_path, clock):
  with durations.timed_phase(tmp_path / 'none', 'compiling', lambda _: None):
    clock[0] += 5
