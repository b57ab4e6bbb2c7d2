"""Runs gan_jax.prepare as a command."""

from gan_jax.prepare import main
from gan_jax.runtime.errors import run_command

if __name__ == '__main__':
  run_command(main)
