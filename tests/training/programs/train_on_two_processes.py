"""Trains as one of two processes, by both mappings; process 0 writes the final states.

Arguments: the coordinator's address, the number of this process, the output folder.
"""

import sys
from pathlib import Path

import jax
import numpy as np

import gan_jax  # noqa: F401 sets XLA flags, so it comes before jax
from tests.training import step_test


def main(address: str, process: str, folder: str) -> None:
  jax.config.update('jax_numpy_rank_promotion', 'raise')
  jax.distributed.initialize(address, 2, int(process))
  for mapped in ('pmap', 'jit'):
    state, _ = step_test.trained_over_processes(mapped)
    if jax.process_index() == 0:
      leaves = [np.asarray(x.addressable_data(0)) for x in jax.tree.leaves(state)]
      np.savez(Path(folder, f'{mapped}.npz'), *leaves)


if __name__ == '__main__':
  main(*sys.argv[1:])
