"""XLA's flags for tests; imports nothing that imports jax, which reads them."""

import importlib.metadata

# Without optimization, fusion emitters and splitting, programs compile in less than
# half the time, and compiling is most of what the tests do. jaxlib 0.11 no longer knows
# the second flag, and an unknown one would end the process.
_OLD = importlib.metadata.version('jaxlib').startswith('0.10.')
QUICK_COMPILES = ' '.join(
  [
    '--xla_backend_optimization_level=0',
    *(['--xla_cpu_use_fusion_emitters=false'] if _OLD else []),
    '--xla_cpu_parallel_codegen_split_count=1',
  ]
)
