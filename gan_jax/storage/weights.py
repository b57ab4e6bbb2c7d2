"""Reads files of published weights without trusting them.

`read_weights` tells the format by the contents of a file, whatever its name: .npz,
.safetensors, what torch.save wrote (a zip file, or the older stream of pickles), any
other pickle of arrays, and NVIDIA's pickles of networks; each also compressed with
gzip, bzip2 or xz.

Neither PyTorch nor TensorFlow is needed, and no code in a file runs. Files are mapped
into memory, and arrays are read-only views of them where possible.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.storage.arrays import (
  AGAIN,
  UnsafeFileError,
  ZipArchive,
  max_unpacked_bytes,
  read_npy,
  read_safetensors,
)
from gan_jax.storage.file_kinds import (
  is_safetensors,
  refuse_other_kinds,
  refuse_other_zips,
  unpacked,
)
from gan_jax.storage.pickle_globals import PickledObject, PickledTensor
from gan_jax.storage.safe_unpickler import SafeUnpickler, to_plain


@dataclass(frozen=True)
class PickledNetwork:
  """One network of an NVIDIA pickle.

  Attributes:
    name: such as 'Gs'.
    func: function of the official code that builds it: 'G_style', 'D_paper', ...
    library: 'tfutil' (ProGAN repository) or 'dnnlib' (StyleGAN repository).
    kwargs: arguments of `func` that differ from its defaults.
    variables: arrays by local name; those of component x begin with 'G_x/'.
  """

  name: str
  func: str
  library: str
  kwargs: dict[str, Any]
  variables: dict[str, np.ndarray]


@dataclass(frozen=True)
class WeightFile:
  """The contents of a file of weights.

  Attributes:
    ordered: whether arrays have the order in which they were saved, as torch.save
      keeps it: optimizers of PyTorch number their parameters by it.
    tree: nested dicts, lists and tuples of numbers, text and arrays; of .npz and
      .safetensors files, arrays by name.
    networks: of an NVIDIA pickle, in its order (G, D, Gs); the tree is then empty.
  """

  ordered: bool
  tree: Any
  networks: tuple[PickledNetwork, ...] = ()


def read_weights(path: Path | str) -> WeightFile:
  """The contents of a file of weights in any format that can be read.

  bfloat16 becomes float32.

  Raises:
    UserError: a missing, corrupted or unsafe file, or another kind of file.
  """
  with _open_untrusted(path) as data:
    if is_safetensors(data):
      return WeightFile(False, read_safetensors(data))
    if data[:2] == b'PK':
      return _read_zip(data)
    if data[0] != 0x80:
      raise UnsafeFileError('is neither a .pth, .npz or .safetensors file nor a pickle')
    return _read_pickle(data)


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
  """Arrays of a file of weights by name.

  Names in nested containers are joined by dots, numbers become arrays without
  dimensions, and text is dropped.

  Raises:
    UserError: as `read_weights`.
  """
  return dict(named_leaves(read_weights(path).tree))


def read_tree(path: Path | str) -> Any:
  """What torch.save wrote: nested dicts, lists and tuples of numbers, text and arrays.

  Raises:
    UserError: as `read_weights`.
  """
  return read_weights(path).tree


def read_network_pickle(path: Path | str) -> tuple[PickledNetwork, ...]:
  """The networks of an NVIDIA pickle, in the order of the file: (G, D, Gs).

  Raises:
    UserError: as `read_weights`, or a file without networks.
  """
  networks = read_weights(path).networks
  if not networks:
    raise UserError(f'{path} holds no tuple of networks.')
  return networks


def check_kind(path: Path | str) -> None:
  """Rejects a file that cannot hold weights by its first bytes, without reading it all.

  Raises:
    UserError: a missing or empty file, a web page, a Git LFS pointer, ...
  """
  with _open_untrusted(path):
    pass


@contextmanager
def _open_untrusted(path: Path | str) -> Iterator[memoryview]:
  """The unpacked bytes of a file. Any error inside the block becomes a UserError."""
  try:
    with open(path, 'rb') as f:
      mapped = (
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if f.seek(0, 2) else b''
      )
    data = unpacked(memoryview(mapped))
    refuse_other_kinds(data, Path(path).name)
    yield data
  except UnsafeFileError as reason:
    raise UserError(f'{path} {reason}.') from None
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from None
  except Exception as error:  # a corrupted file can raise anything in the parsers
    message = str(error).splitlines()[0][:100] if str(error) else ''
    raise UserError(
      f'{path} is corrupted or not a file of weights '
      f'({type(error).__name__}: {message}).'
    ) from None


def named_leaves(tree: Any, prefix: str = '') -> Iterator[tuple[str, np.ndarray]]:
  """(name, array) of each array and number in nested containers."""
  if isinstance(tree, np.ndarray):
    yield prefix, tree
  elif isinstance(tree, bool | int | float):
    yield prefix, np.array(tree)
  elif isinstance(tree, dict | list | tuple):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
      yield from named_leaves(value, f'{prefix}.{key}' if prefix else str(key))


_TORCH_STREAM_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older format


def _read_zip(data: memoryview) -> WeightFile:
  """An .npz file, or torch.save since 1.6: data.pkl and a member per storage."""
  archive = ZipArchive(data)
  arrays = [name for name in archive.members if name.endswith('.npy')]
  if arrays:
    return WeightFile(
      False, {n.removesuffix('.npy'): read_npy(archive.read(n)) for n in arrays}
    )
  pickles = [n for n in archive.members if n == 'data.pkl' or n.endswith('/data.pkl')]
  if len(pickles) != 1 or f'{pickles[0][:-8]}constants.pkl' in archive.members:
    refuse_other_zips(archive.members)
  folder = pickles[0].removesuffix('data.pkl')
  byte_order = f'{folder}byteorder'
  if byte_order in archive.members and archive.read(byte_order) != b'little':
    raise UnsafeFileError('is big-endian: only little-endian files can be read')
  tree = SafeUnpickler(archive.read(pickles[0])).load()
  storages = _ZipStorages(archive, f'{folder}data/')
  return WeightFile(True, to_plain(tree, storages, max_unpacked_bytes(data)))


def _read_pickle(data: memoryview) -> WeightFile:
  """NVIDIA's networks, torch.save before version 1.6, or a pickle of arrays."""
  unpickler = SafeUnpickler(data)
  first = unpickler.load()
  if first == _TORCH_STREAM_MAGIC:
    return WeightFile(True, _torch_stream_tree(data, unpickler))
  tree = to_plain(first, {}, max_unpacked_bytes(data))
  records = tree if isinstance(tree, tuple | list) else (tree,)
  if any(isinstance(record, PickledObject) for record in records):
    return WeightFile(False, {}, tuple(_pickled_network(record) for record in records))
  return WeightFile(True, tree)


