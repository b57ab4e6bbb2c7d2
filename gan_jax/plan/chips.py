"""Published figures of chips, slices of pods to compile for, and this machine's."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from gan_jax import UserError
from gan_jax.runtime.mesh import make_mesh


class Chip(NamedTuple):
  """One device of a mesh; 0 where nothing is known."""

  name: str
  hbm: float  # bytes
  peak: float  # bfloat16 FLOP/s (a measured chip: float32)
  bandwidth: float  # of the HBM, bytes/s
  ici: float  # bytes/s that a chip sends over all its links
  clock: float  # cycles/s
  source: str


_DOCS = 'https://cloud.google.com/tpu/docs/'
# Peak, HBM and its bandwidth as published. Interconnect: the all-reduce bandwidth
# published for a whole pod over its chips (v5p, v6e: half the bidirectional one, which
# on v5e comes to the same). Clock: the peak over the FLOPs of a cycle, 2 * 128 * 128
# for each of the published matrix units (v6e: 2 * 256 * 256, of which the compiler's
# estimates for a large product imply four).
CHIPS = {
  'v4': Chip('TPU v4', 32 * 2**30, 275e12, 1200e9, 268e9, 1.05e9, _DOCS + 'v4'),
  'v5e': Chip('TPU v5e', 16e9, 197e12, 819e9, 200e9, 1.50e9, _DOCS + 'v5e'),
  'v5p': Chip('TPU v5p', 95 * 2**30, 459e12, 2765e9, 600e9, 1.75e9, _DOCS + 'v5p'),
  'v6e': Chip('TPU v6e', 32e9, 918e12, 1638e9, 400e9, 1.75e9, _DOCS + 'v6e'),
}
# libtpu asks the machine that it runs on what it is, and says at length that it cannot
# tell; none of it matters to a topology that is given by name.
_ENVIRONMENT = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_STDERR_LOG_LEVEL': '3',
  'TPU_MIN_LOG_LEVEL': '3',
}


def mesh_of(topology: str) -> tuple[Mesh, Chip]:
  """The devices of a slice such as v5e:16x16, or with 'local' of this machine.

  Raises:
    UserError: libtpu is not installed, or it knows no such slice.
  """
  if topology == 'local':
    mesh = make_mesh()
    return mesh, measured(mesh.devices.flat[0])
  name, _, sizes = topology.partition(':')
  if name not in CHIPS or not sizes.replace('x', '').isdigit():
    raise UserError(
      f'--topology={topology}: give local, or a chip ({", ".join(CHIPS)}) and the '
      'shape of its slice, such as v5e:16x16 or v4:4x4x8.'
    )
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  options: dict[str, Any] = {'chip_config_name': 'megacore'} if name == 'v4' else {}
  if sizes == '1x1':  # a host of one chip; the others have four
    options['chips_per_host_bounds'] = [1, 1, 1]
  try:
    found = topologies.get_topology_desc(topology, 'tpu', **options)
  except Exception as error:
    text = ' '.join(str(error).split())
    if 'TPU support not installed' in text:
      raise UserError(
        f"--topology={topology} needs libtpu: pip install 'gan_jax[plan]' (Linux on "
        'x86), or take --topology=local.'
      ) from error
    raise UserError(f'--topology={topology}: no such slice: {text}') from error
  return make_mesh(found.devices), CHIPS[name]


def measured(device: Any) -> Chip:
  """What a device of this machine reaches in a float32 product and in a copy."""
  n = 1024
  x = jax.device_put(jnp.ones((n, n)), device)
  peak = 2 * n**3 / _fastest(jax.jit(lambda x: x @ x), x)
  y = jax.device_put(jnp.ones(2**25), device)  # 128 MB, beyond the caches
  bandwidth = 2 * y.nbytes / _fastest(jax.jit(lambda y: y + 1), y)
  stats = device.memory_stats() or {}
  hbm = float(stats.get('bytes_limit', 0))
  if not hbm and device.platform == 'cpu':
    hbm = float(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
  return Chip(device.device_kind, hbm, peak, bandwidth, 0, 0, 'measured just now')


def _fastest(run: Callable[[Any], Any], x: Any) -> float:
  jax.block_until_ready(run(x))
  times = []
  for _ in range(8):  # a CPU finds its memory again after a few
    start = time.perf_counter()
    jax.block_until_ready(run(x))
    times.append(time.perf_counter() - start)
  return min(times)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """What libraries write past Python to stderr goes nowhere."""
  sys.stderr.flush()
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)
