"""The gan_jax worker: its compiled training step and sampler. See worker.py."""

import argparse
import functools
import json
import statistics
import time

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from cases import SAMPLES
from jax.sharding import PartitionSpec as P
from worker import PRODUCT, serve, timed

from gan_jax.config import parse_config
from gan_jax.models import biggan_networks, progan, progressive, stylegan_networks
from gan_jax.models.base import Batch
from gan_jax.ops import convolution, reductions, resampling
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.sampling import samplers
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state


def beside() -> None:
  """Resampling apart from the convolutions, as in the papers' figures."""
  plain = {
    'up_conv': lambda x, kernel: convolution.conv(resampling.upsample(x), kernel),
    'down_conv': lambda x, kernel: resampling.downsample(convolution.conv(x, kernel)),
  }
  for module in (biggan_networks, progressive, progan, stylegan_networks):
    for name, function in plain.items():
      if hasattr(module, name):
        setattr(module, name, function)


def folded() -> None:
  """Upsampling by one convolution per parity, downsampling by a strided convolution."""
  resampling.up_form = lambda *_: 'phases'
  resampling.down_form = lambda *_: 'strided'


def by_rule() -> None:
  """Gradients of 1x1 convolutions and of the nine products by JAX's own rule."""
  convolution.matmul = resampling.matmul = lambda x, weight: x @ weight


def reduced() -> None:
  """Sums over images by XLA's reduction."""
  reductions.image_sums = lambda x: x.sum((1, 2), keepdims=True)


def at_once() -> None:
  """Kernel gradients of the full batch at once, without chunks."""
  convolution.CPU_CACHE_VALUES = 2**40


def whole() -> None:
  """Convolutions to three channels in the form of all others."""
  convolution.FEW_CHANNELS = 0


def direct() -> None:
  """No Winograd convolution."""
  convolution.use_winograd = lambda x, kernel: False


CHANGES = {
  f.__name__: f for f in (beside, folded, by_rule, reduced, at_once, whole, direct)
}


