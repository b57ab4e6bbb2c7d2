"""Reads untrusted pickles of weights without running any code.

Containers, numbers, text and arrays are built, and nothing else. A pickle that names
another class or function, such as os.system, is rejected; source code inside a pickle
remains text. The number of opcodes, values, nested containers and bytes is bounded.
"""

import math
import pickletools
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax.storage.arrays import (
  MAX_EXPANSION,
  RawBytes,
  UnsafeFileError,
  bfloat16_to_float32,
)
from gan_jax.storage.pickle_globals import (
  AllowedGlobal,
  PickledArray,
  PickledDtype,
  PickledObject,
  PickledStorage,
  PickledTensor,
)
from gan_jax.storage.pickle_opcodes import OPCODES, STOP, PickleMachine

MAX_OPCODES = 1_000_000  # per file; the optimizer of BigGAN-deep has a tenth of that
MAX_VALUES = 200_000  # per pickle, counted once for each container that holds them
MAX_DEPTH = 32  # of nested containers

_OPCODE_NAMES = {op.code: op.name for op in pickletools.opcodes}


class SafeUnpickler:
  """Unpickles a stream of one or more pickles.

  Attributes:
    position: offset in bytes behind the last pickle that was read.
  """

  def __init__(self, data: memoryview):
    self._machine = PickleMachine(data)
    self._opcodes_run = 0

  @property
  def position(self) -> int:
    return self._machine.position

  def load(self) -> Any:
    """The next pickle of the stream, for `to_plain`.

    Raises:
      UnsafeFileError: an opcode, name or size that is not allowed.
    """
    machine = self._machine
    machine.reset()
    while True:
      self._opcodes_run += 1
      if self._opcodes_run > MAX_OPCODES:
        raise UnsafeFileError(f'is a pickle of more than {MAX_OPCODES} opcodes')
      code = machine.read_byte()
      if code == STOP:
        return machine.pop()
      run = OPCODES.get(code)
      if run is None:
        name = _OPCODE_NAMES.get(chr(code), hex(code))
        raise UnsafeFileError(
          f'has the pickle opcode {name}, which files of weights do not need'
        )
      run(machine)


def to_plain(value: Any, storages: Mapping[str, RawBytes], max_bytes: int) -> Any:
  """An unpickled value as plain containers of numbers, text and arrays.

  A value that several containers hold is converted once for each.

  Args:
    storages: bytes of the PyTorch storages by key.
    max_bytes: limit of the tensors' total size, at 8 bytes per element.

  Raises:
    UnsafeFileError: a value of another type, a tensor that does not fit its storage,
      or more values, depth or bytes than allowed.
  """
  return _PlainConverter(storages, max_bytes).convert(value, depth=0)


class _PlainConverter:
  """Converts nested values and counts them."""

  def __init__(self, storages: Mapping[str, RawBytes], max_bytes: int):
    self._storages, self._bytes_left = storages, max_bytes
    self._values_left = MAX_VALUES

  def convert(self, value: Any, depth: int) -> Any:
    self._values_left -= 1
    if depth > MAX_DEPTH or self._values_left < 0:
      raise UnsafeFileError(
        f'holds containers nested deeper than {MAX_DEPTH} levels, or more than '
        f'{MAX_VALUES} values'
      )
    match value:
      case dict():
        return {k: self.convert(v, depth + 1) for k, v in value.items()}
      case PickledStorage() | AllowedGlobal() | PickledDtype():
        raise UnsafeFileError('holds a value that is neither an array nor a container')
      case PickledTensor():
        self._bytes_left -= 8 * math.prod(value.shape)
        if self._bytes_left < 0:
          raise UnsafeFileError(
            f'would unpack to more than {MAX_EXPANSION} times its size'
          )
        return _tensor_view(value, self._storages)
      case PickledArray():
        if value.value is None:
          raise UnsafeFileError('holds an array without data')
        return value.value
      case PickledObject():
        return PickledObject(value.library, self.convert(value.state, depth + 1))
      case list():
        return [self.convert(v, depth + 1) for v in value]
      case tuple():
        return tuple(self.convert(v, depth + 1) for v in value)
    return value


def _tensor_view(tensor: PickledTensor, storages: Mapping[str, RawBytes]) -> np.ndarray:
  """A tensor as a read-only view of its storage."""
  storage, offset, shape, strides = tensor
  if storage.key not in storages:
    raise UnsafeFileError(f'has no data for the tensor storage {storage.key[:20]!r}')
  raw = storages[storage.key]
  dtype = '<u2' if storage.dtype == 'bf16' else storage.dtype
  elements = np.frombuffer(raw, dtype)
  size = math.prod(shape)
  if type(offset) is not int or offset < 0 or len(shape) != len(strides):
    raise UnsafeFileError('holds a tensor with an invalid shape or offset')
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if size > elements.size or (size and last >= elements.size):
    raise UnsafeFileError(f'claims a tensor of shape {shape} in {len(raw)} bytes')
  byte_strides = tuple(s * elements.itemsize for s in strides)
  start = elements[min(offset, elements.size) :]
  if size:
    view = np.lib.stride_tricks.as_strided(start, shape, byte_strides, writeable=False)
  else:
    view = np.zeros(shape, dtype)
  return bfloat16_to_float32(view) if storage.dtype == 'bf16' else view
