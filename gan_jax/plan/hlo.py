"""What a compiled program's text says: its operations, what they cost and move."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

# Bytes of an element; what is smaller than a byte takes one.
WIDTHS = {'pred': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8, 'c64': 8, 'c128': 16}
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all')

_HEADER = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
_OP = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (.*)$')
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](?:\{([\d,]*)((?::[^}]*)?)\})?')
_TILE = re.compile(r'T\((\d+(?:,\d+)*)\)')
_CALLS = re.compile(r'(?:calls|to_apply|body|condition)=%?([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CONDITION = re.compile(r'condition=%?([\w.-]+)')
_CONSTANT = re.compile(r'constant\((\d+)\)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(r'replica_groups=(?:\[(\d+),(\d+)\]|\{\{([\d,]*)\})')


class Op(NamedTuple):
  """One operation of the text."""

  name: str
  shape: str
  code: str  # such as fusion, convolution, all-reduce-start
  path: str  # where it comes from: jit(step)/jvp(Generator)/block0/conv1/...
  cycles: int  # as the compiler estimates; 0 where it says nothing
  calls: tuple[str, ...]  # computations
  trips: int  # of a while loop, where the text says so; else 0
  line: str


class Program(NamedTuple):
  """Computations by name, in the order of the text."""

  entry: str
  computations: dict[str, list[Op]]
  header: str


def parse(text: str) -> Program:
  """The text of a compiled module, `compiled.as_text()`."""
  computations: dict[str, list[Op]] = {}
  entry, ops = '', []
  first, _, rest = text.partition('\n')
  for line in rest.splitlines():
    if line[:1].isspace():
      if found := _OP.match(line):
        ops.append(_op(found[1], found[2]))
    elif header := _HEADER.match(line):
      ops = computations[header[2]] = []
      entry = header[2] if header[1] else entry
  return Program(entry, computations, first)


def _op(name: str, text: str) -> Op:
  if text.startswith('('):  # a tuple's shape ends where its bracket closes
    depths = itertools.accumulate((c == '(') - (c == ')') for c in text)
    end = next(i for i, depth in enumerate(depths) if not depth) + 1
    shape, rest = text[:end], text[end + 1 :]
  else:
    shape, _, rest = text.partition(' ')
  path, cycles, trips = (r.search(rest) for r in (_NAME, _CYCLES, _TRIPS))
  calls = _CALLS.findall(rest)
  for branches in _BRANCHES.findall(rest):
    calls += [b.strip().removeprefix('%') for b in branches.split(',')]
  return Op(
    name=name,
    shape=shape,
    code=rest.partition('(')[0],
    path=path[1] if path else '',
    cycles=int(cycles[1]) if cycles else 0,
    calls=tuple(calls),
    trips=int(trips[1]) if trips else 0,
    line=rest,
  )


def arrays(shape: str) -> Iterator[tuple[str, int, int]]:
  """(type, bytes, bytes as laid out in tiles) of each array in a shape."""
  for dtype, sizes, order, layout in _ARRAY.findall(shape):
    width = WIDTHS.get(dtype) or max(int(re.sub(r'\D', '', dtype) or 8) // 8, 1)
    dims = [int(s) for s in sizes.split(',') if s]
    count = padded = 1
    for d in dims:
      count *= d
    laid = [dims[int(i)] for i in order.split(',') if i] if order else dims[::-1]
    if tile := _TILE.search(layout):  # its last entry is the fastest dimension's
      for i, t in enumerate(reversed(tile[1].split(','))):
        if i < len(laid):
          laid[i] = -(-laid[i] // int(t)) * int(t)
    for d in laid:
      padded *= d
    yield dtype, count * width, padded * width


def size(shape: str) -> int:
  """Bytes of all arrays in a shape."""
  return sum(n for _, n, _ in arrays(shape))


def executed(program: Program) -> Iterator[tuple[Op, int, bool]]:
  """(operation, how often, if on its own) as far as the entry reaches.

  What stands inside a fusion is not on its own: its cost is the fusion's. A loop whose
  end cannot be told counts once.
  """
  todo = [(program.entry, 1, True)]
  while todo:
    name, times, alone = todo.pop()
    for op in program.computations.get(name, ()):
      yield op, times, alone
      if op.code in ('while', 'call', 'conditional', 'async-start'):
        rounds = trips(program, op) if op.code == 'while' else 1
        todo += [(c, times * rounds, alone) for c in op.calls]
      elif op.code == 'fusion':
        todo += [(c, times, False) for c in op.calls]


def trips(program: Program, loop: Op) -> int:
  """How often a while loop goes round: told, or as a `lax.scan` counts from 0 to n."""
  ops = program.computations.get((_CONDITION.findall(loop.line) or [''])[0], [])
  constants = {op.name: _CONSTANT.match(op.line) for op in ops}
  ends = [
    found
    for op in ops
    if op.code == 'compare' and 'direction=LT' in op.line
    for name in re.findall(r'%([\w.-]+)', op.line)
    if (found := constants.get(name))
  ]
  return loop.trips or (int(ends[0][1]) if len(ends) == 1 else 1)


def cycles(program: Program) -> int:
  """The compiler's estimates, added up; overlap is not known."""
  return sum(op.cycles * times for op, times, alone in executed(program) if alone)


