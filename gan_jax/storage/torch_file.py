"""Writes what torch.save writes: a zip file with a pickle, and a member per array.

Dicts, lists and tuples of arrays, numbers, text, True, False and None, as PyTorch's
`torch.load(weights_only=True)` reads them. PyTorch is not needed.
"""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax.storage.files import atomic_path

_STORAGES = {
  'float32': 'FloatStorage',
  'float64': 'DoubleStorage',
  'float16': 'HalfStorage',
  'int64': 'LongStorage',
  'int32': 'IntStorage',
}


def write_torch(path: Path, tree: Any) -> None:
  """Writes `path` atomically.

  Args:
    tree: dicts become OrderedDicts if they hold arrays by name, as state_dicts do.

  Raises:
    OSError: the file cannot be written.
    TypeError: the tree holds something else.
  """
  pickler = _Pickler()
  pickler.add(tree)
  pickle = b'\x80\x02' + bytes(pickler.code) + b'.'
  members = {'data.pkl': pickle, 'byteorder': b'little'}
  with (
    atomic_path(path) as part,
    zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as archive,
  ):
    for name, body in members.items():
      archive.writestr(f'archive/{name}', body)
    for i, array in enumerate(pickler.arrays):
      little = array.astype(array.dtype.newbyteorder('<'), order='C', copy=False)
      archive.writestr(f'archive/data/{i}', little.tobytes())
    archive.writestr('archive/version', b'3\n')


class _Pickler:
  """Opcodes of protocol 2, without a memo.

  Attributes:
    code: what was added so far.
    arrays: those that the code refers to, by position.
  """

  def __init__(self) -> None:
    self.code = bytearray()
    self.arrays: list[np.ndarray] = []

  def add(self, value: Any) -> None:
    """Appends the opcodes that push a value onto the stack."""
    match value:
      case None | True | False:
        self.code += {None: b'N', True: b'\x88', False: b'\x89'}[value]
      case int() if -(2**31) <= value < 2**31:
        self.code += b'J' + struct.pack('<i', value)
      case int() if -(2**63) <= value < 2**63:
        self.code += b'\x8a\x08' + struct.pack('<q', value)
      case float():
        self.code += b'G' + struct.pack('>d', value)
      case str():
        raw = value.encode()
        self.code += b'X' + struct.pack('<I', len(raw)) + raw
      case tuple():
        self._add_between(b'(', value, b't')
      case list():
        self._add_between(b'](', value, b'e')
      case dict():
        items = [x for item in value.items() for x in item]
        arrays = [isinstance(x, np.ndarray) for x in value.values()]
        is_state = bool(arrays) and all(arrays)
        start = b'ccollections\nOrderedDict\n)R(' if is_state else b'}('
        self._add_between(start, items, b'u')
      case np.ndarray():
        self._add_array(value)
      case _:
        raise TypeError(f'{type(value).__name__} cannot be written for PyTorch.')

  def _add_between(self, start: bytes, values: Any, end: bytes) -> None:
    self.code += start
    for value in values:
      self.add(value)
    self.code += end

  def _add_array(self, array: np.ndarray) -> None:
    """A call of PyTorch's function that makes a tensor of a storage."""
    storage = _STORAGES.get(array.dtype.name)
    if storage is None:
      raise TypeError(f'arrays of {array.dtype} cannot be written for PyTorch.')
    strides = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    self.code += b'ctorch._utils\n_rebuild_tensor_v2\n(('
    self.add('storage')
    self.code += f'ctorch\n{storage}\n'.encode()
    self.add(str(len(self.arrays)))
    self.add('cpu')
    self.add(array.size)
    self.code += b'tQ'  # the persistent identity of the storage
    for argument in (0, array.shape, tuple(strides), False):
      self.add(argument)
    self.code += b'ccollections\nOrderedDict\n)RtR'
    self.arrays.append(array)
