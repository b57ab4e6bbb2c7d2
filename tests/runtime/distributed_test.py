"""Joining a job, and mistakes that only one of its processes sees."""

import errno
import types

import jax
import numpy as np
import pytest
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from gan_jax import UserError
from gan_jax.runtime.distributed import join, parse_job, shared_errors
from gan_jax.runtime.errors import report_failure
from gan_jax.runtime.exit_codes import ExitCode


@pytest.mark.parametrize(
  'job, words',
  [
    ('host', 'allowed are auto and HOST:PORT,NUM_PROCESSES,PROCESS_ID, such as 10.0'),
    ('Auto', 'allowed are'),
    ('host:80', 'allowed are'),
    ('host:80,2', 'allowed are'),
    ('host,2,0', 'allowed are'),
    (':80,2,0', 'allowed are'),
    ('host:80,2,-1', 'allowed are'),
    ('host:80,2,0,1', 'allowed are'),
    ('host:80, 2, 0', 'allowed are'),
    ('host:80,two,0', 'allowed are'),
    ('host:0,2,0', '0 is no port; allowed are 1 to 65535'),
    ('host:65536,2,0', '65536 is no port'),
    ('host:80,2,2', 'process 2 of 2 does not exist'),
    ('host:80,0,0', 'process 0 of 0 does not exist'),
  ],
)
def test_a_malformed_job_is_a_mistake(job, words):
  with pytest.raises(UserError, match=f'^--distributed={job}: .*{words}'):
    join(job, peer_timeout=60)


def test_a_job_is_an_address_a_number_of_processes_and_the_own_one():
  assert parse_job('10.0.0.1:9876,4,3') == ('10.0.0.1:9876', 4, 3)
  assert parse_job('[::1]:9876,64,0') == ('[::1]:9876', 64, 0)


@pytest.mark.parametrize(
  'error',
  [
    ValueError('coordinator_address should be defined.'),  # no cluster
    KeyError('JOB_COMPLETION_INDEX'),  # half a cluster
    ImportError('kubernetes'),
  ],
)
def test_auto_without_a_cluster_is_a_mistake(monkeypatch, error):
  def initialize(**_):
    raise error

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(UserError, match='^--distributed=auto: no TPU pod, .* leave'):
    join('auto', peer_timeout=60)


def test_an_unreachable_coordinator_is_no_mistake(monkeypatch):
  def initialize(*_, **__):
    raise RuntimeError('DEADLINE_EXCEEDED')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  for job in ('auto', '127.0.0.1:80,2,0'):
    with pytest.raises(RuntimeError, match='DEADLINE'):
      join(job, peer_timeout=60)


def two_processes(monkeypatch, other: str, number=0):
  """Makes this process number 0 of two; process 1 fails with `other`, if given."""

  def allgather(own):
    row = np.zeros_like(own)
    text = np.frombuffer(other.encode(), np.uint8)
    row[0], row[1 : 1 + len(text)] = number, text
    return np.stack([own, row])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', allgather)


def test_a_mistake_of_another_process_is_raised_here(monkeypatch):
  two_processes(monkeypatch, '/data/bilder-ü: there is no such folder.')
  sentence = '^process 1: /data/bilder-ü: there is no such folder[.]$'
  with pytest.raises(UserError, match=sentence), shared_errors():
    pass


def test_a_full_disk_of_another_process_asks_for_a_restart_here(monkeypatch):
  two_processes(monkeypatch, 'x cannot be written.', errno.ENOSPC)
  with (
    pytest.raises(UserError, match='^process 1: x can') as raised,
    shared_errors(),
  ):
    pass
  assert report_failure(raised.value) == ExitCode.TRANSIENT


def test_the_own_mistake_comes_first_and_none_is_none(monkeypatch):
  two_processes(monkeypatch, 'another one')
  with pytest.raises(UserError, match='^own$'), shared_errors():
    raise UserError('own')
  two_processes(monkeypatch, '')
  with shared_errors():
    pass
  with pytest.raises(UserError, match='^ü+$'), shared_errors():
    raise UserError('ü' * 5000)  # longer than what is sent


def test_processes_wait_for_each_other_before_they_exchange_mistakes(monkeypatch):
  waits = []
  two_processes(monkeypatch, '')
  client = types.SimpleNamespace(
    wait_at_barrier=lambda name, timeout_in_ms: waits.append((name, timeout_in_ms))
  )
  state = types.SimpleNamespace(client=client)
  monkeypatch.setattr(jax_distributed, 'global_state', state)
  with shared_errors():
    assert not waits
  with pytest.raises(UserError), shared_errors():
    raise UserError('own')
  (first, seconds), (second, _) = waits
  assert first != second and seconds > 24 * 3600 * 1000


def test_with_one_process_nothing_is_sent():
  with pytest.raises(UserError, match='^own$'), shared_errors():
    raise UserError('own')
  with pytest.raises(KeyError), shared_errors():
    raise KeyError('not shared')
