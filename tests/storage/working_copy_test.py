"""Workdirs in stores: mirrored, locked, and with checkpoints that count when sealed."""

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.storage.checkpoint import Checkpointer, restore_subtrees
from gan_jax.storage.json_lines import append_json_lines
from gan_jax.storage.store import Store
from gan_jax.storage.working_copy import local_workdir, open_workdir, working_copy


def tree(step):
  a = jax.random.normal(jax.random.key(step), (3000,))
  return {'a': a, 'ema': {'x': a[:20] + 1}}


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0))


def save(folder, steps, **kwargs):
  messages = []
  checkpoints = Checkpointer(folder, log=messages.append, **kwargs)
  for step in steps:
    assert checkpoints.save(step, tree(step), score=-step), messages
  assert checkpoints.wait(), messages
  found = checkpoints.steps()
  checkpoints.close()
  return found


def steps_in(url):
  return sorted({int(name.split('/')[1]) for name in Store(url).list('checkpoints')})


def test_files_are_pulled_and_pushed(url):
  with open_workdir(url, write=True) as folder:
    append_json_lines(folder / 'metrics.jsonl', [{'images': 8}])
    (folder / 'samples').mkdir()
    (folder / 'samples' / '8.png').write_bytes(b'png')
    working_copy(folder).push()
    names = set(Store(url).list())
    append_json_lines(folder / 'metrics.jsonl', [{'images': 16}])
  assert names == {'metrics.jsonl', 'samples/8.png', 'owner.1.json'}
  with open_workdir(url) as again:
    assert again != folder and not folder.exists()
    assert (again / 'metrics.jsonl').read_text().count('\n') == 2
    assert sorted(os.listdir(again)) == ['metrics.jsonl', 'samples']


def test_a_local_workdir_is_used_as_it_is(tmp_path):
  with open_workdir(tmp_path, write=True) as folder:
    assert folder == tmp_path and working_copy(folder) is None
  assert list(tmp_path.iterdir()) == []


def test_sentences_name_the_url(url):
  with pytest.raises(UserError, match=f'^{url}/x is bad'), open_workdir(url) as folder:
    raise UserError(f'{folder}/x is bad')
  with pytest.raises(OSError) as raised, open_workdir(url) as folder:
    (folder / 'none').read_text()
  assert raised.value.filename == f'{url}/none'


def test_checkpoints_are_kept_and_restored_as_in_a_folder(url):
  with open_workdir(url, write=True) as folder:
    assert save(folder, (1, 2, 3, 4), keep=2, best=1) == [1, 3, 4]
  assert steps_in(url) == [1, 3, 4]
  with open_workdir(url, write=True) as folder:  # the best one is known from its score
    assert save(folder, (5,), keep=2, best=1) == [1, 4, 5]
  assert steps_in(url) == [1, 4, 5]
  with open_workdir(url) as folder:
    found, step = restore_subtrees(folder, {'ema': LIKE['ema']})
    assert step == 5
    np.testing.assert_array_equal(found['ema']['x'], tree(5)['ema']['x'])
    _, step = restore_subtrees(folder, {'ema': LIKE['ema']}, 1)
    assert step == 1


def test_half_a_checkpoint_is_ignored_and_cleaned_away(url):
  with open_workdir(url, write=True) as folder:
    save(folder, (1,))
  store = Store(url)
  store.write('checkpoints/2/default/manifest.ocdbt', b'half')
  with open_workdir(url) as folder:
    assert Checkpointer(folder, read_only=True).newest() == 1
  with open_workdir(url, write=True):
    assert steps_in(url) == [1]


def test_flipped_bytes_in_the_bucket_are_found(url, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with open_workdir(url, write=True) as folder:
    save(folder, (1, 2))
  store = Store(url)
  names = store.list('checkpoints/2/default')
  names = [n for n in names if not n.endswith('commit_success.txt')]  # says nothing
  for name in rng.choice(names, 6, replace=False):
    intact = store.read(name)
    corrupted = bytearray(intact)
    corrupted[rng.integers(len(corrupted))] ^= 1 << rng.integers(8)
    store.write(name, bytes(corrupted))
    messages = []
    with open_workdir(url) as folder:
      reader = Checkpointer(folder, read_only=True, log=messages.append)
      assert reader.newest() == 1, name
    assert 'checkpoint 2' in messages[0] and 'is corrupted' in messages[0], name
    store.write(name, intact)


def test_a_corrupted_checkpoint_is_set_aside_in_the_store(url):
  with open_workdir(url, write=True) as folder:
    save(folder, (1, 2))
  store = Store(url)
  name = max(store.list('checkpoints/2/default'), key=lambda n: len(store.read(n)))
  store.write(name, store.read(name)[:-1])
  with open_workdir(url, write=True) as folder:
    checkpoints = Checkpointer(folder, log=lambda _: None)
    assert checkpoints.newest() == 1
    restored = checkpoints.restore(1, LIKE)
    np.testing.assert_array_equal(restored['a'], tree(1)['a'])
    checkpoints.save(3, tree(3))
    checkpoints.wait()
    checkpoints.drop_after(1)
    assert checkpoints.steps() == [1]
    checkpoints.close()
  assert steps_in(url) == [1]
  assert name.replace('checkpoints', 'corrupted') in store.list()


@pytest.mark.parametrize('status, error', [(507, OSError), (403, UserError)])
def test_a_checkpoint_that_cannot_be_read_is_not_set_aside(url, gate, status, error):
  with open_workdir(url, write=True) as folder:
    save(folder, (1, 2))
  before = set(Store(url).list('checkpoints'))
  with open_workdir(url, write=True) as folder:
    messages = []
    checkpoints = Checkpointer(folder, log=messages.append)
    gate.refusal = lambda _, path: '/2/default/d/' in unquote(path) and status
    with pytest.raises(error):
      checkpoints.newest()
    gate.refusal = lambda *_: 0
    assert messages == [] and checkpoints.newest() == 2
    checkpoints.close()
  assert set(Store(url).list('checkpoints')) == before


def test_a_store_that_takes_no_checkpoint_gets_the_next_one(url, gate):
  with open_workdir(url, write=True) as folder:
    messages = []
    checkpoints = Checkpointer(folder, log=messages.append)
    gate.refusal = lambda method, _: method in ('PUT', 'POST') and 507
    checkpoints.save(1, tree(1))
    assert not checkpoints.wait() and checkpoints.steps() == []
    assert 'a checkpoint could not be written' in messages[0]
    gate.refusal = lambda *_: 0
    assert checkpoints.save(2, tree(2)) and checkpoints.wait()
    checkpoints.close()
  assert steps_in(url) == [2] and len(messages) == 1


def test_folders_of_killed_processes_are_removed(url, tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  with open_workdir(url) as folder:
    dead = folder.name.replace(f'-{os.getpid()}-', f'-{2**22 + 1}-')
    (tmp_path / dead).mkdir()
    with open_workdir(url):
      assert len(list(tmp_path.iterdir())) == 2 and folder.is_dir()
  assert list(tmp_path.iterdir()) == []


def test_the_showcase_is_a_workdir_by_name_unless_there_is_a_folder(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with open_workdir('showcase') as folder:
    assert folder.parts[-3:] == ('data', 'embedded', 'showcase')
  with open_workdir('showcase', write=True) as folder:
    assert folder == Path('showcase'), 'the package is not written to'
  (tmp_path / 'showcase').mkdir()
  assert local_workdir('showcase') == Path('showcase')
  assert local_workdir('runs/showcase') == Path('runs/showcase')
