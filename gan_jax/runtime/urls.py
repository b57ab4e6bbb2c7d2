"""URLs of object stores, such as gs://bucket/runs/a, as opposed to paths of files."""

import re

from gan_jax.runtime.errors import UserError, did_you_mean

STORES = ('gs', 's3')  # Google Cloud Storage; Amazon S3 and stores that speak like it


def is_url(text: str) -> bool:
  """Whether `text` is a URL, or one that a wrong number of slashes spoils.

  A colon elsewhere is part of a name: 'runs/a:b' and 'C:x' are paths.
  """
  return re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text) is not None or (
    re.match(rf'({"|".join(STORES)}):/', text, re.IGNORECASE) is not None
  )


def check_path(text: str) -> str:
  """A path of the local file system, as it is.

  Raises:
    UserError: it is a URL.
  """
  if is_url(text):
    raise UserError(
      f'{text} is a URL, and a path of a file or folder on this machine is needed here.'
    )
  return text


def check_url(text: str, *, bucket_alone: bool = False) -> str:
  """A URL of a folder in a store, without a slash at its end.

  Args:
    bucket_alone: a whole bucket, such as gs://bucket, is allowed too.

  Raises:
    UserError: another scheme, a wrong number of slashes, or no name below the bucket.
  """
  scheme, _, rest = text.partition(':')
  lower = scheme.lower()
  if lower not in STORES:
    stores = ' and '.join(f'{store}://BUCKET/NAME' for store in STORES)
    raise UserError(
      f'{text}: {scheme}:// is not supported{did_you_mean(lower, STORES)}; allowed are '
      f'folders of this machine and {stores}.'
    )
  bucket, _, name = rest.strip('/').partition('/')
  parts = [part for part in name.split('/') if part]
  default = [] if bucket_alone else ['NAME']
  right = '/'.join([f'{lower}://{bucket or "BUCKET"}', *(parts or default)])
  if not rest.startswith('//') or rest.startswith('///'):
    raise UserError(f'{text}: two slashes follow {scheme}:, as in {right}.')
  if not bucket or not (parts or bucket_alone):
    missing = 'a name below the bucket' if bucket else 'a bucket'
    raise UserError(f'{text} lacks {missing}: write {right}.')
  if {'.', '..'} & set(parts):
    raise UserError(f'{text}: a store has no folders "." and "..": write them out.')
  return right
