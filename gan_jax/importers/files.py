"""Files of published weights, read without trusting them.

  read_arrays            .pth, .npz, .safetensors -> arrays by name
  read_tree              .pth -> containers, numbers, text and arrays
  read_network_pickle    NVIDIA's (G, D, Gs) -> records of their variables

Pickles are programs. They run here on a small machine of our own, which knows how to
build containers and arrays and nothing else: a name such as os.system is refused where
it is mentioned, and source code within a pickle stays text. Neither PyTorch nor
TensorFlow is imported. A file is mapped into memory and arrays are views of it, and
nothing that it claims about sizes is believed before it fits the bytes that are there.
"""

import json
import math
import mmap
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gan_jax import UserError

STEPS = 1_000_000  # of a pickle; BigGAN-deep's optimizer takes a tenth of that
NODES = 200_000  # of what it builds, counted as often as they are held
DEPTH = 32  # of containers in containers
MEMBERS = 20_000  # of a zip file
EXPANSION = 20  # how much larger than its file (and 16 MB) all that is in it may be
HEADER = 16 << 20  # bytes of a safetensors header


class Refused(Exception):
  """What is wrong with a file; `_reading` puts the file's name in front."""


@dataclass(frozen=True)
class Network:
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
      return _safetensors(data)
    if data[:2] == b'PK':
      archive = _Archive(data)
      npy = [name for name in archive.names if name.endswith('.npy')]
      if npy:
        return {n[:-4]: _npy(archive.read(n)) for n in npy}
    return dict(_flat(_torch_tree(data)))


def read_tree(path: Path | str) -> Any:
  """What torch.save wrote: dicts, lists, tuples, numbers, text and arrays.

  Raises:
    UserError: as `read_arrays`.
  """
  with _reading(path) as data:
    return _torch_tree(data)


def read_network_pickle(path: Path | str) -> tuple[Network, ...]:
  """The networks of an NVIDIA pickle, in its order: (G, D, Gs).

  Raises:
    UserError: as `read_arrays`.
  """
  with _reading(path) as data:
    tree = _plain(_Machine(data).run(), {}, _limit(data))
    if isinstance(tree, _Record):
      tree = (tree,)
    if not isinstance(tree, tuple | list) or not tree:
      raise Refused('holds no tuple of networks')
    return tuple(_network(part) for part in tree)


@contextmanager
def _reading(path: Path | str) -> Iterator[memoryview]:
  """The bytes of a file; whatever goes wrong in reading them is a UserError."""
  try:
    with open(path, 'rb') as f:
      if not f.seek(0, 2):
        raise Refused('is empty')
      data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    yield data
  except Refused as reason:
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


# ---- zip, npy, safetensors


class _Archive:
  """A zip file in memory; members that are stored are views of it."""

  def __init__(self, data: memoryview):
    self._data = data
    if sum(1 for _ in re.finditer(b'PK\x01\x02', data)) > MEMBERS:
      raise Refused(f'has more than {MEMBERS} members')
    with zipfile.ZipFile(_Stream(data)) as z:
      self.names = {info.filename: info for info in z.infolist()}
    if sum(i.file_size for i in self.names.values()) > _limit(data):
      raise Refused(f'would unpack to more than {EXPANSION} times its size')

  def read(self, name: str) -> memoryview:
    if name not in self.names:
      raise Refused(f'has no member {name[:80]!r}')
    info = self.names[name]
    start = info.header_offset
    if self._data[start : start + 4] != b'PK\x03\x04' or info.flag_bits & 1:
      raise Refused(f'has a damaged or encrypted member {name[:80]!r}')
    lengths = struct.unpack_from('<HH', self._data, start + 26)
    start += 30 + sum(lengths)
    raw = self._data[start : start + info.compress_size]
    if info.compress_type == zipfile.ZIP_DEFLATED:
      raw = memoryview(zlib.decompressobj(-15).decompress(raw, info.file_size or 1))
    elif info.compress_type != zipfile.ZIP_STORED:
      raise Refused(f'is compressed in a way that is not known ({name[:80]!r})')
    if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
      raise Refused(f'is damaged: the checksum of {name[:80]!r} is wrong')
    return raw


