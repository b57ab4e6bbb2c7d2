"""ProGAN, StyleGAN and BigGAN in JAX/Flax, for one laptop CPU or a whole pod."""

import ctypes
import glob
import os
import sys
from collections.abc import Callable

__version__ = '0.1.0'

# XLA's default lowering of float32 convolutions on CPU has a slow weight gradient;
# this sends them back to Eigen. It has to stand in the environment before jax is
# imported, and accelerator compilers may not know it, so it is set for CPU runs only.
_CPU_FLAG = '--xla_cpu_experimental_ynn_fusion_type=individual_dot'
_ACCELERATORS = ('/dev/accel*', '/dev/vfio/*', '/dev/nvidia[0-9]*', '/dev/kfd')


def _runs_on_cpu() -> bool:
  platforms = os.environ.get('JAX_PLATFORMS')
  if platforms:
    return platforms == 'cpu'
  return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


_flags = os.environ.get('XLA_FLAGS', '')
if _runs_on_cpu() and 'ynn_fusion_type' not in _flags:
  os.environ['XLA_FLAGS'] = f'{_flags} {_CPU_FLAG}'.strip()


class UserError(ValueError):
  """A mistake in what was asked for: printed as one sentence, without a traceback."""


def keep_freed_memory() -> None:
  """Lets glibc keep what is freed (mallopt(3)), where networks run on the CPU.

  XLA takes the buffers of a program anew whenever it runs, and the system would map
  and clear their pages each time. The main thread's memory alone can be kept, so
  programs run on the thread that calls them. To be called before the first of them.
  What MALLOC_* in the environment asks for stays.
  """
  asked = any(name.startswith('MALLOC_') for name in os.environ)
  if asked or sys.platform != 'linux' or not _runs_on_cpu():
    return
  from jax import config  # not above: the flags have to be set before

  config.update('jax_cpu_enable_async_dispatch', False)
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', lambda *_: 0)  # of glibc alone
  never_trim, take_more, never_map = (-1, -1), (-2, 2**28), (-4, 0)
  for option, value in (never_trim, take_more, never_map):
    mallopt(option, value)


def command(main: Callable[[], None]) -> None:
  """Runs `main`; a UserError ends the process with one sentence and status 2."""
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
