"""Kernels of a program compiled for GPUs: FLOPs, bytes and estimated time of each.

XLA's compiler for GPUs gives no cost of a program, so it is read from the text:
convolutions and matrix products by their shapes, all kernels by the operands that they
read and the results that they write.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gan_jax.plan.gpus import ACHIEVED_BANDWIDTH, LAUNCH_S, Gpu
from gan_jax.plan.hlo import (
  COLLECTIVES,
  Op,
  Program,
  array_sizes,
  custom_call_target,
  executed_ops,
  operand_names,
  shape_nbytes,
)

_NO_KERNEL = (
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all',
  'while', 'call', 'conditional', 'partition-id', 'replica-id', 'opt-barrier',
  'async-start', 'async-update', 'async-done', 'copy-done', 'send', 'send-done',
  'recv', 'recv-done',
)  # fmt: skip
_SHAPE = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\]')
_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)')
_INTERMEDIATE = re.compile(
  r'"intermediate_tensor_shape": ?\{[^}]*"dimensions": ?\[([^\]]*)'  # JAX's own JSON
)
_EXACT = re.compile(r'operand_precision(?:=\{|":\["?)highest', re.IGNORECASE)


class Cost(NamedTuple):
  """What a kernel, or all of them, do."""

  flops: float = 0.0  # of products and convolutions
  nbytes: int = 0  # read and written
  compute_s: float = 0.0  # of the products at the GPU's peak
  kernels: int = 0

  def plus(self, other: 'Cost', times: int) -> 'Cost':
    """The sum with another cost that occurs so many times."""
    return Cost(
      self.flops + other.flops * times,
      self.nbytes + other.nbytes * times,
      self.compute_s + other.compute_s * times,
      self.kernels + other.kernels * times,
    )


class Product(NamedTuple):
  """A matrix product or convolution."""

  flops: float
  dtype: str  # of its operands
  exact: bool  # float32 at precision 'highest', which TensorFloat-32 is not
  inputs: int  # channels that are summed over
  outputs: int


def estimate(program: Program, gpu: Gpu) -> tuple[Program, Cost]:
  """The program with nanoseconds as the cycles of its kernels, and its whole cost."""
  costs: dict[str, Cost] = {}  # by the name of the operation, unique in a module
  computations = {}
  for computation, ops in program.computations.items():
    shapes = {op.name: op.shape for op in ops}
    computations[computation] = [
      op._replace(cycles=round(seconds * 1e9))
      for op in ops
      for costs[op.name], seconds in [kernel_cost(program, op, shapes, gpu)]
    ]
  timed = program._replace(computations=computations)
  total = Cost()
  for op, count, fused in executed_ops(timed):
    if not fused:
      total = total.plus(costs[op.name], count)
  return timed, total


def is_kernel(op: Op) -> bool:
  """Whether an operation runs as a kernel, where it is not fused into another.

  Collectives are counted apart.
  """
  return op.opcode not in _NO_KERNEL and op.base_opcode not in COLLECTIVES


def kernel_cost(
  program: Program, op: Op, shapes: Mapping[str, str], gpu: Gpu
) -> tuple[Cost, float]:
  """What one execution of an operation costs, and its seconds; 0 if it is no kernel.

  Args:
    program: the program.
    op: the operation.
    shapes: shapes by name of the operations of its computation.
    gpu: figures of the GPU.
  """
  if not is_kernel(op):
    return Cost(), 0.0
  nbytes = kernel_nbytes(program, op, shapes)
  products = list(kernel_products(program, op, shapes))
  peak = sum(p.flops / gpu.peak_of(p.dtype, p.exact) for p in products)
  achieved = sum(
    p.flops / gpu.achieved(p.dtype, p.exact, p.inputs, p.outputs) for p in products
  )
  seconds = max(achieved, nbytes / (gpu.bandwidth * ACHIEVED_BANDWIDTH)) + LAUNCH_S
  return Cost(sum(p.flops for p in products), nbytes, peak, 1), seconds


def kernel_products(
  program: Program, op: Op, shapes: Mapping[str, str]
) -> Iterator[Product]:
  """The matrix products and convolutions of a kernel."""
  if op.opcode == 'fusion':
    for callee in op.calls:
      ops = program.computations.get(callee, ())
      inner = {o.name: o.shape for o in ops}
      for o in ops:
        yield from kernel_products(program, o, inner)
    return
  target = custom_call_target(op)
  operands = [shapes.get(name, '') for name in operand_names(op)]
  if op.opcode == 'convolution' or target.startswith('__cudnn$conv'):
    yield _convolution(op, target, operands)
  elif op.opcode == 'dot' or target.startswith('__cublas$'):
    dims = _dims(operands[0])
    contracted = _CONTRACTED.search(op.text)
    depth = (
      math.prod(dims[int(i)] for i in re.findall(r'\d+', contracted[1]))
      if contracted
      else 1
    )
    result = _dims(op.shape)
    yield Product(
      2.0 * math.prod(result) * depth,
      _dtype(operands[0]),
      _exact(op),
      depth,
      result[-1] if result else 1,
    )
  elif target.startswith('__cudnn$fmha'):
    scores = _INTERMEDIATE.search(op.text)
    sizes = [int(n) for n in re.findall(r'\d+', scores[1])] if scores else [0]
    depth = _dims(operands[0])[-1]
    products = 5 if 'Backward' in target else 2  # of which each has scores x depth
    yield Product(
      2.0 * products * math.prod(sizes) * depth,
      _dtype(operands[0]),
      False,
      depth,
      depth,
    )


def _convolution(op: Op, target: str, operands: list[str]) -> Product:
  """A convolution, also as the gradient of one: labels are those of the forward one."""
  results = [match.group() for match in _SHAPE.finditer(op.shape)]
  if 'BackwardFilter' in target:
    outputs, kernel = operands[1], results[0]
  elif 'BackwardInput' in target:
    outputs, kernel = operands[0], operands[1]
  else:
    outputs, kernel = results[0], operands[1]
  labels = _LABELS.search(op.text)
  sizes = dict(zip(labels[2] if labels else '', _dims(kernel), strict=False))
  flops = 2.0 * math.prod(_dims(outputs)) * math.prod(sizes.values())
  channels = sizes.get('i', 1), sizes.get('o', 1)
  return Product(flops / channels[1], _dtype(operands[0]), _exact(op), *channels)


def kernel_nbytes(program: Program, op: Op, shapes: Mapping[str, str]) -> int:
  """Bytes that a kernel reads and writes.

  Of an array that is only sliced or gathered from, the part that is read counts; of one
  that is updated in place, the update.
  """
  operands = operand_names(op)
  ops = program.computations.get(op.calls[0], []) if op.opcode == 'fusion' else []
  if ops:
    return _read_nbytes(ops) + _written_nbytes(ops)
  if op.opcode in ('slice', 'dynamic-slice', 'gather'):
    return 2 * shape_nbytes(op.shape)
  if op.opcode == 'dynamic-update-slice':
    return 2 * shape_nbytes(shapes.get(operands[1], ''))
  arrays = list(array_sizes(op.shape))
  if op.opcode == 'custom-call':  # the work space of a library
    arrays = [a for a in arrays if a.dtype not in ('u8', 's8')] or arrays
  elif op.opcode == 'copy-start':
    arrays = arrays[:1]
  read = sum(shape_nbytes(shapes.get(name, '')) for name in operands)
  return read + sum(array.nbytes for array in arrays)


def _read_nbytes(ops: list[Op]) -> int:
  """Bytes that a fusion reads: of an operand all, or the slices that it takes."""
  return sum(_nbytes_read_of(op, ops) for op in ops if op.opcode == 'parameter')


def _nbytes_read_of(parameter: Op, ops: list[Op]) -> int:
  names, read, whole = {parameter.name}, 0, shape_nbytes(parameter.shape)
  for op in ops:
    operands = operand_names(op)
    if not names & set(operands):
      continue
    if op.opcode == 'bitcast':
      names.add(op.name)
    elif op.opcode in ('slice', 'dynamic-slice', 'gather') and operands[0] in names:
      read += shape_nbytes(op.shape)
    elif op.opcode != 'dynamic-update-slice' or operands[0] not in names:
      return whole
  return min(read, whole)


def _written_nbytes(ops: list[Op]) -> int:
  """Bytes that a fusion writes: all results, or what it updates of one."""
  by_name = {op.name: op for op in ops}
  pending, written = [ops[-1]], 0
  while pending:
    op = pending.pop()
    operands = [by_name[name] for name in operand_names(op) if name in by_name]
    if op.opcode == 'tuple' or (op.opcode == 'bitcast' and operands):
      pending += operands
    elif op.opcode == 'dynamic-update-slice':
      written += shape_nbytes(operands[1].shape)
    else:
      written += shape_nbytes(op.shape)
  return written


def copied(program: Program) -> dict[str, dict[str, int]]:
  """Number of copies and transposes, and the bytes that they write."""
  total: dict[str, Counter[str]] = {'copy': Counter(), 'transpose': Counter()}
  for op, count, fused in executed_ops(program):
    if fused or not op.cycles:
      continue
    opcodes = {op.base_opcode}
    if op.opcode == 'fusion':
      opcodes = {o.opcode for o in program.computations.get(op.calls[0], ())}
      opcodes -= {'parameter', 'bitcast', 'tuple', 'convert', 'get-tuple-element'}
    for name in total:
      if opcodes == {name} or (name == 'transpose' and 'transpose' in opcodes):
        total[name].update(count=count, bytes=shape_nbytes(op.shape) * count)
  return {name: dict(counts) for name, counts in total.items() if counts}


def convolution_layouts(program: Program) -> dict[str, int]:
  """Number of convolutions by the layout of their maps: b01f is channels-last."""
  total: Counter[str] = Counter()
  for ops in program.computations.values():
    for op in ops:
      labels = _LABELS.search(op.text)
      if labels and custom_call_target(op).startswith('__cudnn$conv'):
        total[labels[1]] += 1
  return dict(total)


def _dims(shape: str) -> list[int]:
  match = _SHAPE.search(shape)
  return [int(n) for n in match[2].split(',') if n] if match else []


def _dtype(shape: str) -> str:
  match = _SHAPE.search(shape)
  return match[1] if match else ''


def _exact(op: Op) -> bool:
  return _EXACT.search(op.text) is not None
