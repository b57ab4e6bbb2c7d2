"""The lock of a workdir in a store: one owner, until it ends or is dead."""

import json
import threading

import pytest

from gan_jax import UserError
from gan_jax.storage.store import Store
from gan_jax.storage.store_lock import StoreLock

ELSEWHERE = {'host': 'h', 'pid': 7, 'machine': 'another', 'token': 'x'}


def lock(url, messages=None):
  return StoreLock(Store(url), (messages if messages is not None else []).append)


def test_a_second_process_is_refused_while_the_owner_lives(url):
  owner, second = lock(url), lock(url)
  owner.acquire()
  ended = threading.Event()

  def live():
    while not ended.wait(0.3):
      owner.beat()

  thread = threading.Thread(target=live)
  thread.start()
  with pytest.raises(UserError, match='is in use .*"pid": '):
    second.acquire(stale=30)
  ended.set()
  thread.join()
  owner.release()
  second.acquire(stale=0)
  second.beat()


def test_a_dead_owner_is_replaced_and_learns_of_it(url):
  owner, messages = lock(url), []
  owner.acquire()
  second = lock(url, messages)
  second.acquire(stale=0.5)
  assert 'waiting up to' in messages[0]
  with pytest.raises(UserError, match='was taken over by another process'):
    owner.beat()
  second.beat()
  assert list(Store(url).list()) == ['owner.2.json']


def test_a_process_of_this_machine_that_has_ended_is_replaced_at_once(url):
  dead = lock(url)
  dead.acquire()
  store = Store(url)
  record = json.loads(store.read('owner.1.json')) | {'pid': 2**22 + 1}
  store.write('owner.1.json', json.dumps(record).encode())
  messages = []
  lock(url, messages).acquire(stale=600)
  assert messages == []


@pytest.mark.parametrize('content', [b'', b'[1]', json.dumps(ELSEWHERE).encode()])
def test_any_owner_without_a_sign_of_life_is_replaced(url, content):
  store = Store(url)
  store.write('owner.4.json', content)
  new = lock(url)
  new.acquire(stale=0.2)
  new.beat()
  assert list(store.list()) == ['owner.5.json']
