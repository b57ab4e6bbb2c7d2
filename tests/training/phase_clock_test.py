"""What the time of a session goes into."""

from gan_jax.training import phase_clock
from gan_jax.training.phase_clock import PhaseClock
from gan_jax.training.workdir import STARTS, update_start


def test_time_outside_of_phases_is_training(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(phase_clock.time, 'perf_counter', lambda: now[0])
  clock = PhaseClock()
  for _ in range(2):
    with clock.phase('saving'):
      now[0] += 5
  now[0] += 50
  assert not clock.due()
  now[0] += 0.5
  assert clock.due()
  record = clock.record(800)
  assert record['seconds'] == {'saving': 10, 'training': 50.5}
  assert record['until_images'] == 800 and not clock.due()
  assert record['until'] == clock.since + 60.5  # as the parts


def test_the_last_start_is_updated(tmp_path):
  update_start(tmp_path, {'until': 1})  # no file, as with a full disk
  path = tmp_path / STARTS
  path.write_text('{"images": 0}\n{"images": 8}\n')
  update_start(tmp_path, {'until': 1})
  update_start(tmp_path, {'until': 2})
  assert path.read_text() == '{"images": 0}\n{"images": 8, "until": 2}\n'