class _Stream:
  """A memoryview as the seekable file that zipfile wants, without a copy."""

  def __init__(self, data: memoryview):
    self._data, self._at = data, 0

  def seek(self, offset: int, whence: int = 0) -> int:
    at = offset + (0, self._at, len(self._data))[whence]
    if at < 0:
      raise OSError('a position before the start')
    self._at = at
    return at

  def tell(self) -> int:
    return self._at

  def seekable(self) -> bool:
    return True

  def read(self, n: int = -1) -> bytes:
    end = len(self._data) if n is None or n < 0 else self._at + n
    part = bytes(self._data[self._at : end])
    self._at += len(part)
    return part


def _limit(data: memoryview) -> int:
  """Bytes that all within a file may come to."""
  return EXPANSION * len(data) + (16 << 20)


def _npy(raw: memoryview) -> np.ndarray:
  stream = _Stream(raw)
  version = np.lib.format.read_magic(stream)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in readers:
    raise Refused(f'holds an array in version {version} of the .npy format')
  shape, fortran, dtype = readers[version](stream)
  return _array(raw[stream.tell() :], dtype, shape, fortran)


def _array(
  raw: Any, dtype: np.dtype, shape: tuple[int, ...], fortran: bool = False
) -> np.ndarray:
  """An array over bytes that have to be exactly as many as it needs."""
  if dtype.hasobject or dtype.kind not in 'biuf':
    raise Refused(f'holds an array of {dtype}, which is no number')
  if math.prod(_shape(shape)) * dtype.itemsize != len(raw):
    raise Refused(f'claims an array of shape {shape} in {len(raw)} bytes')
  return np.frombuffer(raw, dtype).reshape(shape, order='F' if fortran else 'C')


_SAFETENSORS = {
  'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': 'bf16', 'I64': '<i8',
  'I32': '<i4', 'I16': '<i2', 'I8': 'i1', 'U64': '<u8', 'U32': '<u4',
  'U16': '<u2', 'U8': 'u1', 'BOOL': '?',
}  # fmt: skip


def _safetensors(data: memoryview) -> dict[str, np.ndarray]:
  (size,) = struct.unpack_from('<Q', data)
  if size > min(HEADER, len(data) - 8):
    raise Refused(f'claims a header of {size} bytes')
  header = json.loads(bytes(data[8 : 8 + size]))
  header.pop('__metadata__', None)
  body, arrays, end = data[8 + size :], {}, 0
  for name, entry in sorted(header.items(), key=lambda e: e[1]['data_offsets']):
    start, stop = entry['data_offsets']
    if entry['dtype'] not in _SAFETENSORS or start != end or stop > len(body):
      raise Refused(f'has no possible place or type for {name[:80]!r}')
    raw, end = body[start:stop], stop
    arrays[name] = _typed(raw, _SAFETENSORS[entry['dtype']], tuple(entry['shape']))
  return arrays


