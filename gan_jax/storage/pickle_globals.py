"""The classes and functions that an untrusted pickle may name, and their stand-ins.

Nothing is imported. `ALLOWED_GLOBALS` maps each name to a function of this module that
checks its arguments and returns a container, an array or a record of plain data.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gan_jax.storage.arrays import (
  RawBytes,
  UnsafeFileError,
  array_from_bytes,
  check_shape,
)
from gan_jax.storage.file_kinds import IMPORTED


@dataclass(eq=False)
class PickledObject:
  """Library and state of an object. The code of its class never runs."""

  library: str  # one of LIBRARIES
  state: Any = None


@dataclass(eq=False)
class PickledDtype:
  """A numpy dtype; its byte order is set by the opcode BUILD."""

  code: str
  order: str = '<'

  @property
  def numpy(self) -> np.dtype:
    return np.dtype(self.order + self.code)


@dataclass(eq=False)
class PickledArray:
  """A numpy array; its value is set by the opcode BUILD."""

  value: np.ndarray | None = None


class PickledStorage(NamedTuple):
  """A PyTorch storage, whose bytes lie outside the pickle."""

  dtype: str  # numpy's code, or 'bf16'
  key: str
  size: int


class PickledTensor(NamedTuple):
  """A strided view of a storage; offset and strides in elements."""

  storage: PickledStorage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AllowedGlobal:
  """A global that a pickle has named.

  Attributes:
    name: 'module name'.
    call: what the opcode REDUCE calls.
    label: dtype of a storage class, library of an object class, '' of a function.
  """

  name: str
  call: Callable[..., Any]
  label: str = ''


def set_item(target: Any, key: Any, value: Any) -> None:
  """target[key] = value, for a plain dict and a key that hashes in constant time."""
  if type(target) is not dict or not isinstance(key, str | int | float | None):
    raise UnsafeFileError(
      'sets an item of a value that is not a dict, or under a key that is neither text '
      'nor a number'
    )
  target[key] = value


def raw_bytes(value: Any) -> RawBytes:
  """Bytes of an array; Python 2 pickled them as latin-1 text."""
  if isinstance(value, str):
    return value.encode('latin1')
  if isinstance(value, bytes | memoryview):
    return value
  raise UnsafeFileError('holds an array without data')


def ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
  """A dict of (key, value) pairs, for OrderedDict and EasyDict."""
  result: dict[Any, Any] = {}
  for key, value in pairs:
    set_item(result, key, value)
  return result


def _encode(text: Any, encoding: Any) -> bytes:
  if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
    raise UnsafeFileError('encodes a value that is not latin-1 text')
  return text.encode('latin1')


def _set(items: Any = ()) -> list[Any]:
  if not isinstance(items, list | tuple):
    raise UnsafeFileError('builds a set from a value that is not a list')
  return list(items)


def _dtype(code: Any, *_: Any) -> PickledDtype:
  if not isinstance(code, str) or not re.fullmatch(r'[biuf][1248]|b1', code):
    name = repr(code[:20]) if isinstance(code, str) else 'that is not text'
    raise UnsafeFileError(
      f'holds an array of dtype {name}: booleans, integers and floats can be read'
    )
  return PickledDtype(code)


def _scalar(dtype: Any, raw: Any) -> np.ndarray:
  return array_from_bytes(raw_bytes(raw), dtype.numpy, ())


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
  return array_from_bytes(raw_bytes(raw), dtype.numpy, check_shape(shape), order == 'F')


def _tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> PickledTensor:
  if not isinstance(storage, PickledStorage):
    raise UnsafeFileError('holds a tensor without a storage')
  return PickledTensor(storage, offset, check_shape(shape), check_shape(strides))


def _not_a_function(*_: Any) -> NoReturn:
  raise UnsafeFileError('calls a value that is not a function')


_STORAGE_DTYPES = {
  'DoubleStorage': '<f8', 'FloatStorage': '<f4', 'HalfStorage': '<f2',
  'BFloat16Storage': 'bf16', 'LongStorage': '<i8', 'IntStorage': '<i4',
  'ShortStorage': '<i2', 'CharStorage': 'i1', 'ByteStorage': 'u1', 'BoolStorage': '?',
}  # fmt: skip
# Of classes that become PickledObject.
LIBRARIES = ('tfutil', 'dnnlib', 'torch.nn', 'argparse')


def _allowed_functions() -> dict[str, Callable[..., Any]]:
  functions: dict[str, Callable[..., Any]] = {
    'collections OrderedDict': ordered_dict,
    '_codecs encode': _encode,
    'numpy ndarray': _not_a_function,
    'numpy dtype': _dtype,
    'torch Size': lambda shape=(): check_shape(shape),
    'torch device': lambda *_: None,
    'torch._utils _rebuild_tensor': _tensor,
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': lambda data, *_: data,
  }
  for core in ('numpy.core', 'numpy._core'):
    functions[f'{core}.multiarray _reconstruct'] = lambda *_: PickledArray()
    functions[f'{core}.multiarray scalar'] = _scalar
    functions[f'{core}.numeric _frombuffer'] = _from_buffer
  for module in ('dnnlib', 'dnnlib.util', 'config'):
    functions[f'{module} EasyDict'] = ordered_dict
  for module in (
    'pytorch_lightning.utilities.parsing',
    'lightning.fabric.utilities.data',
  ):
    functions[f'{module} AttributeDict'] = ordered_dict
  for module in ('builtins', '__builtin__'):
    functions[f'{module} set'] = _set
  return functions


def _allowed_classes() -> dict[str, str]:
  """'module name' of a class -> its AllowedGlobal.label."""
  classes = {f'torch {name}': dtype for name, dtype in _STORAGE_DTYPES.items()}
  classes['tfutil Network'] = 'tfutil'
  for module in ('dnnlib.tflib', 'dnnlib.tflib.network'):
    classes[f'{module} Network'] = 'dnnlib'
  for activation in ('ReLU', 'LeakyReLU'):  # in the settings that BigGAN-PyTorch saves
    classes[f'torch.nn.modules.activation {activation}'] = 'torch.nn'
  classes['argparse Namespace'] = 'argparse'  # the settings of many training scripts
  return classes


ALLOWED_GLOBALS = {
  name: AllowedGlobal(name, function) for name, function in _allowed_functions().items()
} | {
  name: AllowedGlobal(name, _not_a_function, label)
  for name, label in _allowed_classes().items()
}

# Module of a class -> what a pickle that names it is.
_OTHER_LIBRARIES = {
  'torch_utils.persistence': (
    "is a pickle of NVIDIA's PyTorch code (StyleGAN2-ADA, StyleGAN3 or EDM): StyleGAN "
    'of version 1 is imported, such as karras2019stylegan-ffhq-1024x1024.pkl'
  ),
  'tensorflow': f'holds objects of TensorFlow: {IMPORTED}',
  'keras': f'holds objects of Keras: {IMPORTED}',
  'sklearn': f'holds objects of scikit-learn: {IMPORTED}',
}


def refuse_global(module: str, name: str) -> NoReturn:
  """Names a class or function that is not in `ALLOWED_GLOBALS`.

  Raises:
    UnsafeFileError: always.
  """
  for package, what in _OTHER_LIBRARIES.items():
    if f'{module}.'.startswith(f'{package}.'):
      raise UnsafeFileError(what)
  raise UnsafeFileError(
    f'names {f"{module}.{name}"[:100]!r}, which is not loaded: only arrays and plain '
    'containers are read, such as the state_dict() of a network'
  )
