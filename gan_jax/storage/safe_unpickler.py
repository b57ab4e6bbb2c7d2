"""Pickles of weights, run on a machine that knows no programs.

It builds containers and arrays and nothing else: a name such as os.system is refused
where it is mentioned, and source code within a pickle stays text.
"""

import math
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gan_jax.storage.arrays import (
  EXPANSION,
  UnsafeFileError,
  bfloat16_to_float32,
  checked_shape,
  make_array,
  size_limit,
)

STEPS = 1_000_000  # of a pickle; BigGAN-deep's optimizer takes a tenth of that
NODES = 200_000  # of what it builds, counted as often as they are held
DEPTH = 32  # of containers in containers


class PickledObject:
  """An object of one of NVIDIA's classes: what it was given, kept as it is."""

  def __init__(self, library: str):
    self.library, self.state = library, None


@dataclass(eq=False)
class _Dtype:
  code: str
  order: str = '<'

  @property
  def numpy(self) -> np.dtype:
    return np.dtype(self.order + self.code)


@dataclass(eq=False)
class _Array:
  """numpy's array between its making and its state."""

  value: np.ndarray | None = None


class _Storage(NamedTuple):
  dtype: str
  key: str
  size: int


class Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Name:
  """A global that may be mentioned, and what calling it does here."""

  name: str
  call: Callable[..., Any]
  value: Any = field(default=None)


def _codec(text: Any, encoding: Any) -> bytes:
  if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
    raise UnsafeFileError('encodes something that is not text')
  return text.encode('latin1')


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
  found: dict[Any, Any] = {}
  for key, value in pairs:
    _put(found, key, value)
  return found


def _set(items: Any = ()) -> list[Any]:
  if not isinstance(items, list | tuple):
    raise UnsafeFileError('makes a set of what is no list')
  return list(items)


def _dtype(code: Any, *_: Any) -> _Dtype:
  if not isinstance(code, str) or not re.fullmatch(r'[biuf][1248]|b1', code):
    what = repr(code[:20]) if isinstance(code, str) else 'something'
    raise UnsafeFileError(f'holds an array of {what}, which is no number')
  return _Dtype(code)


def _scalar(dtype: Any, raw: Any) -> np.ndarray:
  return make_array(_raw(raw), dtype.numpy, ())


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
  return make_array(_raw(raw), dtype.numpy, checked_shape(shape), order == 'F')


def _raw(value: Any) -> Any:
  """Bytes; Python 2 wrote them as text."""
  if isinstance(value, str):
    return value.encode('latin1')
  if isinstance(value, bytes | memoryview):
    return value
  raise UnsafeFileError('holds an array without bytes')


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
  if not isinstance(storage, _Storage):
    raise UnsafeFileError('holds a tensor without a storage')
  return Tensor(storage, offset, checked_shape(shape), checked_shape(strides))


def _not_callable(*_: Any) -> NoReturn:
  raise UnsafeFileError('calls what is no function')


_STORAGES = {
  'DoubleStorage': '<f8', 'FloatStorage': '<f4', 'HalfStorage': '<f2',
  'BFloat16Storage': 'bf16', 'LongStorage': '<i8', 'IntStorage': '<i4',
  'ShortStorage': '<i2', 'CharStorage': 'i1', 'ByteStorage': 'u1', 'BoolStorage': '?',
}  # fmt: skip
_NUMPY = ('numpy.core.', 'numpy._core.')
_CLASSES = ('tfutil', 'dnnlib', 'torch.nn')  # whose objects are kept as records


