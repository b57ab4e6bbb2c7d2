"""Compiles a lowered program, and keeps the compiler's answers in a cache."""

import contextlib
import gzip
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from gan_jax.plan import hlo, kernels
from gan_jax.plan.gpus import Gpu
from gan_jax.storage.files import atomic_path

_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_TOP = 40  # largest groups of operations that are reported
_OUT_OF_MEMORY = re.compile(r'(Used |temporaries \()([\d.]+)([KMGT])')

# Nothing can be measured on a GPU that is not there.
GPU_OPTIONS = {'xla_gpu_autotune_level': 0}

Figures = dict[str, Any]


def compile_cached(
  lowered: Any,
  mesh: Mesh,
  cache: Path,
  gpu: Gpu | None = None,
  options: Mapping[str, Any] | None = None,
) -> Figures:
  """Figures of a compiled program; what it needs, if it runs out of memory.

  Args:
    lowered: the lowered program, `jax.stages.Lowered`.
    mesh: the devices that it is lowered for.
    cache: folder of the compiler's answers, each under a hash of the program, the
      devices, the options and the compilers' versions.
    gpu: figures of a GPU that the program is compiled for; None for other devices.
    options: those of the compiler that the program was lowered with.
  """
  device = mesh.devices.flat[0]
  compilers = ['jaxlib', *_plugins(device.platform)]
  versions = [importlib.metadata.version(name) for name in compilers]
  nodes = len({d.process_index for d in mesh.devices.flat})
  digest = hashlib.sha256(lowered.as_text().encode())
  digest.update(json.dumps([mesh.size, device.device_kind, *versions]).encode())
  if gpu:
    digest.update(json.dumps([nodes, GPU_OPTIONS, gpu]).encode())
  if options:
    digest.update(json.dumps(options, sort_keys=True).encode())
  path = cache / f'{digest.hexdigest()[:24]}.json.gz'
  if path.is_file():
    answer = json.loads(gzip.decompress(path.read_bytes()))
  else:
    start = time.perf_counter()
    answer = compile_program(lowered, GPU_OPTIONS if gpu else None)
    answer['compile_s'] = round(time.perf_counter() - start, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_bytes(gzip.compress(json.dumps(answer).encode(), 6))
  figures: Figures = {'versions': dict(zip(compilers, versions, strict=True))}
  figures['compile_s'] = answer['compile_s']
  if set_options := {**(options or {}), **(GPU_OPTIONS if gpu else {})}:
    figures['compiler_options'] = set_options
  if 'out_of_memory' in answer:
    return figures | refusal_figures(answer['out_of_memory'])
  if gpu:
    return figures | gpu_figures(answer, mesh.size, mesh.size // nodes, gpu)
  return figures | program_figures(answer, mesh.size)


def _plugins(platform: str) -> list[str]:
  """The installed packages besides jaxlib that compile for a platform."""
  names = {'tpu': ('libtpu',), 'gpu': ('jax-cuda13-plugin', 'jax-cuda12-plugin')}
  found = []
  for name in names.get(platform, ()):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      importlib.metadata.version(name)
      found.append(name)
  return found


def compile_program(
  lowered: Any, options: dict[str, int] | None = None
) -> dict[str, Any]:
  """The compiled text and the compiler's analyses, or its out-of-memory error."""
  try:
    with silent_stderr():
      program = lowered.compile(options)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {'out_of_memory': ' '.join(str(error).split())}
  memory, costs = program.memory_analysis(), program.cost_analysis() or {}
  return {
    'text': program.as_text(),
    'costs': {name: costs.get(name, 0.0) for name in ('flops', 'bytes accessed')},
    'memory': {
      name: getattr(memory, f'{name}_size_in_bytes')
      for name in ('argument', 'output', 'alias', 'temp')
    },
  }


def refusal_figures(error: str) -> Figures:
  """The memory that an out-of-memory error names: of all arrays or of temporaries."""
  match = _OUT_OF_MEMORY.search(error)
  nbytes = int(float(match[2]) * _UNITS[match[3]]) if match else 0
  total = match is not None and match[1] == 'Used '
  return {
    'out_of_memory': error[:300],
    'hbm_bytes' if total else 'temporary_bytes': nbytes,
  }


def program_figures(answer: dict[str, Any], devices: int) -> Figures:
  """Figures of one device, from the text and the analyses of a compiled program."""
  program, costs = hlo.parse(answer['text']), answer['costs']
  plain, padded = hlo.written_nbytes(program)
  return {
    **memory_figures(answer['memory'], program),
    'program_flops': costs['flops'],
    'program_bytes': costs['bytes accessed'],
    'cycles': hlo.total_cycles(program),
    'rows_without_estimate': hlo.rows_without_estimate(program),
    'collectives': hlo.collectives(program, devices),
    'products': dict(hlo.product_types(program)),
    'padding': 1 - plain / padded if padded else 0.0,
    'top': hlo.cycles_by_layer(program)[:_TOP],
  }


def memory_figures(memory: dict[str, int], program: hlo.Program) -> Figures:
  """Bytes of a compiled program on one device, and what is donated."""
  arguments_and_outputs = memory['argument'] + memory['output'] - memory['alias']
  return {
    'hbm_bytes': arguments_and_outputs + memory['temp'],
    'arguments_bytes': memory['argument'],
    'donated_bytes': memory['alias'],
    'temporary_bytes': memory['temp'],
    'donated': hlo.donated_arrays(program),
  }


def gpu_figures(
  answer: dict[str, Any], devices: int, per_node: int, gpu: Gpu
) -> Figures:
  """Figures of one GPU; its costs are read from the text, as XLA gives none.

  Cycles are nanoseconds of the estimate.
  """
  program, cost = kernels.estimate(hlo.parse(answer['text']), gpu)
  return {
    **memory_figures(answer['memory'], program),
    'program_flops': cost.flops,
    'program_bytes': cost.nbytes,
    'written_bytes': hlo.written_nbytes(program)[0],
    'compute_s': cost.compute_s,
    'kernels': cost.kernels,
    'cycles': hlo.total_cycles(program),
    'collectives': hlo.collectives(program, devices, per_node),
    'products': dict(hlo.product_types(program)),
    'layouts': kernels.convolution_layouts(program),
    'copied': kernels.copied(program),
    'top': hlo.cycles_by_layer(program)[:_TOP],
  }


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
  """Discards what C++ libraries write to stderr, past Python."""
  sys.stderr.flush()
  stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 2)
  try:
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(null)
