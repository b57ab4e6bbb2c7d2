"""The files of a prepared set, in a folder or in a store, and where they are read."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from gan_jax.storage.store import StoredFile


class Expected(NamedTuple):
  """A file as it should be.

  Attributes:
    size: in bytes.
    version: changes with the content.
    sha256: of the content, in hexadecimal; '' if unknown.
    md5: likewise.
  """

  size: int
  version: str
  sha256: str = ''
  md5: str = ''


class SetFiles(Protocol):
  """The files below a folder or URL; names are relative to it, with slashes."""

  @property
  def url(self) -> str: ...

  def list(self, below: str = '') -> Mapping[str, StoredFile]: ...

  def read(self, name: str, start: int = 0, end: int | None = None) -> bytes: ...


class FolderFiles:
  """The files below a folder of this machine."""

  def __init__(self, folder: Path):
    self.url, self._folder = str(folder), folder

  def list(self, below: str = '') -> dict[str, StoredFile]:
    found = {}
    for folder, _, names in os.walk(self._folder / below, followlinks=True):
      for path in (Path(folder, name) for name in names):
        if not path.exists():  # a broken link
          continue
        state = path.stat()
        identity = f'{state.st_size} {state.st_mtime_ns}'
        name = path.relative_to(self._folder).as_posix()
        found[name] = StoredFile(state.st_size, identity)
    return found

  def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
    with (self._folder / name).open('rb') as file:
      file.seek(start)
      return file.read(-1 if end is None else end - start)


class PreparedFiles(Protocol):
  """The files of a set, which can be had on this machine."""

  @property
  def files(self) -> SetFiles:
    """Those of the set, where it is."""

  @property
  def folder(self) -> Path:
    """Where they are on this machine once `fetch` has returned."""

  def fetch(
    self, below: str, files: Mapping[str, Expected], names: Collection[str]
  ) -> None:
    """Makes sure that files are here; see `SetCopy.fetch`."""


class FilesInPlace:
  """A set in a folder of this machine, which is read where it is."""

  def __init__(self, folder: Path):
    self.files, self.folder = FolderFiles(folder), folder

  def fetch(
    self, below: str, files: Mapping[str, Expected], names: Collection[str]
  ) -> None:
    pass


def expect(found: Mapping[str, StoredFile]) -> dict[str, Expected]:
  """Files as a store lists them, where nothing else is known of their content."""
  return {
    name: Expected(file.size, file.identity, md5=file.md5)
    for name, file in found.items()
  }
