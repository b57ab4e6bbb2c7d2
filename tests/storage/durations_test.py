"""What is said before and after a long phase."""

import json

import pytest

from gan_jax.storage import durations


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass at each look at the clock."""
  now = [0.0]
  monkeypatch.setattr(durations.time, 'perf_counter', lambda: now[0])
  return now


def test_a_phase_tells_how_long_it_took_last_time(tmp_path, clock):
  said = []
  for seconds in (12.4, 30.0):
    with durations.timed_phase(tmp_path, 'compiling', said.append):
      clock[0] += seconds
  with durations.timed_phase(tmp_path, 'restoring', said.append):
    clock[0] += 1.0
  assert said == [
    'compiling ...',
    'compiling: done in 12 s',
    'compiling (took 12 s last time) ...',
    'compiling: done in 30 s',
    'restoring ...',
  ]
  assert json.loads((tmp_path / durations.DURATIONS).read_text()) == {'compiling': 30.0}


@pytest.mark.parametrize('content', ['', '[]', '{"compiling": []}'])
def test_a_damaged_memory_is_forgotten(tmp_path, clock, content):
  (tmp_path / durations.DURATIONS).write_text(content)
  said = []
  with durations.timed_phase(tmp_path, 'compiling', said.append):
    clock[0] += 5
  assert said[0] == 'compiling ...'
  assert json.loads((tmp_path / durations.DURATIONS).read_text()) == {'compiling': 5.0}


def test_what_fails_is_not_remembered(tmp_path, clock):
  with (
    pytest.raises(KeyError),
    durations.timed_phase(tmp_path, 'compiling', lambda _: None),
  ):
    clock[0] += 5
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path, clock):
  with durations.timed_phase(tmp_path / 'none', 'compiling', lambda _: None):
    clock[0] += 5
