"""Profiles: which iterations and processes, and what goes on if one cannot be taken."""

import jax
import jax.numpy as jnp
import pytest

from gan_jax import UserError
from gan_jax.training.callbacks import Iteration
from gan_jax.training.profiling import Profile, ProfiledSteps, parse_profile


def run(profile, *steps):
  """Calls the callback after these iterations; returns those that it was due after."""
  due = []
  for step in steps:
    iteration = Iteration(step, 8 * (step - 1), 8 * step, phase=None, grows=False)
    if profile.due(iteration):
      due.append(step)
      profile(None, iteration)
  return due


@pytest.fixture
def profiler(monkeypatch):
  """What jax.profiler was called with."""
  calls = []
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda x: calls.append(x))
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: calls.append('stop'))
  return calls


def test_steps_and_processes_are_read():
  assert parse_profile('100:5') == ProfiledSteps(100, 5, (0,))
  assert parse_profile('1:2', '0,13') == ProfiledSteps(1, 2, (0, 13))
  assert parse_profile('1:2', 'all') == ProfiledSteps(1, 2, ())


def test_a_profile_is_written(tmp_path):
  lines = []
  profile = Profile(ProfiledSteps(2, 1), tmp_path, lines.append)
  assert run(profile, 1, 2) == [2]
  jnp.ones(3).sum().block_until_ready()
  assert run(profile, 3, 4) == [3]
  (written,) = (tmp_path / 'profile').rglob('*.xplane.pb')
  assert written.stat().st_size > 0
  assert lines == [
    f'profiled: xprof --logdir={tmp_path}/profile shows it (pip install xprof)'
  ]


def test_it_is_taken_once_and_ends_with_the_run(tmp_path, profiler):
  profile = Profile(ProfiledSteps(3, 2), tmp_path, print)
  assert run(profile, 1, 2, 3, 4, 5, 6, 3, 4, 5) == [3, 5]  # then a rollback
  assert profiler == [tmp_path / 'profile', 'stop']
  profile = Profile(ProfiledSteps(3, 100), tmp_path, print)
  run(profile, 3, 4)
  profile.close()
  profile.close()
  assert profiler[2:] == [tmp_path / 'profile', 'stop']


def test_a_run_that_is_further_says_so_once(tmp_path, profiler):
  lines = []
  assert not run(Profile(ProfiledSteps(3, 2), tmp_path, lines.append), 4, 5, 6)
  (line,) = lines
  assert line.startswith(
    '--profile=3:2: nothing is profiled, since this run is at iter'
  )
  assert not profiler


def test_processes_are_chosen(tmp_path, profiler, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  monkeypatch.setattr(jax, 'process_index', lambda: 3)
  assert not run(Profile(ProfiledSteps(1, 1, (0, 2)), tmp_path, print), 1, 2)
  for processes in ((3,), ()):
    run(Profile(ProfiledSteps(1, 1, processes), tmp_path, print), 1, 2)
  assert profiler == [tmp_path / 'profile' / 'process_3', 'stop'] * 2
  with pytest.raises(UserError, match='no process 4; allowed are all and 0 to 3'):
    Profile(ProfiledSteps(1, 1, (1, 4)), tmp_path, print)


def test_a_profile_that_fails_stops_nothing(tmp_path, profiler):
  (tmp_path / 'profile').write_text('')
  lines = []
  assert run(Profile(ProfiledSteps(1, 1), tmp_path, lines.append), 1, 2, 3) == [1]
  assert 'no profile could be written' in lines[0] and not profiler
