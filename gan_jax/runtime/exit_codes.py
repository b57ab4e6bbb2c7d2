"""Exit codes of all commands, made for schedulers; docs/pods.md has the table."""

import enum
import errno


class ExitCode(enum.IntEnum):
  """How a command ended. A code of 128 + n means: killed by signal n."""

  FINISHED = 0
  USER_ERROR = 2  # only the user can correct it; starting again would not help
  STOPPED = 42  # stopped on request before the end: start again
  INTERRUPTED = 130  # by a second Ctrl-C, or by one while nothing could be saved
  TRANSIENT = 250  # any other failure: start again


def asks_for_restart(code: int) -> bool:
  """Whether a scheduler should start the command again: xpk's rule.

  Killed processes end above 128, among them those that JAX aborts because another
  process of their job is lost (134).
  """
  return code == ExitCode.STOPPED or 127 <= code <= 255


# Errors of the operating system that only the user can correct: a wrong path or
# address, missing permissions. Others may pass: a full disk, a failed read, a timeout.
USER_ERRNOS = frozenset(
  (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.EINVAL),
    *(errno.EADDRINUSE, errno.EADDRNOTAVAIL),
  )
)
