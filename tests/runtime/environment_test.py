"""What the package does to its process."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
import gan_jax
import jax
import jax.numpy as jnp
from gan_jax.runtime.environment import keep_freed_memory
keep_freed_memory()
run = jax.jit(lambda x: x + 1)
x = jnp.ones(2**25)  # 128 MiB: 32,768 pages
def runs(n):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(n):
    run(x).block_until_ready()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
runs(12)
print(runs(4))
"""


DISPATCH = """
import gan_jax
import jax
from gan_jax.runtime.environment import keep_freed_memory
keep_freed_memory()
print(int(jax.config.values['jax_cpu_enable_async_dispatch']))
"""


def said(script: str, **env: str) -> int:
  around = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
  done = subprocess.run(
    [sys.executable, '-c', script], env=around | env, capture_output=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_programs_find_the_memory_of_the_run_before_unless_asked_otherwise():
  """Of pages that the system has to map for four runs of a program, not its first."""
  assert said(FAULTS, JAX_PLATFORMS='cpu') < 1000
  assert said(FAULTS, JAX_PLATFORMS='cpu', MALLOC_TRIM_THRESHOLD_='0') > 100_000


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_only_a_cpu_runs_programs_on_the_thread_that_calls_them():
  assert not said(DISPATCH, JAX_PLATFORMS='cpu')
  assert said(DISPATCH, JAX_PLATFORMS='cuda')
