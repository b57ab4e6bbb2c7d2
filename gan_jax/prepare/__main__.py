"""Runs gan_jax.prepare as a command."""

import sys

from gan_jax.prepare import main
from gan_jax.runtime.errors import run_command

if __name__ == '__main__':
  try:
    run_command(main)
  except OSError as error:  # a full disk, missing permissions
    print(f'error: {error}; run the same command again to resume.', file=sys.stderr)
    raise SystemExit(1) from None