def _torch_stream_tree(data: memoryview, unpickler: SafeUnpickler) -> Any:
  """torch.save before version 1.6: pickles, then (size, bytes) of each storage.

  Args:
    unpickler: has read the first pickle, the magic number.
  """
  for _ in ('protocol version', 'sizes of C types'):
    unpickler.load()
  tree = unpickler.load()
  keys = unpickler.load()
  position = unpickler.position
  item_bytes = _storage_item_bytes(tree)
  storages = {}
  for key in keys:
    if not isinstance(key, str) or key not in item_bytes:
      raise UnsafeFileError('has a storage that no tensor uses')
    (items,) = struct.unpack_from('<q', data, position)
    position += 8
    size = items * item_bytes[key]
    if items < 0 or size > len(data) - position:
      raise UnsafeFileError(
        f'ends early: a storage of {items} elements is missing, {AGAIN}'
      )
    storages[key] = data[position : position + size]
    position += size
  return to_plain(tree, storages, max_unpacked_bytes(data))


class _ZipStorages(Mapping[str, memoryview]):
  """Storages of a zip file by key, read and verified on first access."""

  def __init__(self, archive: ZipArchive, folder: str):
    self._archive, self._folder = archive, folder
    self._read: dict[str, memoryview] = {}

  def __getitem__(self, key: str) -> memoryview:
    if key not in self._read:
      self._read[key] = self._archive.read(self._folder + key)
    return self._read[key]

  def __contains__(self, key: object) -> bool:
    return f'{self._folder}{key}' in self._archive.members

  def __iter__(self) -> Iterator[str]:
    return iter(self._read)

  def __len__(self) -> int:
    return len(self._read)


def _storage_item_bytes(tree: Any) -> dict[str, int]:
  """Storage key -> bytes per element. Each container is visited once."""
  item_bytes: dict[str, int] = {}
  stack, visited = [tree], set()
  while stack:
    value = stack.pop()
    if isinstance(value, PickledTensor):
      dtype = value.storage.dtype
      item_bytes[value.storage.key] = 2 if dtype == 'bf16' else np.dtype(dtype).itemsize
    elif isinstance(value, dict | list | tuple) and id(value) not in visited:
      visited.add(id(value))
      stack += value.values() if isinstance(value, dict) else value
  return item_bytes


def _pickled_network(record: Any) -> PickledNetwork:
  if not isinstance(record, PickledObject) or not isinstance(record.state, dict):
    raise UnsafeFileError('holds a value that is not a network')
  state = record.state
  if state.get('version') not in (2, 3):
    version = str(state.get('version'))[:20]
    raise UnsafeFileError(
      f'holds a network in version {version}, as StyleGAN2 writes them: 2 and 3, of '
      'ProGAN and StyleGAN (v1), can be read'
    )
  for key, kind in (('static_kwargs', dict), ('variables', list | tuple)):
    if not isinstance(state.get(key), kind):
      raise UnsafeFileError(f'holds a network without {key}')
  variables = _network_variables('', state)
  for name, component in (state.get('components') or {}).items():
    variables |= _network_variables(f'G_{name}/', component.state)
  return PickledNetwork(
    name=str(state.get('name')),
    func=str(state.get('build_func_name')),
    library=record.library,
    kwargs=state['static_kwargs'],
    variables=variables,
  )


def _network_variables(prefix: str, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
  variables = {
    f'{prefix}{name}': np.asarray(value) for name, value in state['variables']
  }
  for name, value in variables.items():
    if value.dtype.kind not in 'biuf':
      raise UnsafeFileError(f'holds a variable {name[:80]!r} that is not an array')
  return variables
