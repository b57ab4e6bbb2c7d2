"""Prints 1 if programs execute on a thread other than the calling one, else 0."""
# ruff: noqa: I001

# gan_jax sets XLA flags, so it comes before jax.
import gan_jax  # noqa: F401
import jax

from gan_jax.runtime.environment import keep_freed_memory

keep_freed_memory()
print(int(jax.config.values['jax_cpu_enable_async_dispatch']))
