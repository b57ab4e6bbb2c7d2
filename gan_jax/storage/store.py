"""Objects of a store, below a URL such as gs://bucket/runs/a: a thin layer on fsspec.

It tells errors apart: what only the user can mend is a UserError; what passes by
itself (a store that answers 429 or 503, a lost connection) is tried again.
"""

import base64
import contextlib
import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gan_jax import UserError
from gan_jax.runtime.urls import check_url

T = TypeVar('T')

PATIENCE = 120.0  # seconds of failures after which an operation fails
_PASSING = re.compile(
  r'\b(408|429|500|502|503|504)\b|SlowDown|TooManyRequests|Too Many|[Tt]imed? ?out|'
  r'reduce your request rate|Unavailable|Connect|disconnected|Reset',
)
_UNKNOWN_USER = (
  r'Credentials|RefreshError|\b401\b|Anonymous|InvalidAccessKey|ExpiredToken|'
  r'InvalidToken|TokenRefreshRequired|SignatureDoesNotMatch|ProfileNotFound|SSO'
)
_LOGIN = {
  'gs': 'gcloud auth application-default login, or $GOOGLE_APPLICATION_CREDENTIALS',
  's3': 'aws configure, or $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY',
}
_EXTRAS = {'gs': 'gcs', 's3': 's3'}


class StoredFile(NamedTuple):
  """What is known of a file without reading it.

  Attributes:
    size: in bytes.
    identity: changes whenever the file is written.
    md5: of the content, in hexadecimal; '' if unknown.
  """

  size: int
  identity: str
  md5: str = ''


class Store:
  """The objects whose names begin with `url`; names are relative to it.

  Attributes:
    url: of the folder, without a slash at its end.
  """

  def __init__(self, url: str, patience: float = PATIENCE):
    """
    Raises:
      UserError: a mistake in the URL, no credentials, or a package is not installed.
    """
    self.url, self._patience = check_url(url), patience
    self._scheme, _, self._root = self.url.partition('://')
    self._fs = _open_file_system(self.url, self._scheme)

  def list(self, below: str = '') -> dict[str, StoredFile]:
    """The objects below a name, by their names.

    Raises:
      UserError: there is no such bucket, or no permission.
    """
    found = self._try('listed', below, lambda: self._list(below))
    return {name[len(self._root) + 1 :]: _stored(x) for name, x in found.items()}

  def _list(self, below: str) -> dict[str, Any]:
    folder = f'{self._root}/{below}'.rstrip('/')
    try:
      found = self._fs.find(folder, detail=True)
    except FileNotFoundError:
      found = {}
    if not found:  # an empty folder, or no bucket
      bucket = self._root.partition('/')[0]
      try:
        self._fs.ls(bucket, detail=False)
      except FileNotFoundError:
        raise UserError(
          f'{self.url}: there is no bucket {bucket!r}: create it, or correct the URL.'
        ) from None
      except Exception as error:
        if not self._denial(error):
          raise
        # There is a bucket, of which this user may list this folder only.
    return {
      name: x
      for name, x in found.items()
      if name.startswith(f'{folder}/') and name[-1] != '/'  # as web pages mark folders
    }

  def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
    """The content of an object, from byte `start` up to `end`."""
    part = dict(start=start, end=end) if start or end is not None else {}
    return self._try('read', name, lambda: self._fs.cat_file(self._path(name), **part))

  def write(self, name: str, content: bytes) -> None:
    self._try('written', name, lambda: self._fs.pipe_file(self._path(name), content))

  def create(self, name: str, content: bytes) -> bool:
    """Writes an object unless there is one; returns whether this call did."""

    def create() -> bool:
      try:
        self._fs.pipe_file(self._path(name), content, mode='create')
      except FileExistsError:  # perhaps by an attempt whose answer was lost
        return self._fs.cat_file(self._path(name)) == content
      return True

    return self._try('written', name, create)

  def upload(self, file: Path, name: str) -> None:
    self._try('written', name, lambda: self._fs.put_file(str(file), self._path(name)))

  def download(self, name: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    self._try('read', name, lambda: self._fs.get_file(self._path(name), str(file)))

  def move(self, name: str, to: str) -> None:
    def move() -> None:
      self._fs.cp_file(self._path(name), self._path(to))

    self._try('written', to, move)
    self.delete([name])

  def delete(self, names: Iterable[str]) -> None:
    """Deletes objects, in this order; those that do not exist are passed over."""

    def delete(name: str) -> None:
      with contextlib.suppress(FileNotFoundError):
        self._fs.rm_file(self._path(name))

    for name in names:
      self._try('deleted', name, lambda name=name: delete(name))  # type: ignore[misc]

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}'

  def _try(self, doing: str, name: str, operation: Callable[[], T]) -> T:
    """Runs an operation, again and again while it fails for a passing reason.

    Raises:
      UserError: no bucket, no permission, no credentials, or another refusal.
      FileNotFoundError: there is no such object.
      OSError: anything else, among it a store that does not answer for `patience`.
    """
    began, pause = time.monotonic(), 0.5
    url = f'{self.url}/{name}'.rstrip('/')
    while True:
      try:
        return operation()
      except UserError:
        raise
      except FileNotFoundError as error:
        if doing == 'written':
          raise UserError(
            f'{url} cannot be written: there is no such bucket.'
          ) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
      except Exception as error:  # of each library, many types
        if reason := self._denial(error):
          raise UserError(f'{url} cannot be {doing}: {reason}.') from error
        text = _sentence(error)
        waited = time.monotonic() - began
        if not _passes(error):
          if _is_refusal(error):
            raise UserError(f'{url} cannot be {doing}: {text}.') from error
          raise OSError(errno.EREMOTEIO, text, url) from error
        if waited > self._patience:
          text = f'no answer for {waited:.0f} s ({text})'
          raise OSError(errno.ETIMEDOUT, text, url) from error
      time.sleep(pause * random.uniform(0.5, 1))
      pause = min(2 * pause, 8)

  def _denial(self, error: Exception) -> str:
    """Why the store refuses this user, and the next step; '' if it does not."""
    text = ' '.join(f'{type(e).__name__} {e} {_status(e)}' for e in _chain(error))
    if re.search(_UNKNOWN_USER, text):
      return _no_credentials(self._scheme, _sentence(error))
    if isinstance(error, PermissionError) or re.search(r'Forbidden|\b403\b', text):
      return f'no permission ({_sentence(error)}): ask for it, or take another bucket'
    return ''


