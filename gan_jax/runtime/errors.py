"""Mistakes of the user: one sentence, and exit code 2."""

import sys
from collections.abc import Callable


class UserError(ValueError):
  """A mistake in what the user asked for; printed as one sentence, no traceback."""


def run_command(main: Callable[[], None]) -> None:
  """Runs `main`; a UserError is printed and ends the process with exit code 2."""
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
