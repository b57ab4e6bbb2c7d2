"""Published figures of TPU chips, and meshes for topologies and the local devices."""

import functools
import itertools
import math
import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.plan.compilation import silent_stderr
from gan_jax.plan.gpus import GPUS, Gpu, check_gpus, target_config
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.mesh import make_mesh


class Chip(NamedTuple):
  """Figures of one device; 0 where a figure is unknown."""

  name: str
  hbm: float  # bytes of memory
  peak: float  # FLOP/s in bfloat16; of a measured device in float32
  bandwidth: float  # of the memory, bytes/s
  ici: float  # bytes/s that a chip sends over all links of its interconnect
  clock: float  # cycles/s
  source: str

  def collectives_s(self, collectives: list[dict[str, Any]]) -> float:
    """Seconds of all collectives, one after the other; see `hlo.collectives`."""
    sent: int = sum(c['sent'] for c in collectives)
    return sent / self.ici if self.ici else 0.0


_DOCS = 'https://cloud.google.com/tpu/docs/'
# Peak, HBM and its bandwidth as published. Interconnect: the all-reduce bandwidth
# published for a pod, divided by its chips (v5p, v6e: half of the bidirectional one,
# which on v5e gives the same number). Clock: the peak divided by the FLOPs of a cycle,
# 2 * 128 * 128 per published matrix unit (v6e: 2 * 256 * 256 per unit, of which the
# compiler's estimates for a large product imply four).
CHIPS = {
  'v4': Chip('TPU v4', 32 * 2**30, 275e12, 1200e9, 268e9, 1.05e9, _DOCS + 'v4'),
  'v5e': Chip('TPU v5e', 16e9, 197e12, 819e9, 200e9, 1.50e9, _DOCS + 'v5e'),
  'v5p': Chip('TPU v5p', 95 * 2**30, 459e12, 2765e9, 600e9, 1.75e9, _DOCS + 'v5p'),
  'v6e': Chip('TPU v6e', 32e9, 918e12, 1638e9, 400e9, 1.75e9, _DOCS + 'v6e'),
}
# The slices that Google offers: all of v5e and v6e; of v4 and v5p those below a cube of
# 4x4x4 chips, and from there on every box of such cubes in at most so many chips.
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SMALL = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')
_SLICES = {'v4': _SMALL, 'v5e': _FLAT, 'v5p': _SMALL, 'v6e': _FLAT}
_MOST_CHIPS = {'v4': 4096, 'v5p': 6144}
# libtpu queries the machine that it runs on and logs that it is no TPU host. A topology
# given by name needs none of this.
_LIBTPU_ENVIRONMENT = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_STDERR_LOG_LEVEL': '3',
  'TPU_MIN_LOG_LEVEL': '3',
}


def topology_mesh(topology: str) -> tuple[Mesh, Chip | Gpu]:
  """The mesh of a topology, and the figures of its devices.

  Args:
    topology: a slice such as 'v5e:16x16' or GPUs such as 'h100:8', which need not
      exist, or 'local' for the devices of this machine, whose figures are measured.

  Raises:
    UserError: there is no such topology, or its compiler is not installed.
  """
  if topology == 'local':
    mesh = make_mesh()
    return mesh, measure_device(mesh.devices.flat[0])
  check_topology(topology)
  name, _, shape = topology.partition(':')
  if name in GPUS:
    return _gpu_mesh(topology)
  for key, value in _LIBTPU_ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  options: dict[str, Any] = {'chip_config_name': 'megacore'} if name == 'v4' else {}
  if shape == '1x1':  # a host with one chip; by default hosts have four
    options['chips_per_host_bounds'] = [1, 1, 1]
  try:
    description = topologies.get_topology_desc(topology, 'tpu', **options)
  except Exception as error:
    text = ' '.join(str(error).split())
    if 'TPU support not installed' in text:
      raise UserError(
        f"--topology={topology} needs libtpu: pip install 'gan_jax[plan]' (Linux on "
        'x86), or use --topology=local.'
      ) from error
    raise UserError(f'--topology={topology}: no such slice: {text}') from error
  return make_mesh(description.devices), CHIPS[name]


