"""Copies of sets: once for all processes, checked, resumed, and read like the set."""

import hashlib
import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gan_jax import UserError
from gan_jax.data import set_copy
from gan_jax.data.set_copy import SetCopy, data_cache
from gan_jax.data.set_files import Expected, FolderFiles, expect

CONTENTS = {
  'a/one': b'1' * 100,
  'a/two': b'',
  'b/three': bytes(range(256)) * 40,
  'info.json': b'{}',
}


class Recorder(FolderFiles):
  """Files of a folder; counts what is read, and fails where it is asked to."""

  def __init__(self, folder):
    super().__init__(folder)
    self.read_bytes, self.fail_at = Counter(), {}

  def read(self, name, start=0, end=None):
    if self.fail_at.get(name, float('inf')) <= start:
      raise KeyboardInterrupt
    content = super().read(name, start, end)
    self.read_bytes[name] += len(content)
    return content


@pytest.fixture
def files(tmp_path):
  for name, content in CONTENTS.items():
    path = tmp_path / 'set' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return Recorder(tmp_path / 'set')


@pytest.fixture
def cache(tmp_path):
  return tmp_path / 'cache'


def expected(files):
  """With the checksums that a manifest would have, but for info.json."""
  found = expect(files.list())
  for name, content in CONTENTS.items():
    if name in found and name != 'info.json':
      sha256 = hashlib.sha256(content).hexdigest()
      found[name] = Expected(len(content), sha256, sha256)
  return found


def fetch(files, cache):
  copy = SetCopy(files, cache)
  wanted = expected(files)
  copy.fetch('', wanted, wanted)
  return copy.folder


def contents(folder):
  paths = (path for path in folder.rglob('*') if path.is_file())
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_set_is_copied_once(files, cache):
  folder = fetch(files, cache)
  assert folder.name == 'set' and folder.is_relative_to(cache)
  assert contents(folder) == CONTENTS
  sizes = {name: len(content) for name, content in CONTENTS.items() if content}
  assert files.read_bytes == sizes
  assert fetch(files, cache) == folder and files.read_bytes == sizes


def test_only_named_files_are_copied_and_others_of_the_set_stay(files, cache):
  copy, wanted = SetCopy(files, cache), expected(files)
  copy.fetch('', wanted, ['a/one'])
  copy.fetch('', wanted, ['info.json'])
  assert {*contents(copy.folder)} == {'a/one', 'info.json'}


def test_a_file_that_differs_is_fetched_again(files, cache):
  folder = fetch(files, cache)
  files.read_bytes.clear()
  for name in ('b/three', 'info.json'):
    content = bytearray((folder / name).read_bytes())
    content[1] ^= 1
    (folder / name).write_bytes(content)
  assert contents(fetch(files, cache)) == CONTENTS
  assert files.read_bytes == {'b/three': 10240, 'info.json': 2}


def test_a_file_that_was_touched_is_checked_and_kept(files, cache):
  folder = fetch(files, cache)
  files.read_bytes.clear()
  for name in CONTENTS:
    os.utime(folder / name, (1, 1))
  assert contents(fetch(files, cache)) == CONTENTS and not files.read_bytes
  # Without notes only a file whose checksum is known can be checked.
  (folder.parent / 'files.jsonl').unlink()
  assert contents(fetch(files, cache)) == CONTENTS
  assert files.read_bytes == {'info.json': 2}


def test_files_that_the_set_has_replaced_or_lost_are_replaced_and_removed(files, cache):
  folder = fetch(files, cache)
  (folder.parents[1] / 'mine').write_text('not of the set')
  source = files.url
  with open(f'{source}/info.json', 'w') as f:
    f.write('[]')
  os.remove(f'{source}/a/one')
  assert contents(fetch(files, cache)) == {
    'a/two': b'',
    'b/three': CONTENTS['b/three'],
    'info.json': b'[]',
  }
  assert (folder.parents[1] / 'mine').is_file()


