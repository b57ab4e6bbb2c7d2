"""Where samples may be written: checks that come before anything is computed."""

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Literal

from gan_jax import UserError
from gan_jax.runtime.errors import did_you_mean
from gan_jax.sampling.animation import ANIMATIONS, check_animation

FILES = ('.png', '.npz', *ANIMATIONS)
NUMBERED = re.compile(r'[0-9]+\.png', re.IGNORECASE)
WRITTEN_HERE = re.compile(r'[0-9]{6}\.png|[1-9][0-9]{6,}\.png')  # by `write_images`

Existing = Literal['', 'append', 'replace']  # what to do with images of a folder


def output_format(out: Path) -> str:
  """'.png', '.npz' or that of an animation, in lower case; '' for a folder.

  An ending that begins with a digit, as in samples_psi0.7, belongs to a folder's name,
  and so does any ending of a folder that exists.

  Raises:
    UserError: another ending.
  """
  ending = out.suffix.lower()
  if out.name.lower() in FILES:
    raise UserError(f'--out={out}: a name is needed before the {out.name}.')
  if ending in FILES:
    return ending
  if not ending or ending[1:2].isdigit() or os.path.isdir(out):
    return ''
  raise UserError(
    f'--out={out}: end it in {", ".join(FILES)}{did_you_mean(ending, FILES)}, or name '
    'a folder; one whose name ends like this has to exist before.'
  )


def check_output(out: Path, fps: float = 24, existing: Existing = '') -> None:
  """Checks what `image_io.write_images` needs, before anything is computed.

  Raises:
    UserError: unknown ending, a package is missing, `fps` is out of range, `out` cannot
      be written, or is a folder with numbered images and `existing` does not say what
      to do with them.
  """
  kind = output_format(out)
  try:
    check_writable(out, is_folder=not kind)
    if not kind:
      _check_numbered(out, existing)
  except OSError as error:
    raise cannot_write(out, error) from error
  if kind and existing == 'append':
    raise UserError(f'--append is for folders, and --out={out} is a file.')
  if not 0 < fps < float('inf'):
    raise UserError(f'--fps={fps}: it must be above 0.')
  if kind in ANIMATIONS:
    check_animation(kind, fps)


def cannot_write(out: Path, error: OSError) -> UserError:
  return UserError(f'{out} cannot be written: {error.strerror or error}.')


def check_writable(out: Path, is_folder: bool = False) -> None:
  """Checks that `out` can be written; leaves nothing behind.

  Folders above it need not exist.

  Raises:
    UserError: something else has this name.
    OSError: it cannot be written.
  """
  if os.path.isdir(out) != is_folder and os.path.lexists(out):
    found, needed = ('file', 'folder') if is_folder else ('folder', 'file')
    raise UserError(f'{out} is a {found}, not a {needed}: take another name.')
  part = f'{out.stem}.{os.getpid()}.part{out.suffix}'  # as long as a temporary name
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    os.lstat(out if is_folder else out.with_name(f'.{part}'))
  folder = out if is_folder else out.parent
  while not os.path.lexists(folder):
    folder = folder.parent
  if not os.path.isdir(folder):
    raise UserError(f'{out} cannot be written: {folder} is not a folder.')
  with tempfile.TemporaryFile(dir=folder):
    pass


def _check_numbered(out: Path, existing: Existing) -> None:
  """Checks that no images of another command end up between new ones.

  Raises:
    UserError: the folder has numbered images, and `existing` does not say what to do.
  """
  names = numbered_images(out)
  if existing == 'replace':
    names = [name for name in names if not WRITTEN_HERE.fullmatch(name)]
    if names:
      raise UserError(
        f'--replace: {out} holds {names[0]}, which gan_jax.sample did not write: take '
        'another folder, or --append.'
      )
  elif names and existing != 'append':
    count = '1 numbered image' if len(names) == 1 else f'{len(names)} numbered images'
    raise UserError(
      f'{out} already holds {count} ({names[0]} to {names[-1]}): take another folder, '
      '--append to number on after them, or --replace to remove them.'
    )


def numbered_images(folder: Path) -> list[str]:
  """Names such as 000012.png, by number."""
  if not folder.is_dir():
    return []
  names = [path.name for path in folder.iterdir() if NUMBERED.fullmatch(path.name)]
  return sorted(names, key=lambda name: int(name[:-4]))
