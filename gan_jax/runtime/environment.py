"""Process settings that must precede JAX: XLA flags and memory allocation."""

import ctypes
import functools
import glob
import importlib.metadata
import logging
import os
import re
import sys

# By default XLA:CPU lowers float32 convolutions such that the gradient of the kernel is
# slow; this flag selects Eigen. XLA reads it when jax is imported. The compilers of
# accelerators may reject it, so it is set on the CPU only.
_CPU_FLAG = '--xla_cpu_experimental_ynn_fusion_type=individual_dot'
# Releases of jaxlib that know the flag; an unknown one would end the process.
_CPU_FLAG_JAXLIB = (0, 10), (0, 12)
# Compiler options of a program for several GPUs: collectives overlap with computation,
# and are few and large.
_GPU_OPTIONS = {
  'xla_gpu_enable_latency_hiding_scheduler': True,
  'xla_gpu_all_reduce_combine_threshold_bytes': 2**27,
  'xla_gpu_all_gather_combine_threshold_bytes': 2**27,
  'xla_gpu_reduce_scatter_combine_threshold_bytes': 2**27,
}
_SPACE_TO_BATCH = (
  'xla_tpu_run_space_to_batch',
  'xla_tpu_run_space_to_batch_on_new_platforms',
)
_ACCELERATORS = ('/dev/accel*', '/dev/vfio/*', '/dev/nvidia[0-9]*', '/dev/kfd')


def runs_on_cpu() -> bool:
  """Whether JAX will run on the CPU: by JAX_PLATFORMS, or for lack of accelerators."""
  platforms = os.environ.get('JAX_PLATFORMS')
  if platforms:
    return platforms == 'cpu'
  return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def set_xla_flags() -> None:
  """Adds gan_jax's XLA flag to XLA_FLAGS, unless the user has set it otherwise.

  Only where the installed jaxlib is known to know the flag.

  Logs a warning if jax was imported before, as XLA then ignores the flag.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if not runs_on_cpu() or 'ynn_fusion_type' in flags:
    return
  release = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
  if not _CPU_FLAG_JAXLIB[0] <= release <= _CPU_FLAG_JAXLIB[1]:
    return
  os.environ['XLA_FLAGS'] = f'{flags} {_CPU_FLAG}'.strip()
  if 'jax' in sys.modules:
    logging.getLogger('gan_jax').warning(
      'jax was imported before gan_jax, so training on the CPU is slower than it could '
      'be: import gan_jax first.'
    )


def one_off_compiler_options() -> dict[str, int] | None:
  """Compiler options for a program that runs once on the host's CPU.

  XLA:CPU compiles the initialization of a network 1.5 to 3.5 times as fast at
  optimization level 1 as at 3, and the weights are bit-identical (at level 0 they are
  not). A level in XLA_FLAGS takes precedence.
  """
  level = 'xla_backend_optimization_level'
  return None if level in os.environ.get('XLA_FLAGS', '') else {level: 1}


def gpu_compiler_options(n_devices: int) -> dict[str, bool | int] | None:
  """Compiler options of a training step for GPUs; None where the defaults are best.

  They belong to the program rather than to XLA_FLAGS: a plan compiles with them without
  a GPU, and XLA reports an option that it does not know, where an unknown flag ends the
  process. What XLA_FLAGS names is left to it, and what XLA does not know is left out.
  """
  if n_devices == 1:
    return None
  flags = os.environ.get('XLA_FLAGS', '')
  ours = {name: value for name, value in _GPU_OPTIONS.items() if name not in flags}
  return known_compiler_options(ours) or None


def known_compiler_options(options: dict[str, bool | int]) -> dict[str, bool | int]:
  """The options that the installed XLA knows."""
  return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(option: str, value: bool | int) -> bool:
  """Whether the installed XLA has a compiler option."""
  import jax  # not at the top: XLA_FLAGS must be set first

  try:
    jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if 'No such compile option' not in str(error):
      raise
    return False
  return True


def tpu_compiler_options() -> dict[str, bool] | None:
  """Compiler options for a TPU's training step whose maps are in blocks of pixels.

  Where channels are few, libtpu moves part of the width into the batch and back. Blocks
  fill the lanes without that (`ops.blocks`). LIBTPU_INIT_ARGS takes precedence.
  """
  given = os.environ.get('LIBTPU_INIT_ARGS', '')
  names = (n for n in _SPACE_TO_BATCH if not re.search(rf'{n}\b', given))
  return dict.fromkeys(names, False) or None


def keep_freed_memory() -> None:
  """Makes glibc keep freed memory (mallopt(3)) if JAX runs on the CPU.

  XLA allocates the buffers of a program at each execution, and the kernel would map and
  clear their pages each time. glibc keeps the memory of the main thread only, so
  programs are made to execute on the calling thread. Call this before the first program
  runs. MALLOC_* in the environment takes precedence.
  """
  overridden = any(name.startswith('MALLOC_') for name in os.environ)
  if overridden or sys.platform != 'linux' or not runs_on_cpu():
    return
  from jax import config  # not at the top: XLA_FLAGS must be set first

  config.update('jax_cpu_enable_async_dispatch', False)
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', lambda *_: 0)  # other C libraries
  never_trim, large_top_pad, never_mmap = (-1, -1), (-2, 2**28), (-4, 0)
  for option, value in (never_trim, large_top_pad, never_mmap):
    mallopt(option, value)
