"""Folders that are object stores, mounted by FUSE: renames there are not atomic."""

import re
from pathlib import Path
from typing import NamedTuple

from gan_jax.runtime.urls import STORES

_MOUNTS = Path('/proc/self/mountinfo')
_SCHEMES = {  # program -> how the URLs of its stores may begin
  'gcsfuse': ('gs',),
  's3fs': ('s3',),
  'goofys': ('s3',),
  'geesefs': ('s3',),
  'mountpoint-s3': ('s3',),
  'ossfs': ('s3',),
  'cosfs': ('s3',),
  'obsfs': ('s3',),
  'rclone': STORES,
  'blobfuse': (),
  'blobfuse2': (),
}
_PLAIN = ('fuse', 'macfuse', 'osxfuse')  # programs that do not give their name


class Mount(NamedTuple):
  """A line of /proc/self/mountinfo.

  Attributes:
    point: the folder.
    kind: of the file system, such as 'ext4' or 'fuse.gcsfuse'.
    source: what is mounted, in the words of its program.
  """

  point: Path
  kind: str
  source: str


def read_mounts(text: str) -> list[Mount]:
  """Reads the content of /proc/self/mountinfo; lines of another form are left out."""
  mounts = []
  for line in text.splitlines():
    before, _, after = line.partition(' - ')
    left, right = before.split(' '), after.split(' ')
    if len(left) >= 6 and len(right) >= 2:
      mounts.append(Mount(Path(_unescape(left[4])), right[0], _unescape(right[1])))
  return mounts


def find_mount(folder: Path, mounts: list[Mount]) -> Mount | None:
  """The mount that a folder is in; of several at one place the last, which covers it.

  Args:
    folder: absolute, without symbolic links.
  """
  around = [mount for mount in mounts if folder.is_relative_to(mount.point)]
  return max(reversed(around), key=lambda m: len(m.point.parts), default=None)


def store_program(mount: Mount) -> str:
  """The program that mounts an object store; '' if it is something else."""
  kind = mount.kind.removeprefix('fuse.')
  if kind in _SCHEMES:
    return kind
  if mount.kind in _PLAIN:  # goofys gives the name of the bucket only
    return mount.source if mount.source in _SCHEMES else 'goofys'
  return ''


def mount_warning(workdir: Path, mountinfo: Path = _MOUNTS) -> str:
  """A sentence if a workdir is in a mounted object store, else ''."""
  try:
    mounts = read_mounts(mountinfo.read_text(errors='surrogateescape'))
    mount = find_mount(workdir.resolve(), mounts)
  except OSError:
    return ''
  program = store_program(mount) if mount else ''
  if not mount or not program:
    return ''
  urls = [f'--workdir={scheme}://BUCKET/NAME' for scheme in _SCHEMES[program]]
  return (
    f'--workdir={workdir} is in a {program} mount ({mount.point}), where a rename is '
    'not atomic, and a kill can leave half a file: take '
    f'{" or ".join([*urls, "a folder on a disk"])}.'
  )


def _unescape(text: str) -> str:
  r"""'\040' is a space, as the kernel writes it."""
  return re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), text)
