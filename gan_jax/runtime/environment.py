"""What a process needs before jax starts: XLA flags, and memory that is kept."""

import ctypes
import glob
import os
import sys

# XLA's default lowering of float32 convolutions on CPU has a slow weight gradient;
# this flag sends them back to Eigen. XLA reads it when jax is imported. Accelerator
# compilers may not know the flag, so it is set for runs on the CPU only.
_CPU_FLAG = '--xla_cpu_experimental_ynn_fusion_type=individual_dot'
_ACCELERATORS = ('/dev/accel*', '/dev/vfio/*', '/dev/nvidia[0-9]*', '/dev/kfd')


def runs_on_cpu() -> bool:
  """Whether jax will choose the CPU: by JAX_PLATFORMS, or as there is nothing else."""
  platforms = os.environ.get('JAX_PLATFORMS')
  if platforms:
    return platforms == 'cpu'
  return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def set_xla_flags() -> None:
  """Adds gan_jax's XLA flag to XLA_FLAGS, unless the user has set it otherwise."""
  flags = os.environ.get('XLA_FLAGS', '')
  if runs_on_cpu() and 'ynn_fusion_type' not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {_CPU_FLAG}'.strip()


def keep_freed_memory() -> None:
  """Lets glibc keep freed memory (mallopt(3)) where networks run on the CPU.

  XLA allocates the buffers of a program anew for each run, and the system would map
  and clear their pages each time. Only the main thread's memory can be kept, so
  programs run on the thread that calls them. Call this before the first program runs.
  MALLOC_* in the environment takes precedence.
  """
  overridden = any(name.startswith('MALLOC_') for name in os.environ)
  if overridden or sys.platform != 'linux' or not runs_on_cpu():
    return
  from jax import config  # not at the top: the flags have to be set before

  config.update('jax_cpu_enable_async_dispatch', False)
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', lambda *_: 0)  # glibc only
  never_trim, large_top_pad, never_mmap = (-1, -1), (-2, 2**28), (-4, 0)
  for option, value in (never_trim, large_top_pad, never_mmap):
    mallopt(option, value)
