"""What a process says while it waits for its job, and hosts that are not found."""

import socket
import time
from types import SimpleNamespace

import pytest
from jax._src import distributed as jax_distributed

from gan_jax import UserError
from gan_jax.runtime.errors import report_failure
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.runtime.joining import announced, describe_wait, detected_wait, resolve

WAIT = describe_wait('node7:9876', 64, 3)


def test_the_first_process_waits_for_the_others():
  assert WAIT == 'process 3 of 64 waits for node7:9876'
  first = 'process 0 of 64 waits for the others at node7:9876'
  assert describe_wait('node7:9876', 64, 0) == first


def test_what_jax_detects_is_described(monkeypatch):
  state = SimpleNamespace(coordinator_address=None, num_processes=None, process_id=0)
  monkeypatch.setattr(jax_distributed, 'global_state', state)
  assert detected_wait() is None
  state.coordinator_address, state.num_processes, state.process_id = 'node7:9876', 64, 3
  assert detected_wait() == WAIT


def test_a_wait_is_announced_at_once_and_again():
  lines, ended = [], []
  with announced(
    lambda: WAIT, 1000, log=lines.append, leave=lambda: ended.append(1), repeat=1
  ):
    time.sleep(1.5)
  assert lines == [WAIT, f'{WAIT} (1 of 1000 s)'] and not ended


def test_a_wait_ends_after_its_timeout():
  lines, ended = [], []
  with announced(lambda: WAIT, 0.1, log=lines.append, leave=lambda: ended.append(1)):
    time.sleep(0.5)
  assert ended == [1] and len(lines) == 2
  assert lines[1].startswith(f'error: {WAIT}, and has done so for 0 s (--join_timeout)')


@pytest.mark.parametrize(
  'number, words, code',
  [
    (socket.EAI_NONAME, 'not known', ExitCode.USER_ERROR),
    (socket.EAI_AGAIN, 'try later', ExitCode.TRANSIENT),
    (None, 'no name server answers', ExitCode.TRANSIENT),
  ],
)
def test_a_host_that_is_not_found_is_named(monkeypatch, capsys, number, words, code):
  def getaddrinfo(host, port):
    if number is None:
      time.sleep(0.5)
    raise socket.gaierror(number, words)

  monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
  with pytest.raises(UserError, match=f"^{WAIT}, but .* 'node7' .*{words}") as raised:
    resolve('node7:9876', WAIT, seconds=0.1)
  assert report_failure(raised.value) == code
  first = capsys.readouterr().err.splitlines()[0]
  assert number is None or first == f'{WAIT}, which cannot be resolved yet ({words})'


def test_a_host_may_appear_late_or_be_an_address(monkeypatch):
  asked = []

  def getaddrinfo(host, port):
    asked.append(host)
    if len(asked) == 1:
      raise socket.gaierror(socket.EAI_NONAME, 'not known')

  monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
  resolve('node7:9876', WAIT, seconds=20)
  assert asked == ['node7', 'node7']
  resolve('[::1]:9876', WAIT, seconds=20)
  assert asked[2:] == ['::1']