def kind(program: Program, op: Op) -> str:
  """What an operation mainly does: conv, dot, reduce, copy, collective or other."""
  codes = {op.code}
  lines = [op.line] if op.code == 'convolution' else []
  for name in op.calls if op.code == 'fusion' else ():
    for inner in program.computations.get(name, ()):
      codes.add(inner.code)
      if inner.code == 'convolution':
        lines.append(inner.line)
  if any(re.search(r'dim_labels=\w*[0-9]', line) for line in lines):
    return 'conv'
  if lines or 'dot' in codes:
    return 'dot'
  base = op.code.removesuffix('-start').removesuffix('-done')
  if base in COLLECTIVES:
    return 'collective'
  if codes & {'gather', 'scatter', 'sort'}:
    return 'gather'
  if codes & {'reduce', 'reduce-window', 'select-and-scatter'}:
    return 'reduce'
  if base in ('copy', 'transpose', 'pad', 'slice', 'broadcast', 'reshape'):
    return 'copy'
  return 'other'


_WRAPPED = re.compile(r'^(?:\w+\()+([^()]*)\)+$')
_PLUMBING = ('jit(', 'shard_map', 'checkpoint', 'rematted', 'pmap', 'while', 'body')


def layer(path: str, depth: int = 3) -> str:
  """jit(step)/transpose(jvp(Generator))/block0/conv1/dot -> Generator/block0/conv1.

  The last part names the operation itself; transformations and plumbing go.
  """
  parts = []
  for part in path.split('/')[:-1]:
    if found := _WRAPPED.match(part):
      if not part.startswith('jit('):
        part = found[1]
      if part.startswith('jit('):
        continue
    if part and not part.startswith(_PLUMBING):
      parts.append(part)
  return '/'.join(parts[:depth]) or '(none)'


def grouped(program: Program, depth: int = 3) -> list[dict[str, Any]]:
  """Estimated cycles by layer and kind, most first."""
  total: Counter[tuple[str, str, str]] = Counter()
  for op, times, alone in executed(program):
    if alone and op.cycles:
      way = 'backward' if 'transpose(' in op.path else 'forward'
      total[layer(op.path, depth), kind(program, op), way] += op.cycles * times
  return [
    {'layer': name, 'kind': what, 'way': way, 'cycles': n}
    for (name, what, way), n in total.most_common()
  ]


def collectives(program: Program, devices: int) -> list[dict[str, Any]]:
  """By kind: how many, the arrays' bytes, and the bytes that a chip has to send.

  A ring over n chips sends 2 (n - 1) / n of an all-reduce's bytes and (n - 1) / n of
  the whole array's for the others.
  """
  # One that runs beside other work stands in the fusion that starts it, again in each
  # that carries it on, and in the one that waits for it.
  continued = {
    op.name
    for name, ops in program.computations.items()
    if name.startswith('async_collective_fusion')
    or any('"AsyncCollectiveDone"' in op.line for op in ops)
    for op in ops
  }
  found: dict[str, Counter[str]] = defaultdict(Counter)
  for op, times, _ in executed(program):
    code = op.code.removesuffix('-start')
    if code not in COLLECTIVES or op.name in continued:
      continue
    n = devices
    if groups := _GROUPS.search(op.line):
      n = int(groups[2]) if groups[2] else len((groups[3] or '0').split(','))
    moved = size(op.shape)
    if op.code.endswith('-start'):  # a tuple of operand and result
      moved = max((b for _, b, _ in arrays(op.shape)), default=0)
    whole = moved * n if code == 'reduce-scatter' else moved
    sent = whole * (n - 1) / n * (2 if code == 'all-reduce' else 1)
    found[code].update(count=times, bytes=whole * times, sent=int(sent) * times)
  return [{'kind': name, **counts} for name, counts in sorted(found.items())]


def padding(program: Program) -> tuple[int, int]:
  """(bytes, bytes with the tiles' padding) of what the operations write."""
  logical = physical = 0
  for op, times, alone in executed(program):
    if alone and op.cycles:
      for _, plain, laid in arrays(op.shape):
        logical, physical = logical + plain * times, physical + laid * times
  return logical, physical


def donated(program: Program) -> int:
  """How many outputs take the place of an input."""
  return program.header.count('-alias)')


def convolutions(program: Program) -> Counter[str]:
  """How many convolutions and matrix products there are of each operand type."""
  found: Counter[str] = Counter()
  for ops in program.computations.values():
    shapes = {op.name: op.shape for op in ops}
    for op in ops:
      if op.code in ('convolution', 'dot'):
        operands = re.findall(r'%([\w.-]+)', op.line.partition('), ')[0])
        types = sorted(
          {t for o in operands[:2] for t, _, _ in arrays(shapes.get(o, ''))}
        )
        spatial = op.code == 'convolution' and re.search(
          r'dim_labels=\w*[0-9]', op.line
        )
        found[f'{"conv" if spatial else "dot"} {"+".join(types)}'] += 1
  return found