def test_a_copy_that_was_stopped_goes_on(files, cache, monkeypatch):
  monkeypatch.setattr(set_copy, 'CHUNK', 1000)
  files.fail_at = {'b/three': 5000}
  with pytest.raises(KeyboardInterrupt):
    fetch(files, cache)
  folder = SetCopy(files, cache).folder
  assert not (folder / 'b' / 'three').exists(), 'it is not whole'
  files.fail_at = {}
  files.read_bytes.clear()
  assert contents(fetch(files, cache)) == CONTENTS
  assert files.read_bytes['b/three'] == 5240


def test_a_corrupted_part_is_fetched_from_its_beginning(files, cache, monkeypatch):
  monkeypatch.setattr(set_copy, 'CHUNK', 1000)
  files.fail_at = {'b/three': 5000}
  with pytest.raises(KeyboardInterrupt):
    fetch(files, cache)
  (part,) = SetCopy(files, cache).folder.rglob('.three.*.part')
  part.write_bytes(bytes(6000))
  files.fail_at = {}
  assert contents(fetch(files, cache)) == CONTENTS


@pytest.mark.parametrize(
  'content, reason',
  [
    (bytes(10240), r'b/three has the SHA-256 \w{16}..., not \w{16}\.\.\.'),
    (CONTENTS['b/three'][:-1], 'b/three has 10239 bytes, not 10240'),
    (None, 'b/three is missing'),
  ],
)
def test_a_set_with_another_content_is_named(files, cache, content, reason):
  copy, wanted = SetCopy(files, cache), expected(files)
  path = f'{files.url}/b/three'
  os.remove(path)
  if content is not None:
    with open(path, 'wb') as f:
      f.write(content)
  with pytest.raises(UserError, match=f'{files.url}/{reason}.*prepare'):
    copy.fetch('', wanted, wanted)
  assert not (copy.folder / 'b' / 'three').exists()


def test_a_known_md5_is_compared(files, cache):
  wanted = {
    'a/one': Expected(100, 'v1', md5=hashlib.md5(CONTENTS['a/one']).hexdigest())
  }
  copy = SetCopy(files, cache)
  copy.fetch('', wanted, wanted)
  assert (copy.folder / 'a' / 'one').read_bytes() == CONTENTS['a/one']
  wanted = {'a/one': Expected(100, 'v2', md5='0' * 32)}
  with pytest.raises(UserError, match='a/one has the MD5 .*, not 0000'):
    copy.fetch('', wanted, wanted)


def test_a_full_disk_is_seen_before_anything_is_copied(files, cache, monkeypatch):
  usage = shutil.disk_usage('/')._replace(free=10_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(
    UserError, match=r'has 10.0kB free, and the copy of .*/set needs 10.3kB: make room'
  ) as error:
    fetch(files, cache)
  assert f'data.cache={cache} ' in str(error.value) and not files.read_bytes


def test_a_cache_that_cannot_be_written_is_named(files, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'data\.cache=.*file is a file, not a folder'):
    fetch(files, tmp_path / 'file' / 'cache')
  with pytest.raises(UserError, match='data.cache=gs://bucket/x is a URL'):
    data_cache('gs://bucket/x')
  with pytest.raises(UserError, match='data.cache=~nobody_here/x: there is no such us'):
    data_cache('~nobody_here/x')
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path))
  assert data_cache(None) == data_cache('') == tmp_path / 'data'


def test_one_of_several_processes_copies(files, cache, capfd):
  # The lock is one of open files: threads with their own are like processes.
  sources = [Recorder(Path(files.url)) for _ in range(4)]
  with ThreadPoolExecutor(4) as threads:
    list(threads.map(lambda source: fetch(source, cache), sources))
  read = sorted(sum(source.read_bytes.values()) for source in sources)
  assert read == [0, 0, 0, sum(map(len, CONTENTS.values()))]
  said = re.findall(r'copying 10\.3kB of .*/set to', capfd.readouterr().err)
  assert len(said) == 1
