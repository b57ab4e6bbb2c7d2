"""Checkpoints: corruption is detected, the right ones are kept, one writer only."""

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.storage.checkpoint import Checkpointer, restore_subtrees
from gan_jax.storage.lock import lock_workdir
from gan_jax.storage.manifest import MANIFEST, find_corruption
from tests.runs import run_program


def tree(step):
  a = jax.random.normal(jax.random.key(step), (3000,))
  return {'a': a, 'ema': {'x': a[:20] + 1}, 'images': jnp.uint32(step * 8)}


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0))
IMAGES = {'images': LIKE['images']}


@contextlib.contextmanager
def opened(workdir, *args, **kw):
  messages = []
  checkpoints = Checkpointer(workdir, *args, log=messages.append, **kw)
  checkpoints.messages = messages
  yield checkpoints
  checkpoints.close()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with checkpoints 1 and 2, not to be changed."""
  workdir = tmp_path_factory.mktemp('saved')
  with opened(workdir) as checkpoints:
    for step in (1, 2):
      assert checkpoints.save(step, tree(step))
    assert checkpoints.wait()
  return workdir


@pytest.fixture
def copied(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def assert_equal(ours, theirs):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_flipped_bit_is_detected_or_harmless(copied, rng_seed):
  rng = np.random.default_rng(rng_seed)
  files = sorted(p for p in (copied / 'checkpoints' / '2').rglob('*') if p.is_file())
  files = [p for p in files if p.stat().st_size]
  found = 0
  for path in [*files, *rng.choice(files, 20)]:
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path.write_bytes(flipped)
    corruption = find_corruption(copied / 'checkpoints' / '2')
    found += corruption is not None
    if corruption is None:
      with opened(copied) as checkpoints:
        assert_equal(checkpoints.restore(2, LIKE), tree(2))
    else:
      # A flip in the manifest accuses whatever it lists there.
      assert path.name in corruption or path.name == MANIFEST, (path, corruption)
    path.write_bytes(whole)
  assert found > 20


@pytest.mark.parametrize(
  'corrupt, words',
  [
    (lambda p: p.write_bytes(p.read_bytes()[:-1]), 'is not what was written'),
    (lambda p: p.unlink(), 'is missing'),
    (lambda p: (p.parents[1] / 'manifest.json').unlink(), 'it has no manifest.json'),
  ],
)
def test_the_checkpoint_before_a_corrupted_one_is_restored(copied, corrupt, words):
  data = copied / 'checkpoints' / '2' / 'default' / 'd'
  corrupt(max(data.iterdir(), key=lambda p: p.stat().st_size))
  assert restore_subtrees(copied, IMAGES)[0]['images'] == 8
  with pytest.raises(UserError, match=f'checkpoint 2 of .*{words}'):
    restore_subtrees(copied, IMAGES, 2)
  with opened(copied) as checkpoints:
    assert checkpoints.newest() == 1
    (message,) = checkpoints.messages
    assert 'checkpoint 2' in message and words in message
    assert_equal(checkpoints.restore(1, LIKE), tree(1))
    assert checkpoints.save(2, tree(2)) and checkpoints.wait()
    assert checkpoints.newest() == 2
  assert (copied / 'corrupted' / '2' / 'default').is_dir()


def test_a_disk_that_cannot_be_read_sets_no_checkpoint_aside(copied, monkeypatch):
  def fail(file, name):
    raise OSError(errno.EIO, os.strerror(errno.EIO), file.name)

  before = sorted(copied.rglob('*'))
  with opened(copied) as checkpoints, monkeypatch.context() as patch:
    patch.setattr(hashlib, 'file_digest', fail)
    with pytest.raises(OSError, match='Input/output error'):
      checkpoints.newest()
  assert sorted(copied.rglob('*')) == before and checkpoints.messages == []
  with opened(copied) as checkpoints:
    assert checkpoints.newest() == 2


def test_a_run_does_not_restart_if_all_checkpoints_are_corrupted(copied):
  for step in (1, 2):
    (copied / 'checkpoints' / str(step) / 'default' / 'manifest.json').write_text('[]')
  with (
    opened(copied) as checkpoints,
    pytest.raises(UserError, match='every checkpoint'),
  ):
    checkpoints.newest()


def test_which_checkpoints_are_kept(tmp_path):
  with opened(tmp_path, 2, keep_periodic=2, spacing=4, best=1) as checkpoints:
    for step in range(1, 12):
      score = {3: 9.0, 6: float('nan')}.get(step, 1 / step)
      assert checkpoints.save(step, {'a': jnp.zeros(2)}, score)
    checkpoints.wait()
    # The best, two periodic ones, the newest two. A NaN is no score.
    assert checkpoints.steps() == [3, 8, 10, 11]
  with opened(tmp_path, 2, keep_periodic=2, spacing=4, best=1) as checkpoints:
    checkpoints.save(12, {'a': jnp.zeros(2)})
    checkpoints.wait()
    assert {3, 11, 12} <= set(checkpoints.steps())


def test_a_full_disk_is_logged_and_the_next_save_succeeds(tmp_path):
  # In a process of its own: Orbax leaves threads and an event loop of the failed save.
  done = run_program(Path(__file__).parent / 'programs' / 'full_disk.py', tmp_path)
  assert done.stdout.strip() == 'completed', done.stderr


def test_a_reader_does_not_touch_a_save_in_progress(copied):
  part = copied / 'checkpoints' / '3.orbax-checkpoint-tmp'
  part.mkdir()
  assert restore_subtrees(copied, IMAGES)[0]['images'] == 16
  assert part.is_dir()


def test_a_second_writer_is_rejected(tmp_path):
  refused = pytest.raises(UserError, match=r'in use .*"pid": \d+')
  with lock_workdir(tmp_path), refused, lock_workdir(tmp_path):
    pass
  with lock_workdir(tmp_path):
    pass


def test_a_workdir_that_cannot_be_written_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  refused = pytest.raises(UserError, match='cannot be written: Not a directory')
  with refused, lock_workdir(tmp_path / 'file' / 'run'):
    pass
