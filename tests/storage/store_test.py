"""Objects of a store, and its errors: what the user can mend, what passes by itself."""

import errno
import json
import sys

import pytest

from gan_jax import UserError
from gan_jax.storage.store import Store
from tests.storage.stores import AWS, answering

ENDPOINTS = {'gs': 'STORAGE_EMULATOR_HOST', 's3': 'AWS_ENDPOINT_URL'}


def test_objects_are_written_listed_moved_and_deleted(url, tmp_path):
  store = Store(url)
  assert store.list() == {}
  store.write('a/b', b'one')
  before = store.list()
  store.write('a/b', b'two')
  assert list(before) == list(store.list()) == ['a/b'] and before != store.list()
  assert store.read('a/b') == b'two'
  (tmp_path / 'x').write_bytes(b'x' * 99)
  store.upload(tmp_path / 'x', 'c')
  store.download('c', tmp_path / 'new' / 'y')
  assert (tmp_path / 'new' / 'y').read_bytes() == b'x' * 99
  store.move('a/b', 'd/b')
  assert sorted(store.list()) == ['c', 'd/b'] and list(store.list('d')) == ['d/b']
  store.delete(['none', 'c'])
  assert list(store.list()) == ['d/b']
  with pytest.raises(FileNotFoundError):
    store.read('a/b')


def test_an_object_is_created_once(url):
  store = Store(url)
  assert store.create('x', b'mine') and not store.create('x', b'theirs')
  assert store.read('x') == b'mine'


def test_a_missing_bucket_is_named(url):
  store = Store(url.replace('bucket', 'no-bucket'))
  with pytest.raises(UserError, match="there is no bucket 'no-bucket'"):
    store.list()
  with pytest.raises(UserError, match='cannot be written: there is no such bucket'):
    store.write('x', b'')


def test_permission_for_one_folder_is_enough(url, gate):
  gate.refusal = lambda method, path: method == 'GET' and 'runs' not in path and 403
  store = Store(url)
  assert store.list() == {}
  store.write('x', b'')
  assert list(store.list()) == ['x']


@pytest.mark.parametrize('scheme, package', [('gs', 'gcsfs.core'), ('s3', 's3fs')])
def test_a_missing_package_is_named(scheme, package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=r"pip install 'gan_jax\[(gcs|s3)\]'"):
    Store(f'{scheme}://bucket/x')


@pytest.fixture(params=['gs', 's3'])
def store_at(request, monkeypatch):
  """Makes a store of a server at an address."""
  pytest.importorskip('gcsfs' if request.param == 'gs' else 's3fs')
  for name, value in AWS.items():
    monkeypatch.setenv(name, value)

  def make(address, bucket='bucket', **kwargs):
    monkeypatch.setenv(ENDPOINTS[request.param], address)
    return Store(f'{request.param}://{bucket}/x', **kwargs)

  make.scheme = request.param
  return make


@pytest.mark.stores
def test_missing_credentials_are_named_at_once(scheme_without_login):
  with pytest.raises(UserError, match=r'no valid credentials \(.*(gcloud|aws) '):
    Store(f'{scheme_without_login}://bucket/x').list()


@pytest.mark.stores
@pytest.mark.parametrize('scheme_without_login', ['gs'], indirect=True)
def test_a_login_that_has_ended_is_named_at_once(
  scheme_without_login, tmp_path, monkeypatch
):
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import rsa

  key = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  login = {
    'type': 'service_account',
    'client_email': 'a@b',
    'private_key': key.decode(),
  }
  with answering(400, 60, b'{"error": "invalid_grant"}') as address:
    (tmp_path / 'login.json').write_text(json.dumps(login | {'token_uri': address}))
    monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', str(tmp_path / 'login.json'))
    with pytest.raises(UserError, match=r'no valid credentials \(.*gcloud'):
      Store('gs://bucket/x')


@pytest.mark.stores
@pytest.mark.parametrize(
  'status, reason', [(401, 'no valid credentials'), (403, 'no permission')]
)
def test_a_refusal_is_one_sentence(store_at, status, reason):
  with answering(status, 60) as address:
    store = store_at(address)
    for refused in (store.list, lambda: store.write('a', b'')):
      with pytest.raises(UserError, match=reason):
        refused()


@pytest.mark.stores
def test_a_refusal_says_what_the_store_says(store_at):
  says = {
    'gs': b'{"error": {"message": "eve may not list"}}',
    's3': b'<Error><Code>403</Code><Message>eve may not list</Message></Error>',
  }[store_at.scheme]
  with (
    answering(403, 60, says) as address,
    pytest.raises(UserError, match=r'no permission \(eve may not list\)'),
  ):
    store_at(address).list()


@pytest.mark.stores
@pytest.mark.parametrize('bucket', ['b!b', 'x y'])
def test_an_invalid_bucket_is_a_mistake(store_at, bucket):
  with answering(400, 60, b'{"error": {"message": "invalid name"}}') as address:
    store = store_at(address, bucket=bucket)
    with pytest.raises(UserError, match='(?i)cannot be (listed|written): invalid'):
      store.list()


@pytest.mark.stores
@pytest.mark.parametrize('status', [429, 503])
def test_an_overload_passes(store_at, status):
  with answering(status, 1) as address:
    assert store_at(address).read('x') == b'content'


@pytest.mark.stores
@pytest.mark.parametrize('store_at', ['s3'], indirect=True)  # gcsfs waits for 34 s
def test_a_store_that_never_answers_asks_for_a_restart(store_at):
  with answering(503, 600) as address:
    store = store_at(address, patience=0)
    with pytest.raises(OSError, match='no answer for') as raised:
      store.read('x')
  assert raised.value.errno == errno.ETIMEDOUT
  assert raised.value.filename == f'{store.url}/x'