def _no_credentials(scheme: str, reason: str) -> str:
  return f'there are no valid credentials ({reason}): {_LOGIN[scheme]}'


def _open_file_system(url: str, scheme: str) -> Any:
  """
  Raises:
    UserError: a package is not installed, or there are no credentials.
  """
  try:
    if scheme == 's3':
      from s3fs import S3FileSystem

      return S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    from gcsfs.core import GCSFileSystem
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError, TransportError
  except ImportError as error:
    raise UserError(
      f"{scheme}:// needs a package: pip install 'gan_jax[{_EXTRAS[scheme]}]'."
    ) from error
  # It logs a traceback for each attempt, and `_try` says what matters.
  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)
  # The emulator of tests knows no users.
  token = 'anon' if os.environ.get('STORAGE_EMULATOR_HOST') else 'google_default'
  try:
    system = GCSFileSystem(
      token=token, use_listings_cache=False, skip_instance_cache=True
    )
    with contextlib.suppress(TransportError):  # no network: it may come back
      system.credentials.maybe_refresh()  # a request would try it for half a minute
    return system
  except (GoogleAuthError, HttpError) as error:
    raise UserError(f'{url}: {_no_credentials(scheme, _sentence(error))}.') from error


def _stored(info: dict[str, Any]) -> StoredFile:
  version = info.get('generation') or info.get('LastModified') or ''
  identity = f'{info["size"]} {info.get("etag") or info.get("ETag")} {version}'
  md5 = info.get('md5Hash')  # of Google; the ETag of S3 is one only sometimes
  return StoredFile(
    int(info['size']), identity, base64.b64decode(md5).hex() if md5 else ''
  )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  """An error and those behind it."""
  while error is not None:
    yield error
    error = error.__cause__


def _status(error: BaseException) -> int:
  """The status of an answer of gs:// (HttpError) or s3:// (ClientError); 0: none."""
  response = getattr(error, 'response', None)
  if isinstance(response, dict):
    return int(response.get('ResponseMetadata', {}).get('HTTPStatusCode', 0))
  code = str(getattr(error, 'code', ''))
  return int(code) if code.isdigit() else 0


def _passes(error: BaseException) -> bool:
  """Whether an error may pass by itself, such as an overload or a lost connection."""
  for e in _chain(error):
    if isinstance(e, ConnectionError | TimeoutError):
      return True
    if _PASSING.search(f'{type(e).__name__} {_status(e)} {e}'):
      return True
    if isinstance(e, OSError) and e.errno in (errno.EBUSY, errno.EREMOTEIO):
      return True
  return False


def _is_refusal(error: BaseException) -> bool:
  """Whether the request itself is at fault, such as an invalid name of a bucket."""
  return any(
    400 <= _status(e) < 500
    or type(e).__name__ == 'ParamValidationError'  # of botocore, before it asks
    or str(e).startswith('Bad Request')  # of gcsfs
    for e in _chain(error)
  )


def _sentence(error: BaseException) -> str:
  """What an error says, as part of a sentence."""
  message = error.args[0] if error.args and isinstance(error.args[0], str) else error
  lines = str(message).strip().splitlines() or [type(error).__name__]
  # The store's own words follow after a line of the library.
  says_more = len(lines) > 1 and re.match('Forbidden|Bad Request|Parameter', lines[0])
  return lines[1 if says_more else 0].partition('. ')[0][:200].rstrip('.')
