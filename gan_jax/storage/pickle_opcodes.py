"""The pickle opcodes that files of weights need, on a machine that cannot run code."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from gan_jax.storage.arrays import (
  AGAIN,
  MAX_EXPANSION,
  UnsafeFileError,
  array_from_bytes,
  check_shape,
  max_unpacked_bytes,
)
from gan_jax.storage.pickle_globals import (
  ALLOWED_GLOBALS,
  LIBRARIES,
  AllowedGlobal,
  PickledArray,
  PickledDtype,
  PickledObject,
  PickledStorage,
  ordered_dict,
  raw_bytes,
  refuse_global,
  set_item,
)

STOP = ord('.')
_MARK = object()


class PickleMachine:
  """Byte stream, stack and memo of the pickle machine.

  Attributes:
    position: offset of the next byte.
    stack: values, with a mark where a collection begins.
    memo: values by index, as the pickle stores and recalls them.
  """

  def __init__(self, data: memoryview):
    self._data, self.position = data, 0
    self._copy_bytes_left = max_unpacked_bytes(data)
    self.reset()

  def reset(self) -> None:
    """Empties stack and memo for the next pickle of the stream."""
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}

  def read(self, n: int) -> memoryview:
    """The next n bytes."""
    missing = n - (len(self._data) - self.position)
    if missing > 0:
      raise UnsafeFileError(f'ends early: {missing} bytes or more are missing, {AGAIN}')
    self.position += n
    return self._data[self.position - n : self.position]

  def read_byte(self) -> int:
    """The next byte: faster than `read`, for the opcodes themselves."""
    if self.position >= len(self._data):
      self.read(1)
    self.position += 1
    return self._data[self.position - 1]

  def read_number(self, fmt: str) -> Any:
    """A number in a format of `struct`."""
    return struct.unpack(fmt, self.read(struct.calcsize(fmt)))[0]

  def read_sized(self, fmt: str) -> memoryview:
    """Bytes that follow their number, which is in a format of `struct`."""
    return self.read(self.read_number(fmt))

  def read_line(self) -> str:
    """Text up to a newline, of at most 200 bytes."""
    end = self.position
    while end - self.position < 200 and self._data[end : end + 1] not in (b'\n', b''):
      end += 1
    line = str(self.read(end - self.position), 'utf-8')
    self.read(1)
    return line

  def push(self, value: Any) -> None:
    """Puts a value on the stack."""
    self.stack.append(value)

  def pop(self) -> Any:
    """Takes the top value, which must not be a mark, from the stack."""
    value = self.stack.pop()
    if value is _MARK:
      raise UnsafeFileError('is an invalid pickle: a mark is out of place')
    return value

  def pop_to_mark(self) -> list[Any]:
    """The values above the newest mark; they and the mark leave the stack."""
    mark = len(self.stack) - 1
    while self.stack[mark] is not _MARK:
      mark -= 1
      if mark < 0:
        raise UnsafeFileError('is an invalid pickle: a mark is missing')
    values = self.stack[mark + 1 :]
    del self.stack[mark:]
    return values

  def top_list(self) -> list[Any]:
    """The top value, which must be a list; it remains on the stack."""
    if type(self.stack[-1]) is not list:
      raise UnsafeFileError('appends to a value that is not a list')
    return self.stack[-1]

  def charge_copies(self, values: Any) -> None:
    """Counts the bytes that a call may copy, against the limit of the whole file."""
    for value in values:
      if isinstance(value, str | bytes | memoryview):
        self._copy_bytes_left -= len(value)
      elif isinstance(value, list | tuple | dict):
        self._copy_bytes_left -= 100 * len(value)
    if self._copy_bytes_left < 0:
      raise UnsafeFileError(f'would unpack to more than {MAX_EXPANSION} times its size')


def _check_protocol(m: PickleMachine) -> None:
  protocol = m.read_number('B')
  if protocol > 5:
    raise UnsafeFileError(f'is a pickle of protocol {protocol}: 5 is the highest known')


def _push_text(m: PickleMachine, fmt: str, encoding: str = 'utf-8') -> None:
  m.push(str(m.read_sized(fmt), encoding))


def _push_integer(m: PickleMachine, fmt: str) -> None:
  size = m.read_number(fmt)
  if not 0 <= size <= 256:
    raise UnsafeFileError(f'has an integer of {size} bytes: at most 256 are allowed')
  m.push(int.from_bytes(m.read(size), 'little', signed=True))


def _push_tuple(m: PickleMachine, n: int) -> None:
  m.push(tuple([m.pop() for _ in range(n)][::-1]))


def _append(m: PickleMachine) -> None:
  value = m.pop()
  m.top_list().append(value)


def _extend(m: PickleMachine) -> None:
  values = m.pop_to_mark()
  m.top_list().extend(values)


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
  if len(values) % 2:
    raise UnsafeFileError('is an invalid pickle: a key has no value')
  return zip(values[::2], values[1::2], strict=True)


def _set_item(m: PickleMachine) -> None:
  value, key = m.pop(), m.pop()
  set_item(m.stack[-1], key, value)


def _set_items(m: PickleMachine) -> None:
  for key, value in _pairs(m.pop_to_mark()):
    set_item(m.stack[-1], key, value)


def _push_dict(m: PickleMachine) -> None:
  m.push(ordered_dict(_pairs(m.pop_to_mark())))


def _write_memo(m: PickleMachine, index: int) -> None:
  m.memo[index] = m.stack[-1]


def _read_memo(m: PickleMachine, index: int) -> None:
  if index not in m.memo:
    raise UnsafeFileError('is an invalid pickle: it reads a memo entry before writing')
  m.push(m.memo[index])


def _push_global(m: PickleMachine, module: Any, name: Any) -> None:
  if not isinstance(module, str) or not isinstance(name, str):
    raise UnsafeFileError('names a global by something other than text')
  allowed = ALLOWED_GLOBALS.get(f'{module} {name}')
  if allowed is None:
    refuse_global(module, name)
  m.push(allowed)


def _global(m: PickleMachine) -> None:
  module = m.read_line()
  _push_global(m, module, m.read_line())


def _stack_global(m: PickleMachine) -> None:
  name, module = m.pop(), m.pop()
  _push_global(m, module, name)


def _reduce(m: PickleMachine) -> None:
  args, function = m.pop(), m.pop()
  if not isinstance(function, AllowedGlobal) or type(args) is not tuple:
    raise UnsafeFileError('calls a value that is not a function')
  m.charge_copies(args)
  m.push(function.call(*args))


def _new_object(m: PickleMachine) -> None:
  args, cls = m.pop(), m.pop()
  if not isinstance(cls, AllowedGlobal) or args != ():
    raise UnsafeFileError('creates an object of a value that is not a class')
  if cls.label in LIBRARIES:
    m.push(PickledObject(cls.label))
  elif cls.call is ordered_dict:
    m.push({})
  else:
    raise UnsafeFileError(f'creates an object of {cls.name!r}, which is not allowed')


def _build(m: PickleMachine) -> None:
  """Gives the object on the stack its state."""
  state, target = m.pop(), m.stack[-1]
  if isinstance(target, PickledObject):
    target.state = state
  elif isinstance(target, PickledDtype):
    order = state[1]
    if order not in ('<', '>', '|', '=') or any(x is not None for x in state[2:5]):
      raise UnsafeFileError('holds an array of an invalid dtype')
    target.order = order
  elif isinstance(target, PickledArray):
    m.charge_copies(state)
    _, shape, dtype, fortran_order, raw = state
    if not isinstance(dtype, PickledDtype):
      raise UnsafeFileError('holds an array of an invalid dtype')
    target.value = array_from_bytes(
      raw_bytes(raw), dtype.numpy, check_shape(shape), bool(fortran_order)
    )
  elif type(target) is not dict:  # attributes of a dict subclass are ignored
    raise UnsafeFileError('sets the state of a value that has none')


def _persistent_id(m: PickleMachine) -> None:
  match m.pop():
    case (
      'storage', AllowedGlobal(label=str(dtype)), str(key), str(), int(size), *rest
    ):  # fmt: skip
      if not dtype or dtype in LIBRARIES or rest not in ([], [None]):
        raise UnsafeFileError('has a tensor storage of an unknown kind')
      m.push(PickledStorage(dtype, key, size))
    case _:
      raise UnsafeFileError('refers to an object outside the pickle')


def _push_new(make: Callable[[], Any]) -> Callable[[PickleMachine], None]:
  return lambda m: m.push(make())


OPCODES: dict[int, Callable[[PickleMachine], Any]] = {
  ord(code): run
  for code, run in {
    '\x80': _check_protocol,
    '\x95': lambda m: m.read_number('<Q'),  # FRAME: a buffer size, not needed
    '(': _push_new(lambda: _MARK),
    '0': lambda m: m.stack.pop(),
    '1': lambda m: m.pop_to_mark(),
    'N': lambda m: m.stack.append(None),
    '\x88': _push_new(lambda: True),
    '\x89': _push_new(lambda: False),
    'J': lambda m: m.push(m.read_number('<i')),
    'K': lambda m: m.push(m.read_number('B')),
    'M': lambda m: m.push(m.read_number('<H')),
    '\x8a': lambda m: _push_integer(m, 'B'),
    '\x8b': lambda m: _push_integer(m, '<i'),
    'G': lambda m: m.push(m.read_number('>d')),
    'X': lambda m: _push_text(m, '<I'),
    '\x8c': lambda m: _push_text(m, 'B'),
    '\x8d': lambda m: _push_text(m, '<Q'),
    'U': lambda m: _push_text(m, 'B', 'latin1'),
    'T': lambda m: _push_text(m, '<I', 'latin1'),
    'B': lambda m: m.push(m.read_sized('<I')),
    'C': lambda m: m.push(m.read_sized('B')),
    '\x8e': lambda m: m.push(m.read_sized('<Q')),
    '\x96': lambda m: m.push(m.read_sized('<Q')),
    ']': _push_new(list),
    'a': _append,
    'e': _extend,
    ')': _push_new(tuple),
    't': lambda m: m.push(tuple(m.pop_to_mark())),
    '\x85': lambda m: _push_tuple(m, 1),
    '\x86': lambda m: _push_tuple(m, 2),
    '\x87': lambda m: _push_tuple(m, 3),
    '}': _push_new(dict),
    'd': _push_dict,
    's': _set_item,
    'u': _set_items,
    'q': lambda m: _write_memo(m, m.read_number('B')),
    'r': lambda m: _write_memo(m, m.read_number('<I')),
    '\x94': lambda m: _write_memo(m, len(m.memo)),
    'h': lambda m: _read_memo(m, m.read_number('B')),
    'j': lambda m: _read_memo(m, m.read_number('<I')),
    'c': _global,
    '\x93': _stack_global,
    'R': _reduce,
    '\x81': _new_object,
    'b': _build,
    'Q': _persistent_id,
  }.items()
}