def _known_names() -> dict[str, Callable[..., Any] | str]:
  """All that a pickle may mention: 'module name' -> what it does when called.

  A text stands for a storage's type or a network's library.
  """
  known: dict[str, Callable[..., Any] | str] = {
    'collections OrderedDict': _ordered,
    '_codecs encode': _codec,
    'numpy ndarray': _not_callable,
    'numpy dtype': _dtype,
    'torch Size': lambda shape=(): checked_shape(shape),
    'torch._utils _rebuild_tensor': _tensor,
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': lambda data, *_: data,
  }
  for core in _NUMPY:
    known[f'{core}multiarray _reconstruct'] = lambda *_: _Array()
    known[f'{core}multiarray scalar'] = _scalar
    known[f'{core}numeric _frombuffer'] = _from_buffer
  for name, dtype in _STORAGES.items():
    known[f'torch {name}'] = dtype
  for module in ('dnnlib', 'dnnlib.util', 'config'):
    known[f'{module} EasyDict'] = _ordered
  known['tfutil Network'] = 'tfutil'
  for module in ('dnnlib.tflib', 'dnnlib.tflib.network'):
    known[f'{module} Network'] = 'dnnlib'
  for activation in ('ReLU', 'LeakyReLU'):  # in the settings BigGAN-PyTorch saves
    known[f'torch.nn.modules.activation {activation}'] = 'torch.nn'
  for module in ('builtins', '__builtin__'):
    known[f'{module} set'] = _set
  return known


_KNOWN = _known_names()
_MARK = object()
_OPCODES = {op.code: op.name for op in pickletools.opcodes}


def _put(target: Any, key: Any, value: Any) -> None:
  if type(target) is not dict or not isinstance(key, str | int | float | None):
    raise UnsafeFileError('sets an entry of what is no plain dict')
  target[key] = value


