"""Prints how many pages the kernel maps for four executions of a warm program."""
# ruff: noqa: I001

import resource

# gan_jax sets XLA flags, so it comes before jax.
import gan_jax  # noqa: F401
import jax
import jax.numpy as jnp

from gan_jax.runtime.environment import keep_freed_memory

keep_freed_memory()
program = jax.jit(lambda x: x + 1)
x = jnp.ones(2**25)  # 128 MiB: 32,768 pages


def faults_of(executions):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(executions):
    program(x).block_until_ready()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults_of(12)
print(faults_of(4))
