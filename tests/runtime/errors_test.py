"""What ends a command: a sentence and a code that says who can correct it."""

import errno
import os

import pytest

from gan_jax import UserError
from gan_jax.runtime.errors import raise_as_user_error, report_failure, run_command
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


@pytest.mark.parametrize('name', ['EACCES', 'ENOSPC'])
def test_a_folder_that_cannot_be_written_is_the_users_unless_it_may_pass(name):
  error = os_error(name, '/data/x')
  if name == 'ENOSPC':
    raise_as_user_error(error, '--workdir=x cannot be written')
    return
  with pytest.raises(UserError, match='^--workdir=x cannot be written: Permission den'):
    raise_as_user_error(error, '--workdir=x cannot be written')


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