def _typed(raw: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
  if dtype != 'bf16':
    return _array(raw, np.dtype(dtype), shape)
  return _widened(_array(raw, np.dtype('<u2'), shape))


def _widened(half: np.ndarray) -> np.ndarray:
  """bfloat16, read as integers, as float32."""
  return np.left_shift(half, 16, dtype='<u4').view('<f4')


# ---- pickle


class _Record:
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


class _Tensor(NamedTuple):
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
    raise Refused('encodes something that is not text')
  return text.encode('latin1')


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
  found: dict[Any, Any] = {}
  for key, value in pairs:
    _put(found, key, value)
  return found


def _set(items: Any = ()) -> list[Any]:
  if not isinstance(items, list | tuple):
    raise Refused('makes a set of what is no list')
  return list(items)


def _dtype(code: Any, *_: Any) -> _Dtype:
  if not isinstance(code, str) or not re.fullmatch(r'[biuf][1248]|b1', code):
    what = repr(code[:20]) if isinstance(code, str) else 'something'
    raise Refused(f'holds an array of {what}, which is no number')
  return _Dtype(code)


def _scalar(dtype: Any, raw: Any) -> np.ndarray:
  return _array(_raw(raw), dtype.numpy, ())


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
  return _array(_raw(raw), dtype.numpy, _shape(shape), order == 'F')


def _raw(value: Any) -> Any:
  """Bytes; Python 2 wrote them as text."""
  if isinstance(value, str):
    return value.encode('latin1')
  if isinstance(value, bytes | memoryview):
    return value
  raise Refused('holds an array without bytes')


def _shape(value: Any) -> tuple[int, ...]:
  if not isinstance(value, tuple | list) or len(value) > 32:
    raise Refused('holds an array of no possible shape')
  if not all(type(n) is int and 0 <= n < 2**63 for n in value):
    raise Refused('holds an array of no possible shape')
  return tuple(value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise Refused('holds a tensor without a storage')
  return _Tensor(storage, offset, _shape(shape), _shape(strides))


def _not_callable(*_: Any) -> NoReturn:
  raise Refused('calls what is no function')


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
    'torch Size': lambda shape=(): _shape(shape),
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
    raise Refused('sets an entry of what is no plain dict')
  target[key] = value


class _Machine:
  """Runs one pickle. `run` may be called again for the next one in the stream."""

  def __init__(self, data: memoryview, at: int = 0):
    self._data, self.at = data, at
    self._steps, self._room = 0, _limit(data)

  def run(self) -> Any:
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    while True:
      self._steps += 1
      if self._steps > STEPS:
        raise Refused(f'is a pickle of more than {STEPS} steps')
      code = self._take(1)[0]
      if code == 0x2E:  # STOP
        return self._pop()
      step = _STEPS.get(code)
      if step is None:
        name = _OPCODES.get(chr(code), hex(code))
        raise Refused(f'has the pickle opcode {name}, which no file of weights needs')
      step(self)

  def _take(self, n: int) -> memoryview:
    if n > len(self._data) - self.at:
      raise Refused(f'ends early: {n} bytes are missing')
    self.at += n
    return self._data[self.at - n : self.at]

  def _number(self, form: str) -> Any:
    return struct.unpack(form, self._take(struct.calcsize(form)))[0]

  def _counted(self, form: str) -> memoryview:
    return self._take(self._number(form))

  def _pop(self) -> Any:
    value = self._stack.pop()
    if value is _MARK:
      raise Refused('is a pickle with a mark out of place')
    return value

  def _since_mark(self) -> list[Any]:
    at = len(self._stack) - 1
    while self._stack[at] is not _MARK:
      at -= 1
      if at < 0:
        raise Refused('is a pickle with a mark missing')
    values = self._stack[at + 1 :]
    del self._stack[at:]
    return values

  def _top(self, kind: type) -> Any:
    if type(self._stack[-1]) is not kind:
      raise Refused(f'takes something for a {kind.__name__} that is none')
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
      raise Refused(f'has a number of {size} bytes')
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
      raise Refused('is a pickle with a key without a value')
    for key, value in zip(values[::2], values[1::2], strict=True):
      _put(self._stack[-1], key, value)

  def _dict(self) -> None:
    values = self._since_mark()
    self._stack.append({})
    for key, value in zip(values[::2], values[1::2], strict=True):
      _put(self._stack[-1], key, value)

  def _name(self, module: Any, name: Any) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
      raise Refused('names something without a name')
    full = f'{module} {name}'
    if full not in _KNOWN:
      raise Refused(
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
      raise Refused('calls what is no function')
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
      raise Refused(f'would come to more than {EXPANSION} times its size')

  def _new(self) -> None:
    args, cls = self._pop(), self._pop()
    if not isinstance(cls, _Name) or args != ():
      raise Refused('makes an object of what is no class')
    if cls.value in _CLASSES:
      self._stack.append(_Record(str(cls.value)))
    elif cls.call is _ordered:
      self._stack.append({})
    else:
      raise Refused(f'makes an object of {cls.name!r}')

  def _build(self) -> None:
    state, target = self._pop(), self._stack[-1]
    if isinstance(target, _Record):
      target.state = state
    elif isinstance(target, _Dtype):
      order = state[1]
      if order not in ('<', '>', '|', '=') or any(x is not None for x in state[2:5]):
        raise Refused('holds an array of no plain type')
      target.order = order
    elif isinstance(target, _Array):
      self._charge(state)
      _, shape, dtype, fortran, raw = state
      if not isinstance(dtype, _Dtype):
        raise Refused('holds an array of no plain type')
      target.value = _array(_raw(raw), dtype.numpy, _shape(shape), bool(fortran))
    elif type(target) is not dict:  # a dict's attributes are of no interest
      raise Refused('gives a state to what has none')

  def _persistent(self) -> None:
    match self._pop():
      case ('storage', _Name(value=str(dtype)), str(key), str(), int(size), *rest):
        if dtype in _CLASSES or rest not in ([], [None]):
          raise Refused('has a storage of a kind that is not known')
        self._stack.append(_Storage(dtype, key, size))
      case _:
        raise Refused('refers to something outside of the pickle')

  def _remember(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def _recall(self, index: int) -> None:
    if index not in self._memo:
      raise Refused('is a pickle that recalls what it has not kept')
    self._stack.append(self._memo[index])


def _protocol(m: _Machine) -> None:
  if m._number('B') > 5:
    raise Refused('is a pickle of a later protocol than 5')


def _push(value: Callable[[], Any]) -> Callable[[_Machine], None]:
  return lambda m: m._stack.append(value())


_STEPS: dict[int, Callable[[_Machine], Any]] = {
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
    'a': _Machine._append,
    'e': _Machine._extend,
    ')': _push(tuple),
    't': lambda m: m._stack.append(tuple(m._since_mark())),
    '\x85': lambda m: m._tuple(1),
    '\x86': lambda m: m._tuple(2),
    '\x87': lambda m: m._tuple(3),
    '}': _push(dict),
    'd': _Machine._dict,
    's': _Machine._set,
    'u': _Machine._set_all,
    'q': lambda m: m._remember(m._number('B')),
    'r': lambda m: m._remember(m._number('<I')),
    '\x94': lambda m: m._remember(len(m._memo)),
    'h': lambda m: m._recall(m._number('B')),
    'j': lambda m: m._recall(m._number('<I')),
    'c': _Machine._global,
    '\x93': _Machine._stack_name,
    'R': _Machine._reduce,
    '\x81': _Machine._new,
    'b': _Machine._build,
    'Q': _Machine._persistent,
  }.items()
}


def _plain(value: Any, storages: Mapping[str, Any], room: int) -> Any:
  """What a machine has built, as plain containers of numbers, text and arrays.

  Something that is held twice is there twice, within `room` bytes of arrays.
  """
  left = NODES

  def convert(value: Any, depth: int) -> Any:
    nonlocal left, room
    left -= 1
    if depth > DEPTH or left < 0:
      raise Refused('holds containers within containers without end')
    match value:
      case dict():
        return {k: convert(v, depth + 1) for k, v in value.items()}
      case _Storage() | _Name() | _Dtype():
        raise Refused('holds something that is neither an array nor a container')
      case _Tensor():
        room -= 8 * math.prod(value.shape)
        if room < 0:
          raise Refused(f'would come to more than {EXPANSION} times its size')
        return _strided(value, storages)
      case _Array():
        if value.value is None:
          raise Refused('holds an array without bytes')
        return value.value
      case _Record():
        record = _Record(value.library)
        record.state = convert(value.state, depth + 1)
        return record
      case list():
        return [convert(v, depth + 1) for v in value]
      case tuple():
        return tuple(convert(v, depth + 1) for v in value)
    return value

  return convert(value, 0)


def _strided(tensor: _Tensor, storages: Mapping[str, Any]) -> np.ndarray:
  """A tensor as a view of its storage."""
  storage, offset, shape, strides = tensor
  if storage.key not in storages:
    raise Refused(f'has no storage {storage.key[:20]!r}')
  raw = storages[storage.key]
  code = '<u2' if storage.dtype == 'bf16' else storage.dtype
  whole = np.frombuffer(raw, code)
  size = math.prod(shape)
  if type(offset) is not int or offset < 0 or len(shape) != len(strides):
    raise Refused('holds a tensor of no possible shape')
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if size > whole.size or (size and last >= whole.size):
    raise Refused(f'claims a tensor of shape {shape} in {len(raw)} bytes')
  steps = tuple(s * whole.itemsize for s in strides)
  start = whole[min(offset, whole.size) :]
  if size:
    view = np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False)
  else:
    view = np.zeros(shape, code)
  return _widened(view) if storage.dtype == 'bf16' else view


_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older stream


def _torch_tree(data: memoryview) -> Any:
  if data[:2] == b'PK':
    archive = _Archive(data)
    pickles = [n for n in archive.names if n == 'data.pkl' or n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise Refused('is a zip file, but neither of torch.save nor of numpy.savez')
    folder = pickles[0].removesuffix('data.pkl')
    order = f'{folder}byteorder'
    if order in archive.names and archive.read(order) != b'little':
      raise Refused('was written on a big-endian machine')
    tree = _Machine(archive.read(pickles[0])).run()
    return _plain(tree, _Members(archive, f'{folder}data/'), _limit(data))
  if data[0] != 0x80:
    raise Refused('is neither a .pth, .npz, .safetensors file nor a pickle')
  machine = _Machine(data)
  first = machine.run()
  if first != _TORCH_MAGIC:
    return _plain(first, {}, _limit(data))
  machine.run(), machine.run()  # version, and sizes of C types on that machine
  tree = machine.run()
  keys = machine.run()
  at, storages = machine.at, {}
  sizes: dict[str, int] = {}
  _storage_types(tree, sizes)
  for key in keys:
    if not isinstance(key, str) or key not in sizes:
      raise Refused('has a storage that no tensor uses')
    (count,) = struct.unpack_from('<q', data, at)
    size = count * sizes[key]
    if count < 0 or size > len(data) - at - 8:
      raise Refused(f'ends early: a storage of {count} entries is missing')
    storages[key] = data[at + 8 : at + 8 + size]
    at += 8 + size
  return _plain(tree, storages, _limit(data))


class _Members(Mapping):
  """Storages of a zip file by key, checked when they are asked for."""

  def __init__(self, archive: _Archive, folder: str):
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
    if isinstance(value, _Tensor):
      kind = value.storage.dtype
      sizes[value.storage.key] = 2 if kind == 'bf16' else np.dtype(kind).itemsize
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
      seen.add(id(value))
      stack += value.values() if isinstance(value, dict) else value


def _network(record: Any) -> Network:
  if not isinstance(record, _Record) or not isinstance(record.state, dict):
    raise Refused('holds something that is no network')
  state = record.state
  if state.get('version') not in (2, 3):
    raise Refused(f'holds a network in version {str(state.get("version"))[:20]}')
  for key, kind in (('static_kwargs', dict), ('variables', list | tuple)):
    if not isinstance(state.get(key), kind):
      raise Refused(f'holds a network without {key}')
  variables: dict[str, np.ndarray] = {}
  parts = [('', state)]
  for name, component in (state.get('components') or {}).items():
    parts.append((f'G_{name}/', component.state))
  for prefix, part in parts:
    for name, value in part['variables']:
      variables[f'{prefix}{name}'] = np.asarray(value)
      if variables[f'{prefix}{name}'].dtype.kind not in 'biuf':
        raise Refused(f'holds a variable {name[:80]!r} that is no array')
  return Network(
    str(state.get('name')),
    str(state.get('build_func_name')),
    record.library,
    state['static_kwargs'],
    variables,
  )
