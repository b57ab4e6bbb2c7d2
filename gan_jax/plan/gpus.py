"""Published figures of GPUs, and the target of XLA's compiler made from them."""

import math
import re
from typing import Any, NamedTuple

from gan_jax import UserError

# The constants of the estimate, fitted to six programs measured on one H200; see
# experiments/scaling_study/README.md for how far it is off.
ACHIEVED_PEAK = 0.55  # of the peak that products reach with channels in full tiles
ACHIEVED_BANDWIDTH = 0.80  # of the memory's bandwidth
LAUNCH_S = 1.0e-6  # of a kernel that does nothing, in a CUDA graph
CHANNELS = 64  # channels in and out are padded to a multiple of it
ACHIEVED_LINK = 0.80  # of NVLink and of the network
COLLECTIVE_S = 15e-6  # of a collective within a node that sends nothing
NETWORK_COLLECTIVE_S = 30e-6  # of one between nodes


class Gpu(NamedTuple):
  """Figures of one GPU: what it does, and what XLA's compiler asks of its target."""

  name: str
  hbm: float  # bytes of memory that a program can have
  peak: float  # FLOP/s of dense products in bfloat16 (V100: float16)
  tf32: float  # of float32 products at JAX's default precision
  fp32: float  # of float32 products at precision 'highest'
  bandwidth: float  # of the memory, bytes/s
  link: float  # bytes/s that a GPU sends to others of its node: NVLink, else PCIe
  network: float  # bytes/s that a GPU sends to other nodes; 0: there is one node
  capability: tuple[int, int]
  cores: int  # streaming multiprocessors
  lanes: int  # float32 units of one of them
  threads: int  # of one of them, at most
  shared: int  # bytes of shared memory of one of them
  block_shared: int  # bytes of shared memory of a block, at most
  l2: int  # bytes of cache
  ghz: float
  source: str

  @property
  def clock(self) -> float:
    """Estimated 'cycles' of a kernel are nanoseconds; see `kernels`."""
    return 1e9

  def peak_of(self, dtype: str, exact: bool) -> float:
    """FLOP/s of products of a type; `exact` float32 does not use TensorFloat-32."""
    if dtype in ('f64', 'c128'):
      return self.fp32 / 2
    if dtype in ('f32', 'c64'):
      return self.fp32 if exact else self.tf32
    return self.peak

  def achieved(self, dtype: str, exact: bool, *channels: int) -> float:
    """FLOP/s that a product reaches, whose channels in and out tensor cores pad."""
    padded = [math.ceil(n / CHANNELS) * CHANNELS for n in channels]
    used = math.prod(channels) / math.prod(padded)
    return self.peak_of(dtype, exact) * ACHIEVED_PEAK * used

  def collectives_s(self, collectives: list[dict[str, Any]]) -> float:
    """Seconds of all collectives, one after the other; see `hlo.collectives`."""
    seconds = 0.0
    for c in collectives:
      within = (c['sent'] - c['network']) / (self.link * ACHIEVED_LINK)
      between = c['network'] / (self.network * ACHIEVED_LINK) if c['network'] else 0.0
      seconds += max(within, between)
      seconds += c['between_nodes'] * NETWORK_COLLECTIVE_S
      seconds += (c['count'] - c['between_nodes']) * COLLECTIVE_S
    return seconds


