"""One of two processes that compare their datasets.

usage: check_hosts.py ADDRESS PROCESS OUT FOLDER...

Calls check_hosts for each folder in turn, and writes an answer a line to OUT: 'same',
or the error. (Not to stdout, where gloo writes too.)
"""

import sys
from pathlib import Path

import jax

from gan_jax import UserError, data


def check(folder: str) -> str:
  try:
    data.check_hosts(data.load_dataset(folder, res=16, channels=3))
  except UserError as error:
    return str(error)
  return 'same'


if __name__ == '__main__':
  address, process, out, *folders = sys.argv[1:]
  jax.distributed.initialize(address, 2, int(process))
  Path(out).write_text('\n'.join(map(check, folders)))
  jax.distributed.shutdown()