def _gpu_mesh(topology: str) -> tuple[Mesh, Gpu]:
  """The mesh of GPUs that need not exist, and the figures of one.

  Raises:
    UserError: there are no such nodes, or their compiler is not installed.
  """
  nodes, gpus = check_gpus(topology)
  gpu = GPUS[topology.partition(':')[0]]
  volta = gpu.capability < (7, 5)  # CUDA 13 ends there
  install = f"pip install 'gan_jax[{'plan-gpu-cuda12' if volta else 'plan-gpu'}]'"
  options: dict[str, Any] = {
    'target_config': target_config(gpu),
    'topology': f'1x{nodes}x{gpus}',
  }
  try:
    description = topologies.get_topology_desc('', 'cuda', **options)
  except NotImplementedError as error:
    raise UserError(
      f"--topology={topology} needs XLA's compiler for NVIDIA GPUs: {install} (Linux), "
      'or use --topology=local.'
    ) from error
  mesh = make_mesh(description.devices)
  try:
    compile_probe(mesh)
  except jax.errors.JaxRuntimeError as error:
    reason = ' '.join(str(error).split())[:160]
    fault = (
      f"CUDA 13's compiler has no code for a {gpu.name}"
      if volta
      else f'the compiler for GPUs does not work ({reason})'
    )
    place = ' in another environment' if volta else ''
    raise UserError(f'--topology={topology}: {fault}: {install}{place}.') from error
  return mesh, gpu


@functools.cache
def compile_probe(mesh: Mesh) -> None:
  """Compiles a sum, which takes what every program takes: ptxas and libdevice."""
  shape: Any = jax.ShapeDtypeStruct
  x = shape((64, 64), jnp.float32, sharding=NamedSharding(mesh, P()))
  lowered = jax.jit(lambda x: jnp.log1p(x).sum(0)).lower(x)
  with silent_stderr():
    lowered.compile()


def check_topology(topology: str) -> None:
  """Checks that a topology exists, without a compiler.

  Raises:
    UserError: it is neither 'local' nor a slice of TPUs or nodes of GPUs that there
      are; names the nearest.
  """
  name, _, shape = topology.partition(':')
  if topology == 'local':
    return
  if name in GPUS:
    check_gpus(topology)
    return
  if name not in CHIPS or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape):
    known = ('local', *CHIPS, *GPUS)
    longer = [k for k in known if name and k.startswith(name.lower())]  # a100
    hint = '' if name in CHIPS else did_you_mean((longer or [name.lower()])[0], known)
    raise UserError(
      f'--topology={topology}{hint}: give local, a TPU ({", ".join(CHIPS)}) and the '
      'shape of its slice, such as v5e:16x16 or v4:4x4x8, or a GPU '
      f'({", ".join(GPUS)}) and how many, such as h100:8, or nodes x GPUs: h100:4x8.'
    )
  sides = sorted(map(int, shape.split('x')))
  slices = {text: sorted(map(int, text.split('x'))) for text in _SLICES[name]}
  cubes = len(sides) == 3 and all(side % 4 == 0 for side in sides)
  if sides in slices.values() or (
    cubes and math.prod(sides) <= _MOST_CHIPS.get(name, 0)
  ):
    return
  nearest = _nearest_slice(name, sides, slices)
  cubes_text = ', or sides that are multiples of 4' if name in _MOST_CHIPS else ''
  raise UserError(
    f'--topology={topology}: there is no such slice (did you mean {name}:{nearest}?): '
    f'slices of {name} are {", ".join(slices)}{cubes_text}.'
  )


def _nearest_slice(name: str, sides: list[int], slices: dict[str, list[int]]) -> str:
  """The slice whose number of chips is closest by its ratio, then its sides."""
  candidates = dict(slices)
  if most := _MOST_CHIPS.get(name):
    for box in itertools.combinations_with_replacement(range(4, 29, 4), 3):
      if math.prod(box) <= most:
        candidates['x'.join(map(str, box))] = list(box)
  chips = math.log(math.prod(sides))
  return min(
    candidates,
    key=lambda text: (
      round(abs(math.log(math.prod(candidates[text])) - chips), 6),
      abs(len(candidates[text]) - len(sides)),
      max(candidates[text]) - min(candidates[text]),
    ),
  )


@functools.cache
def measure_device(device: jax.Device) -> Chip:
  """Figures of a local device: FLOP/s of a float32 product, bytes/s of a copy.

  Measured once per process.
  """
  n = 1024
  matrix = jax.device_put(jnp.ones((n, n)), device)
  peak = 2 * n**3 / _fastest_seconds(jax.jit(lambda x: x @ x), matrix)
  vector = jax.device_put(jnp.ones(2**25), device)  # 128 MB, more than the caches hold
  copy_seconds = _fastest_seconds(jax.jit(lambda x: x + 1), vector)
  bandwidth = 2 * vector.nbytes / copy_seconds
  stats = device.memory_stats() or {}
  memory = float(stats.get('bytes_limit', 0))
  if not memory and device.platform == 'cpu':
    memory = float(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
  return Chip(device.device_kind, memory, peak, bandwidth, 0, 0, 'measured')


def _fastest_seconds(function: Callable[[Array], Array], x: Array) -> float:
  """Seconds of the fastest of eight calls; the first ones allocate memory."""
  jax.block_until_ready(function(x))
  times = []
  for _ in range(8):
    start = time.perf_counter()
    jax.block_until_ready(function(x))
    times.append(time.perf_counter() - start)
  return min(times)
