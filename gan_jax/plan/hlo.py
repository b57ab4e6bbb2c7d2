"""Parses the text of a compiled program: operations, their cost and what they move."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

# Bytes of an element; types of less than a byte count as one.
ELEMENT_BYTES = {
  'pred': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8, 'c64': 8, 'c128': 16,
}  # fmt: skip
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all')

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
_OP = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (.*)$')
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](?:\{([\d,]*)((?::[^}]*)?)\})?')
_TILE = re.compile(r'T\((\d+(?:,\d+)*)\)')
_CALLS = re.compile(r'(?:calls|to_apply|body|condition)=%?([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CONDITION = re.compile(r'condition=%?([\w.-]+)')
_CONSTANT = re.compile(r'constant\((\d+)\)')
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(r'replica_groups=(?:\[(\d+),(\d+)\]|\{\{([\d,]*)\})')
_OPERAND = re.compile(r'%([\w.-]+)')
_INDEX_VECTOR = re.compile(r'index_vector_dim=(\d+)')
_SPATIAL = re.compile(r'dim_labels=\w*[0-9]')  # else a convolution is a matrix product
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_LIBRARIES = '__cudnn$', '__cublas$'
_IOTA_GROUPS = re.compile(
  r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?'
)


class Op(NamedTuple):
  """An operation, which is one line of the text."""

  name: str
  shape: str
  opcode: str  # such as fusion, convolution, all-reduce-start
  op_name: str  # its origin, such as jit(step)/jvp(Generator)/block0/conv1/...
  cycles: int  # the compiler's estimate; 0 if there is none
  calls: tuple[str, ...]  # names of computations
  trip_count: int  # of a while loop; 0 if unknown
  text: str  # what follows the shape

  @property
  def base_opcode(self) -> str:
    """The opcode without the suffix of an asynchronous operation."""
    return self.opcode.removesuffix('-start').removesuffix('-done')


class Program(NamedTuple):
  """A compiled module: its computations by name, in the order of the text."""

  entry: str
  computations: dict[str, list[Op]]
  header: str


class ExecutedOp(NamedTuple):
  """An operation that the entry computation reaches."""

  op: Op
  executions: int
  fused: bool  # inside a fusion, whose estimate includes it


class ArraySize(NamedTuple):
  """Type and size of an array."""

  dtype: str
  nbytes: int
  padded_nbytes: int  # with the padding of its tiles


def parse(text: str) -> Program:
  """Parses the text of a compiled module, `compiled.as_text()`."""
  computations: dict[str, list[Op]] = {}
  entry, ops = '', []
  header, _, rest = text.partition('\n')
  for line in rest.splitlines():
    if line[:1].isspace():
      if match := _OP.match(line):
        ops.append(_parse_op(match[1], match[2]))
    elif start := _COMPUTATION.match(line):
      ops = computations[start[2]] = []
      entry = start[2] if start[1] else entry
  return Program(entry, computations, header)


def _parse_op(name: str, text: str) -> Op:
  """Parses '<shape> <opcode>(<operands>), <attributes>'."""
  if text.startswith('('):  # the shape is a tuple: it ends with the matching bracket
    depths = itertools.accumulate((c == '(') - (c == ')') for c in text)
    end = next(i for i, depth in enumerate(depths) if not depth) + 1
    shape, rest = text[:end], text[end + 1 :]
  else:
    shape, _, rest = text.partition(' ')
  op_name, cycles, trips = (r.search(rest) for r in (_OP_NAME, _CYCLES, _TRIP_COUNT))
  calls = _CALLS.findall(rest)
  for branches in _BRANCHES.findall(rest):
    calls += [b.strip().removeprefix('%') for b in branches.split(',')]
  return Op(
    name=name,
    shape=shape,
    opcode=rest.partition('(')[0],
    op_name=op_name[1] if op_name else '',
    cycles=int(cycles[1]) if cycles else 0,
    calls=tuple(calls),
    trip_count=int(trips[1]) if trips else 0,
    text=rest,
  )


def operand_names(op: Op) -> list[str]:
  """Names of an operation's operands."""
  return _OPERAND.findall(op.text.partition('), ')[0])


