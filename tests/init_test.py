"""What the package does to its process."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
import gan_jax
gan_jax.keep_freed_memory()
np.ones(2**25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**25)  # 256 MiB: 65,536 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**env: str) -> int:
  """Pages that the system had to map for an array as large as one just freed."""
  around = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
  around |= {'NUMPY_MADVISE_HUGEPAGE': '0'} | env
  done = subprocess.run(
    [sys.executable, '-c', FAULTS], env=around, capture_output=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_freed_memory_is_kept_on_a_cpu_unless_asked_otherwise():
  assert faults(JAX_PLATFORMS='cpu') < 1000
  assert faults(JAX_PLATFORMS='cuda') > 50_000
  assert faults(JAX_PLATFORMS='cpu', MALLOC_TRIM_THRESHOLD_='0') > 50_000
