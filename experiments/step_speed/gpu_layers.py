"""Which form of a layer is fastest on a GPU? See README.md.

Compiles single layers, forward and backward, for one GPU that need not exist.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax.nn import layers, spectral_norm
from gan_jax.ops import (
  activations,
  attention,
  convolution,
  pooling,
  reductions,
  resampling,
)
from gan_jax.plan import chips, compilation, hlo, kernels

OUT = Path(__file__).parent / 'results' / 'gpu_layers.csv'
WIDE, NARROW = jnp.float32, jnp.bfloat16
IMAGES = 64
# Layers of BigGAN-128: size of the input, channels in and out.
UP = ((8, 1536, 768), (32, 384, 192), (64, 192, 96))
DOWN = ((128, 96, 96), (32, 384, 384))
WEIGHTS = ((96, 96), (192, 192), (384, 384), (768, 768), (192, 384), (384, 768))

Shape = tuple[tuple[int, ...], Any]
Case = tuple[str, str, Callable[..., Any], tuple[Shape, ...]]


def activated(
  act: Callable[[Array], Array], x: Array, kernel: Array, bias: Array
) -> Any:
  """Two convolutions with a bias and a ReLU between them."""
  narrow, by = kernel.astype(NARROW), bias.astype(NARROW)
  h = act(reductions.add_bias(convolution.conv(x, narrow), by))
  return convolution.conv(h, narrow)


class Sum(nn.Module):
  """A block of D at its end: a 3x3 and a 1x1 convolution that halve maps."""

  @nn.compact
  def __call__(self, h: Array, x: Array) -> Array:
    down = partial(
      layers.Conv, h.shape[-1], apply_kernel=resampling.down_conv, dtype=NARROW
    )
    shortcut = partial(down, size=1, name='conv_sc')
    return layers.sum_of_convs(partial(down, name='conv2'), h, shortcut, x)


def applied(
  module: nn.Module, maps: int, tree: Any, platform: str, *args: Array
) -> Any:
  """A module, from the leaves of its parameters, with its forms of a platform."""
  params = jax.tree.unflatten(tree, args[maps:])
  elsewhere = mock.patch.object(layers, 'platform', lambda: platform)
  with elsewhere, mock.patch.object(pooling, 'platform', lambda: platform):
    return module.apply({'params': params}, *args[:maps])


def module_cases() -> Iterator[Case]:
  attention = layers.Attention(partial(layers.Conv, dtype=NARROW))
  for name, module, maps in (
    ('attention layer 64, 96', attention, ((64, 96),)),
    ('end of block 128, 96', Sum(), ((128, 96), (128, 96))),
  ):
    shapes = tuple(((IMAGES, size, size, c), NARROW) for size, c in maps)
    inputs = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
    leaves, tree = jax.tree.flatten(params)
    shapes += tuple((x.shape, x.dtype) for x in leaves)
    for form, platform in (('as on a TPU', 'tpu'), ('of a GPU', 'gpu')):
      yield name, form, partial(applied, module, len(maps), tree, platform), shapes


def scales(platform: str, *weights: Array) -> Any:
  """The spectral scales of several weights, as on a platform."""
  params = {f'layer{i}': {'kernel': w} for i, w in enumerate(weights)}
  spectral = spectral_norm.init_spectral(jax.random.key(0), params, ('kernel',))
  with mock.patch.object(spectral_norm, 'platform', lambda: platform):
    return spectral_norm.spectral_scales(params, spectral, eps=1e-4)


def cases() -> Iterator[Case]:
  """(layer, form, function, shapes of the arguments) of all cases."""
  shapes = (IMAGES, 4096, 12), (IMAGES, 1024, 12), (IMAGES, 1024, 48)
  narrow = tuple((s, NARROW) for s in shapes)
  forms: dict[str, dict[str, Any]] = {
    'image by image': dict(form='products', max_scores=attention.MAX_SCORES),
    'products': dict(form='products'),
    'flash': dict(form='flash'),
  }
  for form, options in forms.items():
    yield 'attention 64', form, partial(attention.attend, **options), narrow
  for size, c, o in UP:
    typed = ((IMAGES, size, size, c), NARROW), ((3, 3, c, o), WIDE)
    for form in ('plain', 'phases', 'dilated', 'transposed'):
      yield f'up {size} {c}->{o}', form, formed(resampling.up_conv, form), typed
  for size, c, o in DOWN:
    typed = ((IMAGES, size, size, c), NARROW), ((3, 3, c, o), WIDE)
    for form in ('plain', 'strided'):
      yield f'down {size} {c}->{o}', form, formed(resampling.down_conv, form), typed
  typed = ((IMAGES, 128, 128, 96), NARROW), ((3, 3, 96, 96), WIDE), ((96,), WIDE)
  for form, act in (('x', jax.nn.relu), ('result', activations.relu)):
    yield 'conv, ReLU, conv 128', f'gradient by {form}', partial(activated, act), typed
  weights = tuple(((3, 3, c, o), WIDE) for c, o in WEIGHTS)
  for form, platform in (('each weight', 'tpu'), ('jointly', 'gpu')):
    yield 'spectral norm of 6', form, partial(scales, platform), weights
  yield from module_cases()


def formed(function: Callable[..., Array], form: str) -> Callable[..., Array]:
  return lambda x, kernel: function(x, kernel.astype(NARROW), form)


def measure(
  function: Callable[..., Any], shapes: tuple[Shape, ...], mesh: Any, gpu: Any
) -> dict[str, float]:
  """Compiles the forward and backward pass of a layer for a GPU."""

  def both(*args: Array) -> Any:
    y, back = jax.vjp(function, *args)
    return y, back(y)

  place = NamedSharding(mesh, P())
  args = [jax.ShapeDtypeStruct(s, t, sharding=place) for s, t in shapes]
  run = jax.shard_map(both, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  start = time.perf_counter()
  with compilation.silent_stderr():
    compiled = jax.jit(run).lower(*args).compile(compilation.GPU_OPTIONS)
  timed, cost = kernels.estimate(hlo.parse(compiled.as_text()), gpu)
  return {
    'kernels': cost.kernels,
    'mb': round(cost.nbytes / 1e6, 1),
    'gflop': round(cost.flops / 1e9, 1),
    'estimated_ms': round(1e3 * hlo.total_cycles(timed) / gpu.clock, 3),
    'temporary_mb': round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 1),
    'compile_s': round(time.perf_counter() - start, 1),
  }


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--topology', default='h100:1')
  p.add_argument('--only', default='', help='only layers whose name starts with this')
  args = p.parse_args()
  rows = list(csv.DictReader(OUT.open())) if OUT.is_file() else []
  done = {(row['layer'], row['form']) for row in rows}
  mesh, gpu = chips.topology_mesh(args.topology)
  for name, form, function, shapes in cases():
    if (name, form) in done or not name.startswith(args.only):
      continue
    row = {'layer': name, 'form': form, **measure(function, shapes, mesh, gpu)}
    rows.append(row)
    print('  '.join(f'{k}={v}' for k, v in row.items()), flush=True)
    with OUT.open('w', newline='') as f:
      writer = csv.DictWriter(f, row)
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