def custom_call_target(op: Op) -> str:
  """The library function that an operation calls, such as __cudnn$convForward."""
  match = _TARGET.search(op.text) if op.opcode == 'custom-call' else None
  return match[1] if match else ''


def array_sizes(shape: str) -> Iterator[ArraySize]:
  """Sizes of the arrays in a shape, which is one array or a tuple."""
  for dtype, sizes, order, layout in _ARRAY.findall(shape):
    bits = int(re.sub(r'\D', '', dtype) or 8)
    width = ELEMENT_BYTES.get(dtype) or max(bits // 8, 1)
    dims = [int(size) for size in sizes.split(',') if size]
    # Fastest dimension first; row-major where the text gives no layout.
    padded = [dims[int(i)] for i in order.split(',') if i] if order else dims[::-1]
    if tile := _TILE.search(layout):
      for i, t in enumerate(reversed(tile[1].split(','))):
        if i < len(padded):
          padded[i] = -(-padded[i] // int(t)) * int(t)
    yield ArraySize(dtype, math.prod(dims) * width, math.prod(padded) * width)


def shape_nbytes(shape: str) -> int:
  """Bytes of all arrays in a shape."""
  return sum(array.nbytes for array in array_sizes(shape))


def executed_ops(program: Program) -> Iterator[ExecutedOp]:
  """The operations that the entry computation reaches, with loops multiplied.

  Of the branches of a conditional only the most expensive one is reached.
  """
  yield from _reached(program, program.entry, 1, False)


def _reached(
  program: Program, name: str, count: int, fused: bool
) -> Iterator[ExecutedOp]:
  for op in program.computations.get(name, ()):
    yield ExecutedOp(op, count, fused)
    if op.opcode == 'conditional':
      branches = [[*_reached(program, c, count, fused)] for c in op.calls]
      yield from max(branches, key=_expense, default=())
    elif op.opcode in ('while', 'call', 'async-start', 'fusion'):
      trips = trip_count(program, op) if op.opcode == 'while' else 1
      inside = fused or op.opcode == 'fusion'
      for callee in op.calls:
        yield from _reached(program, callee, count * trips, inside)


def _expense(branch: list[ExecutedOp]) -> tuple[int, int]:
  """Cycles of a branch, or its operations where none are estimated."""
  return _cycles(branch), len(branch)


def _cycles(executed: Iterable[ExecutedOp]) -> int:
  return sum(e.op.cycles * e.executions for e in executed if not e.fused)


def trip_count(program: Program, loop: Op) -> int:
  """Iterations of a while loop; 1 if the text does not tell.

  Read from the loop's attributes, else from a condition that compares a counter with
  one constant, as `lax.scan` compiles to.
  """
  ops = program.computations.get((_CONDITION.findall(loop.text) or [''])[0], [])
  constants = {op.name: _CONSTANT.match(op.text) for op in ops}
  ends = [
    constant
    for op in ops
    if op.opcode == 'compare' and 'direction=LT' in op.text
    for name in _OPERAND.findall(op.text)
    if (constant := constants.get(name))
  ]
  return loop.trip_count or (int(ends[0][1]) if len(ends) == 1 else 1)


def total_cycles(program: Program) -> int:
  """Sum of the compiler's estimates; operations that overlap count in full."""
  return _cycles(executed_ops(program))


def rows_without_estimate(program: Program) -> int:
  """Rows that gathers read and scatters add where the compiler estimates no cycles.

  A row is what one index selects, whatever its length.
  """
  shapes = {op.name: op.shape for ops in program.computations.values() for op in ops}
  rows = 0
  for op, count, fused in executed_ops(program):
    if fused or op.cycles or op.opcode not in ('gather', 'scatter', 'fusion'):
      continue
    inner = [op, *(x for callee in op.calls for x in program.computations[callee])]
    for x in inner:
      if x.opcode in ('gather', 'scatter'):
        operands = operand_names(x)  # of a scatter: arrays, indices, and updates
        rows += count * _indices(x, shapes[operands[len(operands) // 2]])
  return rows


def _indices(op: Op, shape: str) -> int:
  """Number of indices of a gather or scatter, from the shape of its index array."""
  (dims,) = re.findall(r'\[([\d,]*)\]', shape)
  sizes = [int(size) for size in dims.split(',') if size]
  vector = int(_INDEX_VECTOR.findall(op.text)[0])
  return math.prod(n for axis, n in enumerate(sizes) if axis != vector)


def op_kind(program: Program, op: Op) -> str:
  """The main work of an operation.

  One of conv, dot, collective, gather, reduce, copy and other.
  """
  opcodes, target = {op.opcode}, custom_call_target(op)
  if target.startswith('__cudnn$conv'):
    return 'conv'
  if target.startswith(_LIBRARIES):
    return 'dot'
  convolutions = [op.text] if op.opcode == 'convolution' else []
  for callee in op.calls if op.opcode == 'fusion' else ():
    for inner in program.computations.get(callee, ()):
      opcodes.add(inner.opcode)
      if inner.opcode == 'convolution':
        convolutions.append(inner.text)
  if any(_SPATIAL.search(text) for text in convolutions):
    return 'conv'
  if convolutions or 'dot' in opcodes:
    return 'dot'
  if op.base_opcode in COLLECTIVES:
    return 'collective'
  if opcodes & {'gather', 'scatter', 'sort'}:
    return 'gather'
  if opcodes & {'reduce', 'reduce-window', 'select-and-scatter'}:
    return 'reduce'
  if op.base_opcode in ('copy', 'transpose', 'pad', 'slice', 'broadcast', 'reshape'):
    return 'copy'
  return 'other'


# Such as transpose(jvp(Generator)).
_TRANSFORMED = re.compile(r'^(?:\w+\()+([^()]*)\)+$')
_NO_LAYER = ('jit(', 'shard_map', 'checkpoint', 'rematted', 'pmap', 'while', 'body')


def layer_name(op_name: str, depth: int = 3) -> str:
  """The layer of an operation: at most `depth` scopes of its `op_name`.

  jit(step)/transpose(jvp(Generator))/block0/conv1/dot -> Generator/block0/conv1. The
  last part names the operation itself; names of transformations and of control flow are
  dropped.
  """
  scopes = []
  for scope in op_name.split('/')[:-1]:
    if match := _TRANSFORMED.match(scope):
      if not scope.startswith('jit('):
        scope = match[1]
      if scope.startswith('jit('):
        continue
    if scope and not scope.startswith(_NO_LAYER):
      scopes.append(scope)
  return '/'.join(scopes[:depth]) or '(none)'


def cycles_by_layer(program: Program, depth: int = 3) -> list[dict[str, Any]]:
  """Estimated cycles by layer, kind of operation and pass; the largest first."""
  total: Counter[tuple[str, str, str]] = Counter()
  for op, count, fused in executed_ops(program):
    if not fused and op.cycles:
      direction = 'backward' if 'transpose(' in op.op_name else 'forward'
      group = layer_name(op.op_name, depth), op_kind(program, op), direction
      total[group] += op.cycles * count
  return [
    {'layer': layer, 'kind': kind, 'pass': direction, 'cycles': cycles}
    for (layer, kind, direction), cycles in total.most_common()
  ]


def collectives(
  program: Program, devices: int, per_node: int = 0
) -> list[dict[str, Any]]:
  """Number of collectives of each kind, bytes of their arrays and bytes sent.

  `bytes` is the size of the arrays before they are scattered or after they are
  gathered. `sent` is what each of n devices in a ring sends: 2 (n - 1) / n of the bytes
  of an all-reduce, (n - 1) / n of the others'.

  Args:
    program: the program.
    devices: all devices.
    per_node: devices of a node. If given, `between_nodes` counts the collectives whose
      groups span nodes, and `network` is what a device sends to other nodes of `sent`:
      rings through all devices leave a node once for each of its devices.
  """
  continuations = _async_continuations(program)
  total: dict[str, Counter[str]] = defaultdict(Counter)
  for op, count, _ in executed_ops(program):
    kind = op.opcode.removesuffix('-start')
    if kind not in COLLECTIVES or op.name in continuations:
      continue
    n = _group_size(op, devices)
    nbytes = shape_nbytes(op.shape)
    if op.opcode.endswith('-start'):  # its shape is a tuple of operand and result
      arrays, k = [array.nbytes for array in array_sizes(op.shape)], 1
      if per_node:  # several of both, and an all-reduce's has results only
        k = len(operand_names(op))
      nbytes = max(sum(arrays[:k]), sum(arrays[k : 2 * k]))
    elif kind == 'reduce-scatter':  # its result is a shard
      nbytes *= n
    sent = nbytes * (n - 1) / n * (2 if kind == 'all-reduce' else 1)
    total[kind].update(count=count, bytes=nbytes * count, sent=int(sent) * count)
    if per_node:
      nodes = len({device // per_node for device in _first_group(op, devices)})
      network = int(sent * nodes / n) if nodes > 1 else 0
      total[kind].update(network=network * count, between_nodes=count * (nodes > 1))
  return [{'kind': kind, **counts} for kind, counts in sorted(total.items())]


def _async_continuations(program: Program) -> set[str]:
  """Names of operations that repeat an asynchronous collective.

  A collective that overlaps other work is written in the fusion that starts it, again
  in every fusion that continues it, and in the one that waits for it.
  """
  return {
    op.name
    for name, ops in program.computations.items()
    if name.startswith('async_collective_fusion')
    or any('"AsyncCollectiveDone"' in op.text for op in ops)
    for op in ops
  }


def _group_size(collective: Op, devices: int) -> int:
  """Devices that take part in one group of a collective."""
  groups = _GROUPS.search(collective.text)
  if not groups:
    return devices
  return int(groups[2]) if groups[2] else len((groups[3] or '0').split(','))


def _first_group(collective: Op, devices: int) -> list[int]:
  """Devices of the first group of a collective."""
  if iota := _IOTA_GROUPS.search(collective.text):
    shape, sizes, order = (
      [int(n) for n in re.findall(r'\d+', text or '')] for text in iota.groups()
    )
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids.transpose(order or None).reshape(shape)[0].tolist()
  groups = _GROUPS.search(collective.text)
  return [int(n) for n in groups[3].split(',')] if groups else list(range(devices))


def written_nbytes(program: Program) -> tuple[int, int]:
  """Bytes that the estimated operations write: (without, with padding of tiles)."""
  plain = padded = 0
  for op, count, fused in executed_ops(program):
    if not fused and op.cycles:
      for array in array_sizes(op.shape):
        plain += array.nbytes * count
        padded += array.padded_nbytes * count
  return plain, padded


def donated_arrays(program: Program) -> int:
  """Number of outputs that reuse the memory of an input."""
  return program.header.count('-alias)')


def product_types(program: Program) -> Counter[str]:
  """Number of convolutions and matrix products by operand types: 'conv bf16'."""
  total: Counter[str] = Counter()
  for ops in program.computations.values():
    shapes = {op.name: op.shape for op in ops}
    for op in ops:
      target = custom_call_target(op)
      library_conv = target.startswith('__cudnn$conv')
      if op.opcode in ('convolution', 'dot') or target.startswith(_LIBRARIES):
        operands = operand_names(op)[:2]
        arrays = [a for name in operands for a in array_sizes(shapes.get(name, ''))]
        types = '+'.join(sorted({array.dtype for array in arrays}))
        spatial = library_conv or (
          op.opcode == 'convolution' and _SPATIAL.search(op.text)
        )
        total[f'{"conv" if spatial else "dot"} {types}'] += 1
  return total
