"""Mistakes of the user: one sentence, and exit code 2."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
  """A mistake in the user's input; printed as one sentence, without a traceback."""


def closest(word: str, candidates: Iterable[str], n: int = 1) -> list[str]:
  """At most `n` candidates that resemble `word`, the closest first."""
  return difflib.get_close_matches(word, list(candidates), n)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
  """' (did you mean 'x'?)' for the candidate closest to `word`; '' if none is close."""
  close = closest(word, candidates)
  return f' (did you mean {close[0]!r}?)' if close else ''


def run_command(main: Callable[[], None]) -> None:
  """Runs `main`; a UserError is printed and ends the process with exit code 2."""
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
