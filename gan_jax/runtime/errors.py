"""What ends a command: mistakes of the user are one sentence and exit code 2."""

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable

from gan_jax.runtime.exit_codes import USER_ERRNOS, ExitCode


class UserError(ValueError):
  """A mistake in the user's input; printed as one sentence, without a traceback.

  Raised from an OSError that may pass, such as a full disk, it is none: the exit code
  then asks to start again.
  """


def closest(word: str, candidates: Iterable[str], n: int = 1) -> list[str]:
  """At most `n` candidates that resemble `word`, the closest first."""
  return difflib.get_close_matches(word, list(candidates), n)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
  """' (did you mean 'x'?)' for the candidate closest to `word`; '' if none is close."""
  close = closest(word, candidates)
  return f' (did you mean {close[0]!r}?)' if close else ''


def passing_errno(error: BaseException | None) -> int:
  """The number of an OSError, or of one behind a UserError, that may pass; else 0."""
  if isinstance(error, UserError):
    error = error.__cause__
  number = error.errno if isinstance(error, OSError) and error.errno else 0
  return number if number > 0 and number not in USER_ERRNOS else 0


def report_failure(error: BaseException) -> ExitCode:
  """Prints why a command ends, and returns its exit code.

  UserError and errors of files are one sentence, anything else is a traceback.
  """
  if isinstance(error, UserError):
    print(f'error: {error}', file=sys.stderr)
    return ExitCode.TRANSIENT if passing_errno(error) else ExitCode.USER_ERROR
  if not isinstance(error, OSError) or error.filename is None:
    traceback.print_exception(error)
    return ExitCode.TRANSIENT
  sentence = f'error: {error.filename}: {error.strerror}'
  if error.errno in USER_ERRNOS:
    print(f'{sentence}: check the path and its permissions.', file=sys.stderr)
    return ExitCode.USER_ERROR
  print(f'{sentence}; run the same command again to go on.', file=sys.stderr)
  return ExitCode.TRANSIENT


def run_command(main: Callable[[], None]) -> None:
  """Runs `main`; ends the process with an `ExitCode` if it raises an error.

  An error that is neither the user's nor the operating system's is not caught.
  """
  try:
    main()
  except (UserError, OSError) as error:
    sys.exit(report_failure(error))
