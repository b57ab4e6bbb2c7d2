"""Saves checkpoints before, while and after files cannot grow.

usage: full_disk.py WORKDIR
"""

import resource
import sys

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
  (message,) = checkpoints.messages
  assert 'File too large' in message
  assert [p.name for p in checkpoints.folder.iterdir()] == ['1']
  assert checkpoints.save(3, third) and checkpoints.wait()
  assert not checkpoints.poll()
  assert checkpoints.newest() == 3
  assert_equal(checkpoints.restore(3, LIKE), third)
print('completed')
