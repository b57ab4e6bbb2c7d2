"""What ends a command: a sentence and a code that says who can correct it."""

import errno
import os

import pytest

from gan_jax import UserError
from gan_jax.runtime.errors import report_failure, run_command
from gan_jax.runtime.exit_codes import ExitCode

USERS = ('ENOENT', 'ENOTDIR', 'EISDIR', 'EEXIST', 'EACCES', 'EPERM', 'EROFS')
PASSING = ('ENOSPC', 'EDQUOT', 'EIO', 'ESTALE', 'ETIMEDOUT', 'EMFILE')


def os_error(name, *path):
  code = getattr(errno, name)
  return OSError(code, os.strerror(code), *path)


@pytest.mark.parametrize('name', [*USERS, *PASSING, 'ENAMETOOLONG', 'ELOOP'])
def test_errors_of_files_are_one_sentence(name, capsys):
  def command():
    raise os_error(name, '/data/x')

  with pytest.raises(SystemExit) as exit:
    run_command(command)
  passing = name in PASSING
  assert exit.value.code == (ExitCode.TRANSIENT if passing else ExitCode.USER_ERROR)
  err = capsys.readouterr().err
  assert err.startswith(f'error: /data/x: {os.strerror(getattr(errno, name))}')
  assert ('run the same command again' in err) == passing
  assert err.count('\n') == 1


@pytest.mark.parametrize('name', [*USERS, *PASSING, 'EADDRINUSE', 'EINVAL'])
def test_the_error_behind_a_sentence_decides_the_code(name, capsys):
  def command():
    try:
      raise os_error(name, '/data/x')
    except OSError as error:
      raise UserError('x cannot be written.') from error

  with pytest.raises(SystemExit) as exit:
    run_command(command)
  passing = name in PASSING
  assert exit.value.code == (ExitCode.TRANSIENT if passing else ExitCode.USER_ERROR)
  assert capsys.readouterr().err == 'error: x cannot be written.\n'


def test_other_errors_have_a_traceback(capsys):
  assert report_failure(UserError('a flag is wrong.')) == ExitCode.USER_ERROR
  assert capsys.readouterr().err == 'error: a flag is wrong.\n'
  for error in (RuntimeError('peer lost'), ConnectionError(errno.ECONNRESET, 'reset')):
    assert report_failure(error) == ExitCode.TRANSIENT
    assert type(error).__name__ in capsys.readouterr().err


def test_a_command_does_not_hide_its_own_errors():
  def command():
    raise KeyError('x')

  with pytest.raises(KeyError):
    run_command(command)
