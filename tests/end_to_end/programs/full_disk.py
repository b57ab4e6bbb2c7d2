"""Trains while files cannot grow: first until step 5, then to the end.

usage: full_disk.py WORKDIR WORKDIR
"""

import os
import resource
import sys
from pathlib import Path

from gan_jax import UserError
from gan_jax.storage.checkpoint import Checkpointer
from tests.end_to_end.fault_tolerance_test import small_config
from tests.runs import train

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
save = Checkpointer.save
full_before = 5


def save_on_full_disk(self, step, *args, **kwargs):
  # The limit is set no earlier because compiled programs are written as well.
  limit = 4000 if step < full_before else soft
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  return save(self, step, *args, **kwargs)


Checkpointer.save = save_on_full_disk
briefly_full, always_full = (Path(folder) for folder in sys.argv[1:])
state = train(small_config(train__images=48, log__checkpoint_every=16), briefly_full)
assert int(state.step) == 6
assert Checkpointer(briefly_full, read_only=True).newest() == 6
print('recovered')
full_before = 100
try:
  train(small_config(), always_full)
except UserError as error:
  print(error, flush=True)
os._exit(0)  # as the command does: the threads of a failed save may never end