class Side:
  def __init__(self, case: dict):
    config = self._config = parse_config(case['config'])
    gan, self._mesh = config.gan, make_mesh()
    (self._stage,) = config.stages
    k, b, g_batch = config.shape(self._stage, self._mesh.size)
    self._txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
    self._key = jax.random.key(0)
    start = time.perf_counter()
    fresh = lambda: init_state(gan, *self._txs, self._key)
    self._state = replicate(jax.jit(fresh)(), self._mesh)
    jax.block_until_ready(self._state)
    init_s = time.perf_counter() - start
    rng = np.random.default_rng(0)
    shape = (self._mesh.size, k, b, gan.res, gan.res, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, max(gan.n_classes, 1), shape[:3]).astype(np.int32)
    self._batch = shard_batch(Batch(images, labels), self._mesh)
    self._phase = config.schedule.phase_at(1, gan.res)
    self._step = make_train_step(
      gan, *self._txs, self._mesh, g_batch=g_batch, mapped=config.train.mapped
    )
    self._inputs = self._batch, self._key, self._phase
    start = time.perf_counter()
    self._step.lower(self._state, *self._inputs).compile()
    self.hello = {
      'side': 'gan_jax',
      'version': f'jax {jax.__version__}',
      'init_s': init_s,
      'compile_s': time.perf_counter() - start,
    }
    for name in ('g', 'd'):
      params = jax.tree.leaves(getattr(self._state, name)['params'])
      self.hello[f'{name}_params'] = sum(x.size for x in params)

  def train(self, n: int) -> dict[str, float]:
    metrics = {}
    for _ in range(n):
      self._state, metrics = self._step(self._state, *self._inputs)
    jax.block_until_ready(self._state)
    return {name: float(x) for name, x in metrics.items()}

  def sample(self, n: int) -> None:
    draw, inputs = self._sampler
    for _ in range(n):
      np.asarray(draw(self._state.ema, *inputs))

  @functools.cached_property
  def _sampler(self):
    gan = self._config.gan
    seeds = np.arange(SAMPLES, dtype=np.uint32)
    classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)
    classes = classes[seeds % len(classes)]
    inputs = samplers.latents(seeds, gan.dim_z), classes, np.float32(1), seeds
    return samplers.make_sampler(gan, self._mesh), (*inputs, np.float32(1))

  def matmul(self) -> None:
    multiply, x = self._product
    multiply(x, x).block_until_ready()

  @functools.cached_property
  def _product(self):
    return jax.jit(jnp.matmul), jnp.ones((PRODUCT, PRODUCT))

  def check(self, path: str) -> dict[str, float]:
    """Writes the weights and the random inputs of the next iteration, then runs it."""
    gan, phase = self._config.gan, self._phase
    key = jax.random.fold_in(self._key, self._state.step)
    index = jnp.arange(self._stage.batch)
    drawn = [
      gan.draw_inputs(jax.random.fold_in(key, i), index, phase) for i in range(2)
    ]
    tree = {
      'g': self._state.g,
      'd': self._state.d,
      'draws': [draws._asdict() for draws in drawn],
      'batch': {'images': self._batch.images[0, 0], 'labels': self._batch.labels[0, 0]},
    }
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    name = lambda path: '.'.join(
      str(getattr(p, 'key', getattr(p, 'idx', p))) for p in path
    )
    np.savez(path, **{name(path): np.asarray(x) for path, x in leaves})
    return self.train(1)

  def parts(self, repeats: int = 5) -> dict[str, float]:
    """Times losses and gradients as separate programs, also without spectral norm."""
    gan, phase, state = self._config.gan, self._phase, self._state
    batch = jax.tree.map(lambda x: x[0, 0], self._batch)
    draws = gan.draw_inputs(self._key, jnp.arange(self._stage.batch), phase)

    def d_loss(g, d, p, batch, draws):
      return gan.d_loss(g, d | {'params': p}, batch, draws, phase)

    def g_loss(g, d, p, batch, draws):
      del batch
      return gan.g_loss(g | {'params': p}, d, draws, phase)

    gradient = lambda loss: jax.value_and_grad(loss, argnums=2, has_aux=True)
    bare = lambda net: {k: v for k, v in net.items() if k != 'spectral'}
    everything = state.g, state.d
    without = bare(state.g), bare(state.d)
    of_d, of_g = state.d['params'], state.g['params']
    todo = {
      'D loss': (d_loss, *everything, of_d),
      'D gradient': (gradient(d_loss), *everything, of_d),
      'G loss': (g_loss, *everything, of_g),
      'G gradient': (gradient(g_loss), *everything, of_g),
    }
    if 'spectral' in state.d:
      todo['D gradient, no spectral norm'] = gradient(d_loss), *without, of_d
      todo['G gradient, no spectral norm'] = gradient(g_loss), *without, of_g
    found = {}
    for name, (f, *args) in todo.items():
      mapped = jax.shard_map(
        f, mesh=self._mesh, in_specs=P(), out_specs=P(), check_vma=False
      )
      run = jax.jit(mapped)
      given = *args, batch, draws
      once = lambda run=run, given=given: jax.block_until_ready(run(*given))
      once()
      found[name] = statistics.median(timed(once)['wall'] for _ in range(repeats))
    whole = [timed(self.train, 1)['wall'] for _ in range(1 + repeats)]
    found['iteration'] = statistics.median(whole[1:])
    found['updates, EMA and the rest'] = (
      found['iteration'] - found['D gradient'] - found['G gradient']
    )
    return found


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--case', type=json.loads, required=True)
  p.add_argument('--change', choices=CHANGES)
  args = p.parse_args()
  if args.change:
    CHANGES[args.change]()
  keep_freed_memory()
  serve(Side(args.case))


if __name__ == '__main__':
  main()