# CUDA's context, cuDNN's work space and NCCL's buffers take the rest. JAX itself takes
# XLA_PYTHON_CLIENT_MEM_FRACTION of a GPU, which is 0.75 unless it is set.
USABLE_MEMORY = 0.95
_DATA_SHEETS = 'https://www.nvidia.com/en-us/data-center/'
_ADA = 'NVIDIA Ada GPU architecture whitepaper, appendix A'
_HOPPER = (9, 0), 132, 128, 2048, 233472, 232448, 52428800, 1.98
_AMPERE = (8, 0), 108, 64, 2048, 167936, 166912, 41943040, 1.41
# Dense peaks (half of those that data sheets give with sparsity), NVLink in one
# direction (half of the data sheets' sum of both). Network: the eight-GPU node's
# adapters divided by its GPUs: DGX H100, H200 and B200 8 x 400 Gb/s, DGX A100
# 8 x 200 Gb/s, DGX-1 4 x 100 Gb/s, and for L4 the 100 Gb/s of g2-standard-96. Memory,
# its bandwidth and all figures from `capability` on: as the driver reports them, in
# openxla/xla, xla/backends/gpu/target_config/specs; L4 and RTX 4090: data sheets.
GPUS = {
  'h100': Gpu(
    'NVIDIA H100 80GB HBM3', 84942979072 * USABLE_MEMORY,
    989.4e12, 494.7e12, 66.9e12, 3352e9,
    450e9, 50e9, *_HOPPER, _DATA_SHEETS + 'h100',
  ),
  'h200': Gpu(
    'NVIDIA H200', 151397597184 * USABLE_MEMORY,
    989.4e12, 494.7e12, 66.9e12, 4800e9,
    450e9, 50e9, *_HOPPER, _DATA_SHEETS + 'h200',
  ),
  'b200': Gpu(
    'NVIDIA B200', 191514411008 * USABLE_MEMORY,
    2250e12, 1100e12, 75e12, 7672e9,
    900e9, 50e9, (10, 0), 148, 128, 2048, 233472, 232448, 132644864, 1.965,
    _DATA_SHEETS + 'hgx',
  ),
  'a100-80': Gpu(
    'NVIDIA A100-SXM4-80GB', 85100068864 * USABLE_MEMORY,
    312e12, 156e12, 19.5e12, 2039e9,
    300e9, 25e9, *_AMPERE, _DATA_SHEETS + 'a100',
  ),
  'a100-40': Gpu(
    'NVIDIA A100-SXM4-40GB', 42331013120 * USABLE_MEMORY,
    312e12, 156e12, 19.5e12, 1555e9,
    300e9, 25e9, *_AMPERE, _DATA_SHEETS + 'a100',
  ),
  'l4': Gpu(
    'NVIDIA L4', 24152899584 * USABLE_MEMORY,
    121e12, 60e12, 30.3e12, 300e9,
    32e9, 1.56e9, (8, 9), 58, 128, 1536, 102400, 101376, 50331648, 2.04,
    _DATA_SHEETS + 'l4',
  ),
  'rtx4090': Gpu(
    'NVIDIA GeForce RTX 4090', 25757220864 * USABLE_MEMORY,
    165.2e12, 82.6e12, 82.6e12, 1008e9,
    32e9, 0, (8, 9), 128, 128, 1536, 102400, 101376, 75497472, 2.52, _ADA,
  ),
  'v100': Gpu(
    'Tesla V100-SXM2-16GB', 16935682048 * USABLE_MEMORY,
    125e12, 15.7e12, 15.7e12, 898e9,
    150e9, 6.25e9, (7, 0), 80, 64, 2048, 98304, 98304, 6291456, 1.53,
    _DATA_SHEETS + 'v100',
  ),
}  # fmt: skip
GPUS_OF_A_NODE = (1, 2, 4, 8)
_MOST_NODES = 128


def check_gpus(topology: str) -> tuple[int, int]:
  """The nodes and the GPUs of each node of a topology such as h100:8 or h100:4x8.

  Raises:
    UserError: there are no such nodes; names the nearest ones.
  """
  name, _, shape = topology.partition(':')
  sizes = [int(text) for text in shape.split('x') if re.fullmatch(r'[1-9]\d*', text)]
  if len(sizes) != shape.count('x') + 1 or len(sizes) > 2:
    raise UserError(
      f'--topology={topology}: give the GPUs of one node, such as {name}:8, or nodes x '
      f'GPUs, such as {name}:4x8.'
    )
  nodes, gpus = sizes if len(sizes) == 2 else (1, sizes[0])
  most = _MOST_NODES if GPUS[name].network else 1
  if gpus in GPUS_OF_A_NODE and nodes <= most:
    return nodes, gpus
  near = min(GPUS_OF_A_NODE, key=lambda n: (abs(math.log(n / gpus)), -n))
  near_nodes = min(nodes if nodes > 1 else max(round(gpus / near), 1), most)
  nearest = f'{near_nodes}x{near}' if near_nodes > 1 else str(near)
  raise UserError(
    f'--topology={topology}: there are no such nodes (did you mean {name}:{nearest}?): '
    f'a node has 1, 2, 4 or 8 GPUs, and of {name} {most} '
    f'{"nodes are" if most > 1 else "node is"} planned at most.'
  )


def target_config(gpu: Gpu) -> str:
  """The target of XLA's compiler: the text of a GpuTargetConfigProto."""
  extension = (
    ' feature_extension: ACCELERATED_FEATURES' if gpu.capability[0] > 8 else ''
  )
  fields = dict(
    threads_per_block_limit=1024,
    threads_per_warp=32,
    shared_memory_per_block=49152,
    shared_memory_per_core=gpu.shared,
    threads_per_core_limit=gpu.threads,
    core_count=gpu.cores,
    fpus_per_core=gpu.lanes,
    block_dim_limit_x=2**31 - 1,
    block_dim_limit_y=65535,
    block_dim_limit_z=65535,
    memory_bandwidth=int(gpu.bandwidth),
    l2_cache_size=gpu.l2,
    clock_rate_ghz=gpu.ghz,
    device_memory_size=round(gpu.hbm / USABLE_MEMORY),
    shared_memory_per_block_optin=gpu.block_shared,
    registers_per_core_limit=65536,
    registers_per_block_limit=65536,
    thread_dim_limit_x=1024,
    thread_dim_limit_y=1024,
    thread_dim_limit_z=64,
  )
  lines = ' '.join(f'{field}: {value}' for field, value in fields.items())
  major, minor = gpu.capability
  return (
    f'gpu_device_info {{ {lines} name: "{gpu.name}" '
    f'cuda_compute_capability {{ major: {major} minor: {minor}{extension} }} '
    'driver_version: "13.0.0" runtime_version: "12.8.0" dnn_version: "9.10.0" } '
    'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
    f'device_description_str: "{gpu.name}"'
  )
