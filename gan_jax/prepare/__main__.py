"""See gan_jax.prepare."""

import sys

from gan_jax.prepare import main
from gan_jax.runtime.errors import run_command

if __name__ == '__main__':
  try:
    run_command(main)
  except OSError as error:  # a full disk, a folder that is not ours
    print(f'error: {error}; the same command goes on.', file=sys.stderr)
    raise SystemExit(1) from None
