"""Step times and waits for data, of one and of several processes."""

import json
from types import SimpleNamespace

import jax
from jax._src import distributed as jax_distributed

from gan_jax.training.step_times import StepTimes


def two_steps():
  times = StepTimes()
  times.add(1.0, 0.25)
  times.add(3.0, 0.75)
  return times


def test_a_line_has_the_means_since_the_last_one():
  times = two_steps()
  assert times.next_line() == {'step_s': 2.0, 'data_wait_s': 0.5}
  assert times.next_line() == {}
  times.add(7.0, 0.0)
  assert times.next_line() == {'step_s': 7.0, 'data_wait_s': 0.0}


class Coordinator:
  """The values that the processes of a job have set."""

  def __init__(self, **values):
    self.values = values

  def key_value_set(self, key, value, allow_overwrite):
    assert allow_overwrite
    self.values[key] = value

  def key_value_dir_get(self, key):
    return [(k, v) for k, v in self.values.items() if k.startswith(key)]


def test_process_0_gets_the_times_of_all(monkeypatch):
  coordinator = Coordinator(**{'step_times/2': json.dumps([2.5, 1.5])})
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  state = SimpleNamespace(client=coordinator)
  monkeypatch.setattr(jax_distributed, 'global_state', state)
  assert two_steps().next_line() == {
    'step_s': 2.5,
    'step_s_by_process': [2.0, None, 2.5],
    'data_wait_s': 1.5,
    'data_wait_s_by_process': [0.5, None, 1.5],
  }
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  assert two_steps().next_line() == {'step_s': 2.0, 'data_wait_s': 0.5}
  assert coordinator.values['step_times/1'] == '[2.0, 0.5]'
