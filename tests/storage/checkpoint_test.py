"""Checkpoints: damage is never silent, the right ones stay, one writer at a time."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.storage.checkpoint import (
  MANIFEST,
  Checkpointer,
  find_corruption,
  restore_ema,
)
from gan_jax.storage.lock import lock_workdir


def tree(step):
  a = jax.random.normal(jax.random.key(step), (3000,))
  return {'a': a, 'ema': {'x': a[:20] + 1}, 'images': jnp.uint32(step * 8)}


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0))


@contextlib.contextmanager
def opened(workdir, *args, **kw):
  said = []
  checkpoints = Checkpointer(workdir, *args, log=said.append, **kw)
  checkpoints.said = said
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


def test_a_flipped_byte_is_found_or_harmless(copied, rng_seed):
  rng = np.random.default_rng(rng_seed)
  files = sorted(p for p in (copied / 'checkpoints' / '2').rglob('*') if p.is_file())
  files = [p for p in files if p.stat().st_size]
  found = 0
  for path in [*files, *rng.choice(files, 20)]:
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path.write_bytes(flipped)
    complaint = find_corruption(copied / 'checkpoints' / '2')
    found += complaint is not None
    if complaint is None:
      with opened(copied) as checkpoints:
        assert_equal(checkpoints.restore(2, LIKE), tree(2))
    else:
      # A flip in the manifest accuses whatever it lists there.
      assert path.name in complaint or path.name == MANIFEST, (path, complaint)
    path.write_bytes(whole)
  assert found > 20


@pytest.mark.parametrize(
  'harm, words',
  [
    (lambda p: p.write_bytes(p.read_bytes()[:-1]), 'is not what was written'),
    (lambda p: p.unlink(), 'is missing'),
    (lambda p: (p.parents[1] / 'manifest.json').unlink(), 'it has no manifest.json'),
  ],
)
def test_the_one_before_a_damaged_one_is_taken(copied, harm, words):
  data = copied / 'checkpoints' / '2' / 'default' / 'd'
  harm(max(data.iterdir(), key=lambda p: p.stat().st_size))
  assert restore_ema(copied, LIKE['ema'])[1] == 8
  with pytest.raises(UserError, match=f'checkpoint 2 of .*{words}'):
    restore_ema(copied, LIKE['ema'], 2)
  with opened(copied) as checkpoints:
    assert checkpoints.newest() == 1
    (said,) = checkpoints.said
    assert 'checkpoint 2' in said and words in said
    assert_equal(checkpoints.restore(1, LIKE), tree(1))
    assert checkpoints.save(2, tree(2)) and checkpoints.wait()
    assert checkpoints.newest() == 2
  assert (copied / 'corrupted' / '2' / 'default').is_dir()


def test_nothing_is_started_anew_over_damage(copied):
  for step in (1, 2):
    (copied / 'checkpoints' / str(step) / 'default' / 'manifest.json').write_text('[]')
  with (
    opened(copied) as checkpoints,
    pytest.raises(UserError, match='every checkpoint'),
  ):
    checkpoints.newest()


def test_which_ones_stay(tmp_path):
  with opened(tmp_path, 2, keep_periodic=2, spacing=4, best=1) as checkpoints:
    for step in range(1, 12):
      score = {3: 9.0, 6: float('nan')}.get(step, 1 / step)
      assert checkpoints.save(step, {'a': jnp.zeros(2)}, score)
    checkpoints.wait()
    # The best, two of the ring, the newest two. A score that is no number counts not.
    assert checkpoints.steps() == [3, 8, 10, 11]
  with opened(tmp_path, 2, keep_periodic=2, spacing=4, best=1) as checkpoints:
    checkpoints.save(12, {'a': jnp.zeros(2)})
    checkpoints.wait()
    assert {3, 11, 12} <= set(checkpoints.steps())


FULL = """
import resource, sys
from tests.storage.checkpoint_test import LIKE, assert_equal, opened, tree

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
with opened(sys.argv[1]) as checkpoints:
  first, second, third = tree(1), tree(2), tree(3)
  assert checkpoints.save(1, first) and checkpoints.wait()
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
  checkpoints.save(2, second)
  assert not checkpoints.wait()
  assert checkpoints.poll()
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  (said,) = checkpoints.said
  assert 'File too large' in said
  assert [p.name for p in checkpoints.folder.iterdir()] == ['1']
  assert checkpoints.save(3, third) and checkpoints.wait()
  assert not checkpoints.poll()
  assert checkpoints.newest() == 3
  assert_equal(checkpoints.restore(3, LIKE), third)
print('all of it')
"""


def test_a_full_disk_is_told_and_tried_again(tmp_path):
  # In a process of its own: orbax leaves threads and an event loop of the failed save.
  tests = Path(__file__).parents[2]
  done = subprocess.run(
    [sys.executable, '-c', FULL, str(tmp_path)],
    cwd=tests,
    env={**os.environ, 'PYTHONPATH': f'{tests.parent}:{tests}'},
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == 'all of it', done.stderr


def test_a_reader_leaves_a_save_in_flight_alone(copied):
  part = copied / 'checkpoints' / '3.orbax-checkpoint-tmp'
  part.mkdir()
  assert restore_ema(copied, LIKE['ema'])[1] == 16
  assert part.is_dir()


def test_another_writer_is_refused(tmp_path):
  refused = pytest.raises(UserError, match=r'in use .*"pid": \d+')
  with lock_workdir(tmp_path), refused, lock_workdir(tmp_path):
    pass
  with lock_workdir(tmp_path):
    pass


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  refused = pytest.raises(UserError, match='cannot be written: Not a directory')
  with refused, lock_workdir(tmp_path / 'file' / 'run'):
    pass