class SafeUnpickler:
  """Runs one pickle. `run` may be called again for the next one in the stream."""

  def __init__(self, data: memoryview, at: int = 0):
    self._data, self.at = data, at
    self._steps, self._room = 0, size_limit(data)

  def run(self) -> Any:
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    while True:
      self._steps += 1
      if self._steps > STEPS:
        raise UnsafeFileError(f'is a pickle of more than {STEPS} steps')
      code = self._take(1)[0]
      if code == 0x2E:  # STOP
        return self._pop()
      step = _STEPS.get(code)
      if step is None:
        name = _OPCODES.get(chr(code), hex(code))
        raise UnsafeFileError(
          f'has the pickle opcode {name}, which no file of weights needs'
        )
      step(self)

  def _take(self, n: int) -> memoryview:
    if n > len(self._data) - self.at:
      raise UnsafeFileError(f'ends early: {n} bytes are missing')
    self.at += n
    return self._data[self.at - n : self.at]

  def _number(self, form: str) -> Any:
    return struct.unpack(form, self._take(struct.calcsize(form)))[0]

  def _counted(self, form: str) -> memoryview:
    return self._take(self._number(form))

  def _pop(self) -> Any:
    value = self._stack.pop()
    if value is _MARK:
      raise UnsafeFileError('is a pickle with a mark out of place')
    return value

  def _since_mark(self) -> list[Any]:
    at = len(self._stack) - 1
    while self._stack[at] is not _MARK:
      at -= 1
      if at < 0:
        raise UnsafeFileError('is a pickle with a mark missing')
    values = self._stack[at + 1 :]
    del self._stack[at:]
    return values

  def _top(self, kind: type) -> Any:
    if type(self._stack[-1]) is not kind:
      raise UnsafeFileError(f'takes something for a {kind.__name__} that is none')
    return self._stack[-1]

  def _text(self, form: str, encoding: str = 'utf-8') -> None:
    self._stack.append(str(self._counted(form), encoding))

  def _line(self) -> str:
    end = self.at
    while end - self.at < 200 and self._data[end : end + 1] not in (b'\n', b''):
      end += 1
    line = str(self._take(end - self.at), 'utf-8')
    self._take(1)
    return line

  def _tuple(self, n: int) -> None:
    self._stack.append(tuple([self._pop() for _ in range(n)][::-1]))

  def _long(self, form: str) -> None:
    size = self._number(form)
    if not 0 <= size <= 256:
      raise UnsafeFileError(f'has a number of {size} bytes')
    self._stack.append(int.from_bytes(self._take(size), 'little', signed=True))

  def _extend(self) -> None:
    values = self._since_mark()
    self._top(list).extend(values)

  def _append(self) -> None:
    value = self._pop()
    self._top(list).append(value)

  def _set(self) -> None:
    value, key = self._pop(), self._pop()
    _put(self._stack[-1], key, value)

  def _set_all(self) -> None:
    values = self._since_mark()
    if len(values) % 2:
      raise UnsafeFileError('is a pickle with a key without a value')
    for key, value in zip(values[::2], values[1::2], strict=True):
      _put(self._stack[-1], key, value)

  def _dict(self) -> None:
    values = self._since_mark()
    self._stack.append({})
    for key, value in zip(values[::2], values[1::2], strict=True):
      _put(self._stack[-1], key, value)

  def _name(self, module: Any, name: Any) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
      raise UnsafeFileError('names something without a name')
    full = f'{module} {name}'
    if full not in _KNOWN:
      raise UnsafeFileError(
        f'asks for {f"{module}.{name}"[:100]!r}, which is not run: only arrays and '
        'plain containers are read'
      )
    what = _KNOWN[full]
    call = _not_callable if isinstance(what, str) else what
    self._stack.append(_Name(full, call, what))

  def _stack_name(self) -> None:
    name, module = self._pop(), self._pop()
    self._name(module, name)

  def _global(self) -> None:
    module = self._line()
    self._name(module, self._line())

  def _reduce(self) -> None:
    args, function = self._pop(), self._pop()
    if not isinstance(function, _Name) or type(args) is not tuple:
      raise UnsafeFileError('calls what is no function')
    self._charge(args)
    self._stack.append(function.call(*args))

  def _charge(self, values: Any) -> None:
    """What a call may copy, so that the same text or list is not copied forever."""
    for value in values:
      if isinstance(value, str | bytes | memoryview):
        self._room -= len(value)
      elif isinstance(value, list | tuple | dict):
        self._room -= 100 * len(value)
    if self._room < 0:
      raise UnsafeFileError(f'would come to more than {EXPANSION} times its size')

  def _new(self) -> None:
    args, cls = self._pop(), self._pop()
    if not isinstance(cls, _Name) or args != ():
      raise UnsafeFileError('makes an object of what is no class')
    if cls.value in _CLASSES:
      self._stack.append(PickledObject(str(cls.value)))
    elif cls.call is _ordered:
      self._stack.append({})
    else:
      raise UnsafeFileError(f'makes an object of {cls.name!r}')

  def _build(self) -> None:
    state, target = self._pop(), self._stack[-1]
    if isinstance(target, PickledObject):
      target.state = state
    elif isinstance(target, _Dtype):
      order = state[1]
      if order not in ('<', '>', '|', '=') or any(x is not None for x in state[2:5]):
        raise UnsafeFileError('holds an array of no plain type')
      target.order = order
    elif isinstance(target, _Array):
      self._charge(state)
      _, shape, dtype, fortran, raw = state
      if not isinstance(dtype, _Dtype):
        raise UnsafeFileError('holds an array of no plain type')
      target.value = make_array(
        _raw(raw), dtype.numpy, checked_shape(shape), bool(fortran)
      )
    elif type(target) is not dict:  # a dict's attributes are of no interest
      raise UnsafeFileError('gives a state to what has none')

  def _persistent(self) -> None:
    match self._pop():
      case ('storage', _Name(value=str(dtype)), str(key), str(), int(size), *rest):
        if dtype in _CLASSES or rest not in ([], [None]):
          raise UnsafeFileError('has a storage of a kind that is not known')
        self._stack.append(_Storage(dtype, key, size))
      case _:
        raise UnsafeFileError('refers to something outside of the pickle')

  def _remember(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def _recall(self, index: int) -> None:
    if index not in self._memo:
      raise UnsafeFileError('is a pickle that recalls what it has not kept')
    self._stack.append(self._memo[index])


def _protocol(m: SafeUnpickler) -> None:
  if m._number('B') > 5:
    raise UnsafeFileError('is a pickle of a later protocol than 5')


def _push(value: Callable[[], Any]) -> Callable[[SafeUnpickler], None]:
  return lambda m: m._stack.append(value())


_STEPS: dict[int, Callable[[SafeUnpickler], Any]] = {
  ord(code): step
  for code, step in {
    '\x80': _protocol,
    '\x95': lambda m: m._number('<Q'),  # FRAME: how far to read ahead, not needed
    '(': _push(lambda: _MARK),
    '0': lambda m: m._stack.pop(),
    '1': lambda m: m._since_mark(),
    'N': _push(lambda: None),
    '\x88': _push(lambda: True),
    '\x89': _push(lambda: False),
    'J': lambda m: m._stack.append(m._number('<i')),
    'K': lambda m: m._stack.append(m._number('B')),
    'M': lambda m: m._stack.append(m._number('<H')),
    '\x8a': lambda m: m._long('B'),
    '\x8b': lambda m: m._long('<i'),
    'G': lambda m: m._stack.append(m._number('>d')),
    'X': lambda m: m._text('<I'),
    '\x8c': lambda m: m._text('B'),
    '\x8d': lambda m: m._text('<Q'),
    'U': lambda m: m._text('B', 'latin1'),
    'T': lambda m: m._text('<I', 'latin1'),
    'B': lambda m: m._stack.append(m._counted('<I')),
    'C': lambda m: m._stack.append(m._counted('B')),
    '\x8e': lambda m: m._stack.append(m._counted('<Q')),
    '\x96': lambda m: m._stack.append(m._counted('<Q')),
    ']': _push(list),
    'a': SafeUnpickler._append,
    'e': SafeUnpickler._extend,
    ')': _push(tuple),
    't': lambda m: m._stack.append(tuple(m._since_mark())),
    '\x85': lambda m: m._tuple(1),
    '\x86': lambda m: m._tuple(2),
    '\x87': lambda m: m._tuple(3),
    '}': _push(dict),
    'd': SafeUnpickler._dict,
    's': SafeUnpickler._set,
    'u': SafeUnpickler._set_all,
    'q': lambda m: m._remember(m._number('B')),
    'r': lambda m: m._remember(m._number('<I')),
    '\x94': lambda m: m._remember(len(m._memo)),
    'h': lambda m: m._recall(m._number('B')),
    'j': lambda m: m._recall(m._number('<I')),
    'c': SafeUnpickler._global,
    '\x93': SafeUnpickler._stack_name,
    'R': SafeUnpickler._reduce,
    '\x81': SafeUnpickler._new,
    'b': SafeUnpickler._build,
    'Q': SafeUnpickler._persistent,
  }.items()
}


def to_plain(value: Any, storages: Mapping[str, Any], room: int) -> Any:
  """What a machine has built, as plain containers of numbers, text and arrays.

  Something that is held twice is there twice, within `room` bytes of arrays.
  """
  left = NODES

  def convert(value: Any, depth: int) -> Any:
    nonlocal left, room
    left -= 1
    if depth > DEPTH or left < 0:
      raise UnsafeFileError('holds containers within containers without end')
    match value:
      case dict():
        return {k: convert(v, depth + 1) for k, v in value.items()}
      case _Storage() | _Name() | _Dtype():
        raise UnsafeFileError(
          'holds something that is neither an array nor a container'
        )
      case Tensor():
        room -= 8 * math.prod(value.shape)
        if room < 0:
          raise UnsafeFileError(f'would come to more than {EXPANSION} times its size')
        return _strided(value, storages)
      case _Array():
        if value.value is None:
          raise UnsafeFileError('holds an array without bytes')
        return value.value
      case PickledObject():
        record = PickledObject(value.library)
        record.state = convert(value.state, depth + 1)
        return record
      case list():
        return [convert(v, depth + 1) for v in value]
      case tuple():
        return tuple(convert(v, depth + 1) for v in value)
    return value

  return convert(value, 0)


def _strided(tensor: Tensor, storages: Mapping[str, Any]) -> np.ndarray:
  """A tensor as a view of its storage."""
  storage, offset, shape, strides = tensor
  if storage.key not in storages:
    raise UnsafeFileError(f'has no storage {storage.key[:20]!r}')
  raw = storages[storage.key]
  code = '<u2' if storage.dtype == 'bf16' else storage.dtype
  whole = np.frombuffer(raw, code)
  size = math.prod(shape)
  if type(offset) is not int or offset < 0 or len(shape) != len(strides):
    raise UnsafeFileError('holds a tensor of no possible shape')
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if size > whole.size or (size and last >= whole.size):
    raise UnsafeFileError(f'claims a tensor of shape {shape} in {len(raw)} bytes')
  steps = tuple(s * whole.itemsize for s in strides)
  start = whole[min(offset, whole.size) :]
  if size:
    view = np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False)
  else:
    view = np.zeros(shape, code)
  return bfloat16_to_float32(view) if storage.dtype == 'bf16' else view
