"""Files of published weights, read without trusting them.

  read_arrays            .pth, .npz, .safetensors -> arrays by name
  read_tree              .pth -> containers, numbers, text and arrays
  read_network_pickle    NVIDIA's (G, D, Gs) -> records of their variables

Neither PyTorch nor TensorFlow is imported. A file is mapped into memory and arrays are
views of it.
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
  Archive,
  UnsafeFileError,
  read_npy,
  read_safetensors,
  size_limit,
)
from gan_jax.storage.safe_unpickler import (
  PickledObject,
  SafeUnpickler,
  Tensor,
  to_plain,
)


@dataclass(frozen=True)
class PickledNetwork:
  """One network of an NVIDIA pickle; nothing of it has been executed."""

  name: str
  func: str  # of the official source: 'G_style', 'D_paper', ...
  library: str  # 'tfutil' (the ProGAN repository) or 'dnnlib' (StyleGAN's)
  kwargs: dict[str, Any]  # those that differ from that function's defaults
  variables: dict[str, np.ndarray]  # by local name, components' under G_<component>/


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
  """Arrays by name of a .pth (zip or the older stream), .npz or .safetensors file.

  The kind is told from the content. Of containers within containers, names are
  joined by dots; numbers count as arrays without dimensions, text is left out.
  bfloat16 becomes float32. Arrays are read-only views of the file where possible.

  Raises:
    UserError: no such file, another kind, damage, or something that is not data; one
      sentence that names the file and what was found.
  """
  with _reading(path) as data:
    if data[8:9] == b'{' and struct.unpack_from('<Q', data)[0] < len(data):
      return read_safetensors(data)
    if data[:2] == b'PK':
      archive = Archive(data)
      npy = [name for name in archive.names if name.endswith('.npy')]
      if npy:
        return {n[:-4]: read_npy(archive.read(n)) for n in npy}
    return dict(_flat(_torch_tree(data)))


def read_tree(path: Path | str) -> Any:
  """What torch.save wrote: dicts, lists, tuples, numbers, text and arrays.

  Raises:
    UserError: as `read_arrays`.
  """
  with _reading(path) as data:
    return _torch_tree(data)


def read_network_pickle(path: Path | str) -> tuple[PickledNetwork, ...]:
  """The networks of an NVIDIA pickle, in its order: (G, D, Gs).

  Raises:
    UserError: as `read_arrays`.
  """
  with _reading(path) as data:
    tree = to_plain(SafeUnpickler(data).run(), {}, size_limit(data))
    if isinstance(tree, PickledObject):
      tree = (tree,)
    if not isinstance(tree, tuple | list) or not tree:
      raise UnsafeFileError('holds no tuple of networks')
    return tuple(_network(part) for part in tree)


@contextmanager
def _reading(path: Path | str) -> Iterator[memoryview]:
  """The bytes of a file; whatever goes wrong in reading them is a UserError."""
  try:
    with open(path, 'rb') as f:
      if not f.seek(0, 2):
        raise UnsafeFileError('is empty')
      data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    yield data
  except UnsafeFileError as reason:
    raise UserError(f'{path} {reason}.') from None
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from None
  except Exception as error:  # a damaged file can make the readers trip over anything
    what = str(error).splitlines()[0][:100] if str(error) else ''
    raise UserError(
      f'{path} is damaged or not a file of weights ({type(error).__name__}: {what}).'
    ) from None


def _flat(tree: Any, prefix: str = '') -> Iterator[tuple[str, np.ndarray]]:
  items: Any = ()
  if isinstance(tree, dict):
    items = tree.items()
  elif isinstance(tree, list | tuple):
    items = enumerate(tree)
  elif isinstance(tree, np.ndarray):
    yield prefix, tree
  elif isinstance(tree, bool | int | float):
    yield prefix, np.array(tree)
  for key, value in items:
    yield from _flat(value, f'{prefix}.{key}' if prefix else str(key))


_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older stream


def _torch_tree(data: memoryview) -> Any:
  if data[:2] == b'PK':
    archive = Archive(data)
    pickles = [n for n in archive.names if n == 'data.pkl' or n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise UnsafeFileError(
        'is a zip file, but neither of torch.save nor of numpy.savez'
      )
    folder = pickles[0].removesuffix('data.pkl')
    order = f'{folder}byteorder'
    if order in archive.names and archive.read(order) != b'little':
      raise UnsafeFileError('was written on a big-endian machine')
    tree = SafeUnpickler(archive.read(pickles[0])).run()
    return to_plain(tree, _Members(archive, f'{folder}data/'), size_limit(data))
  if data[0] != 0x80:
    raise UnsafeFileError('is neither a .pth, .npz, .safetensors file nor a pickle')
  machine = SafeUnpickler(data)
  first = machine.run()
  if first != _TORCH_MAGIC:
    return to_plain(first, {}, size_limit(data))
  machine.run(), machine.run()  # version, and sizes of C types on that machine
  tree = machine.run()
  keys = machine.run()
  at, storages = machine.at, {}
  sizes: dict[str, int] = {}
  _storage_types(tree, sizes)
  for key in keys:
    if not isinstance(key, str) or key not in sizes:
      raise UnsafeFileError('has a storage that no tensor uses')
    (count,) = struct.unpack_from('<q', data, at)
    size = count * sizes[key]
    if count < 0 or size > len(data) - at - 8:
      raise UnsafeFileError(f'ends early: a storage of {count} entries is missing')
    storages[key] = data[at + 8 : at + 8 + size]
    at += 8 + size
  return to_plain(tree, storages, size_limit(data))


class _Members(Mapping):
  """Storages of a zip file by key, checked when they are asked for."""

  def __init__(self, archive: Archive, folder: str):
    self._archive, self._folder = archive, folder
    self._read: dict[str, memoryview] = {}

  def __getitem__(self, key: str) -> memoryview:
    if key not in self._read:
      self._read[key] = self._archive.read(self._folder + key)
    return self._read[key]

  def __contains__(self, key: Any) -> bool:
    return f'{self._folder}{key}' in self._archive.names

  def __iter__(self) -> Iterator[str]:
    return iter(self._read)

  def __len__(self) -> int:
    return len(self._read)


def _storage_types(tree: Any, sizes: dict[str, int]) -> None:
  """Fills in the bytes of an entry for each storage; a container is entered once."""
  stack, seen = [tree], set()
  while stack:
    value = stack.pop()
    if isinstance(value, Tensor):
      kind = value.storage.dtype
      sizes[value.storage.key] = 2 if kind == 'bf16' else np.dtype(kind).itemsize
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
      seen.add(id(value))
      stack += value.values() if isinstance(value, dict) else value


def _network(record: Any) -> PickledNetwork:
  if not isinstance(record, PickledObject) or not isinstance(record.state, dict):
    raise UnsafeFileError('holds something that is no network')
  state = record.state
  if state.get('version') not in (2, 3):
    raise UnsafeFileError(
      f'holds a network in version {str(state.get("version"))[:20]}'
    )
  for key, kind in (('static_kwargs', dict), ('variables', list | tuple)):
    if not isinstance(state.get(key), kind):
      raise UnsafeFileError(f'holds a network without {key}')
  variables: dict[str, np.ndarray] = {}
  parts = [('', state)]
  for name, component in (state.get('components') or {}).items():
    parts.append((f'G_{name}/', component.state))
  for prefix, part in parts:
    for name, value in part['variables']:
      variables[f'{prefix}{name}'] = np.asarray(value)
      if variables[f'{prefix}{name}'].dtype.kind not in 'biuf':
        raise UnsafeFileError(f'holds a variable {name[:80]!r} that is no array')
  return PickledNetwork(
    str(state.get('name')),
    str(state.get('build_func_name')),
    record.library,
    state['static_kwargs'],
    variables,
  )
