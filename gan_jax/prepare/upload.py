"""A prepared set goes to a store: written on this machine first, its manifest last."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gan_jax import UserError
from gan_jax.data.folder import ImageSource
from gan_jax.data.prepared import MANIFEST
from gan_jax.prepare.options import PrepareOptions
from gan_jax.storage.files import cache_folder
from gan_jax.storage.json_lines import append_json_lines, read_json_lines
from gan_jax.storage.store import Store

_THREADS = 8
_NOTES = 'uploaded.jsonl'


class Upload:
  """A prepared set on its way to a store; after a kill it goes on.

  Attributes:
    folder: of this machine, that the set is written to first.
  """

  def __init__(self, url: str):
    self._store = Store(url)
    self._url = self._store.url
    digest = hashlib.sha256(self._url.encode()).hexdigest()[:8]
    name = self._url.rpartition('/')[2]
    self._home = cache_folder('prepare') / f'{name}-{digest}'
    self.folder = self._home / name

  def check_dest(self) -> None:
    """Checks that the URL is free, or was begun by this machine.

    Raises:
      UserError: it is not, or the store cannot be read.
    """
    found = self._store.list()
    if MANIFEST in found:
      raise UserError(
        f'{self._url} is a prepared set already: delete it, or use another DEST.'
      )
    if found and not self._home.exists():
      raise UserError(f'{self._url} exists and is not empty: use a new DEST.')

  def write(
    self,
    source: ImageSource,
    options: PrepareOptions,
    write_dataset: Callable[[Path], dict[str, Any]],
  ) -> dict[str, Any]:
    """Writes a set here unless that is done, uploads it, and removes it here.

    Args:
      write_dataset: writes the set of `source` and `options` to a folder, and returns
        its manifest.

    Raises:
      UserError: as `write_dataset`; the store cannot be written; an upload from other
        images or with other options was interrupted.
    """
    file = self.folder / MANIFEST
    if file.is_file():
      manifest = json.loads(file.read_text())
      wanted = json.loads(json.dumps(dataclasses.asdict(options)))
      if [manifest['source_state'], manifest['options']] != [
        source.fingerprint,
        wanted,
      ]:
        raise UserError(
          f'{self._url} was begun with other images or options: go on with those, or '
          f'delete it and {self._home}.'
        )
    else:
      manifest = write_dataset(self.folder)
    self._upload()
    shutil.rmtree(self._home)
    return manifest

  def _upload(self) -> None:
    """Puts the files that are not in the store; the manifest when all others are."""
    there = self._store.list()
    noted = {line.get('file') for line in read_json_lines(self._home / _NOTES)}
    paths = sorted(path for path in self.folder.rglob('*') if path.is_file())
    sizes = {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in paths}
    done = {
      name
      for name, size in sizes.items()
      if name in noted and name in there and there[name].size == size
    }
    total = sum(sizes[name] for name in sizes if name not in done)
    with (
      tqdm(
        total=total, unit='B', unit_scale=True, desc='uploading', disable=None
      ) as bar,
      ThreadPoolExecutor(_THREADS) as pool,
    ):

      def put(name: str) -> None:
        self._store.upload(self.folder / name, name)
        append_json_lines(self._home / _NOTES, [{'file': name}])
        bar.update(sizes[name])

      try:
        missing = [name for name in sizes if name not in done and name != MANIFEST]
        for future in as_completed([pool.submit(put, name) for name in missing]):
          future.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
      put(MANIFEST)
