"""Folders of gan_jax that lie among the images: runs and prepared sets."""

import bisect
import json
from collections.abc import Iterator, Sequence

from gan_jax import UserError
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.listing import FileList

_MAX_MANIFEST_BYTES = 2**28


def leave_out_own_folders(listing: FileList) -> None:
  """Moves the files of runs and prepared sets from `files` to `ignored`.

  Raises:
    UserError: the source itself is one of them.
  """
  names = sorted(listing.files)
  for folder, kind in [*_runs(names), *_prepared_sets(listing, names)]:
    if not folder:
      raise UserError(f'{listing.path} {kind}, not a folder or zip of images.')
    inside = [n for n in names_below(names, folder) if n in listing.files]
    listing.ignore_listed(inside, folder, kind)


def names_below(names: Sequence[str], folder: str) -> Iterator[str]:
  """The sorted names that start with `folder`."""
  for i in range(bisect.bisect_left(names, folder), len(names)):
    if not names[i].startswith(folder):
      return
    yield names[i]


def _runs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
  known = set[str]()
  folders = [n.removesuffix('config.json') for n in names if _is_file(n, 'config.json')]
  for folder in folders:
    known = known or set(names)
    if (
      f'{folder}run.json' in known
      or f'{folder}starts.jsonl' in known
      or any(names_below(names, f'{folder}checkpoints/'))
    ):
      yield folder, 'is the workdir of a run of gan_jax'


def _prepared_sets(
  listing: FileList, names: Sequence[str]
) -> Iterator[tuple[str, str]]:
  for name in names:
    if _is_file(name, 'manifest.json') and _is_manifest(listing, name):
      yield name.removesuffix('manifest.json'), 'is a set prepared by gan_jax.prepare'
  for name in list(listing.ignored):
    if name.endswith('.partial/.work/'):
      yield name.removesuffix('.work/'), 'is an unfinished set of gan_jax.prepare'


def _is_file(path: str, name: str) -> bool:
  return path == name or path.endswith(f'/{name}')


def _is_manifest(listing: FileList, name: str) -> bool:
  try:
    manifest = json.loads(listing.read(name, _MAX_MANIFEST_BYTES))
  except (UnusableImageError, ValueError):
    return False
  return isinstance(manifest, dict) and {'levels', 'source_state'} <= manifest.keys()
