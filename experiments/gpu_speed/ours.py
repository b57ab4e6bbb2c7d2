"""The gan_jax worker: training step and sampler of a case, on one device."""

import argparse
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / 'peer_speed'))
sys.path.insert(0, str(Path(__file__).parents[2]))
import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np
from worker import serve

from gan_jax.config import parse_config
from gan_jax.models.base import Batch
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.sampling import samplers
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.first_weights import draw_weights
from gan_jax.training.stages import step_config
from gan_jax.training.train_state import init_state


class Side:
  def __init__(self, case: dict[str, Any]):
    config = self._config = parse_config(case['config'])
    gan, mesh = config.gan, make_mesh(jax.devices()[:1])
    self._mesh, (stage,) = mesh, config.stages
    k, b, _ = config.shape(stage, 1)
    fixed, self._key = step_config(config, stage, 1), jax.random.key(0)
    start = time.perf_counter()
    fresh = lambda key: init_state(gan, fixed.g_tx, fixed.d_tx, key)
    self._state = replicate(draw_weights(fresh, self._key), mesh)
    jax.block_until_ready(self._state)
    init_s = time.perf_counter() - start
    rng = np.random.default_rng(0)
    shape = (1, k, b, gan.res, gan.res, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, max(gan.n_classes, 1), shape[:3]).astype(np.int32)
    batch = shard_batch(Batch(images, labels), mesh)
    self._inputs = batch, self._key, config.schedule.phase_at(1, gan.res)
    self._step = compile_train_step(fixed, mesh)
    start = time.perf_counter()
    program = self._step.lower(self._state, *self._inputs).compile()
    self.hello = {
      'side': 'gan_jax',
      'version': f'jax {jax.__version__}',
      'device_kind': jax.devices()[0].device_kind,
      'init_s': init_s,
      'compile_s': time.perf_counter() - start,
      'predicted': predicted(program, jax.devices()[0].device_kind),
    }
    for name in ('g', 'd'):
      params = jax.tree.leaves(getattr(self._state, name)['params'])
      self.hello[f'{name}_params'] = sum(x.size for x in params)

  def train(self, n: int) -> None:
    for _ in range(n):
      self._state, _ = self._step(self._state, *self._inputs)
    jax.block_until_ready(self._state)

  def images(self, batch: str, n: str) -> dict[str, float]:
    """Seconds of n times so many sampled images, as uint8 in memory."""
    draw, inputs = self._sampler(int(batch))
    np.asarray(draw(self._state.ema, *inputs))
    start = time.perf_counter()
    for _ in range(int(n)):
      np.asarray(draw(self._state.ema, *inputs))
    return {'wall': time.perf_counter() - start}

  @functools.cache  # noqa: B019  (one object a process)
  def _sampler(self, batch: int) -> Any:
    gan = self._config.gan
    seeds = np.arange(batch, dtype=np.uint32)
    classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)
    classes = classes[seeds % len(classes)]
    inputs = samplers.latents(seeds, gan.dim_z), classes, np.float32(1), seeds
    return samplers.make_sampler(gan, self._mesh), (*inputs, np.float32(1))

  def peak(self) -> dict[str, float]:
    """The largest memory in use on the device; 0 where it is not counted."""
    stats = jax.devices()[0].memory_stats() or {}
    return {'peak_gb': stats.get('peak_bytes_in_use', 0) / 1e9}


def predicted(program: Any, device_kind: str) -> dict[str, Any]:
  """What gan_jax.plan says of a compiled program, or why it says nothing."""
  memory = program.memory_analysis()
  sizes = ('argument', 'output', 'temp')
  nbytes = sum(getattr(memory, f'{name}_size_in_bytes') for name in sizes)
  found: dict[str, Any] = {'gb': (nbytes - memory.alias_size_in_bytes) / 1e9}
  try:
    from gan_jax.plan import hlo, kernels
    from gan_jax.plan.gpus import GPUS

    gpu = {gpu.name: gpu for gpu in GPUS.values()}[device_kind]
    text, cost = kernels.estimate(hlo.parse(program.as_text()), gpu)
    found |= {'s': hlo.total_cycles(text) / gpu.clock, 'kernels': cost.kernels}
    found |= {'bytes_gb': cost.nbytes / 1e9, 'peak_flops': gpu.peak}
  except Exception as error:  # an unknown GPU, another version: the rest is measured
    found['reason'] = f'no estimate: {type(error).__name__}: {error}'[:200]
  return found


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--case', type=json.loads, required=True)
  p.add_argument('--cache', default='', help="JAX's compile cache")
  args = p.parse_args()
  if args.cache:
    jax.config.update('jax_compilation_cache_dir', args.cache)
  serve(Side(args.case))


if __name__ == '__main__':
  main()
