"""Goodput: what the time of a run went into, from the lines of starts.jsonl."""

import pytest

from gan_jax.report.goodput import LOST, WAITING, goodput, seconds_by_use

FIRST = {
  'images': 0,
  'since': 1000.0,
  'until': 1100.0,
  'until_images': 800,
  'seconds': {'compiling': 20.0, 'saving': 0.0, 'training': 80.0},
}
SECOND = {
  'images': 600,
  'since': 1150.0,
  'until': 1200.0,
  'until_images': 1000,
  'seconds': {'restoring': 10.0, 'training': 40.0},
}


def test_time_is_counted_and_repeated_training_is_lost():
  assert seconds_by_use([FIRST, SECOND]) == pytest.approx(
    {'compiling': 20, 'restoring': 10, 'training': 100, LOST: 20, WAITING: 50}
  )
  assert goodput([FIRST, SECOND]) == (
    '50% of the time was training; waiting for a restart 25%, lost to kills 10%, '
    'compiling 10%, restoring 5%'
  )


def test_a_start_that_was_killed_before_its_first_record_is_lost():
  used = seconds_by_use([{'images': 0, 'since': 700.0}, FIRST, SECOND])
  assert used[LOST] == pytest.approx(300 + 20)
  assert sum(used.values()) == pytest.approx(SECOND['until'] - 700)


def test_a_run_that_was_not_killed_loses_nothing():
  following = SECOND | {'images': 800, 'since': 1100.0}
  assert LOST not in seconds_by_use([FIRST, following])
  again = {
    'images': 800,
    'since': 9e9,
    'until': 9e9,
    'until_images': 800,
    'seconds': {},
  }
  assert WAITING not in seconds_by_use([FIRST, again])
  assert goodput([FIRST]) == '80% of the time was training; compiling 20%'


@pytest.mark.parametrize(
  'change',
  [
    # of an earlier version
    {'since': None, 'seconds': None, 'until': None, 'until_images': None},
    {'since': [], 'seconds': 'x', 'until': 'x', 'until_images': []},
    {'seconds': {'training': 'x'}, 'until_images': 1e999},
  ],
)
def test_lines_without_times_do_not_count(change):
  assert goodput([{'images': 0}, FIRST | change]) == 'not measured yet'
  used = seconds_by_use([FIRST | change, SECOND])
  assert used['training'] == 40 and LOST not in used
