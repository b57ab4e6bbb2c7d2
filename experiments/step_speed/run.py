"""Which form of a layer is fastest on a TPU? See README.md."""

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
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax.nn import spectral_norm
from gan_jax.ops import attention, convolution, resampling
from gan_jax.plan import chips, compilation, hlo

OUT = Path(__file__).parent / 'results' / 'layers.csv'
WIDE, NARROW = jnp.float32, jnp.bfloat16
# Layers of BigGAN-128 with 8 images per chip; the D step adds 8 fakes.
UP = ((4, 1536, 1536), (8, 1536, 768), (16, 768, 384), (32, 384, 192), (64, 192, 96))
DOWN = ((8, 1536), (16, 768), (32, 384), (64, 192), (128, 96))
SHORTCUT_DOWN = ((128, 3, 96), (64, 96, 192), (32, 192, 384))
MANY = (  # with 32 images per chip; D sees 64
  ('up', ('phases', 'dilated'), 32, 8, 1536, 768),
  ('up', ('phases', 'dilated'), 32, 32, 384, 192),
  ('up', ('phases', 'dilated'), 32, 64, 192, 96),
  ('down', ('strided',), 32, 16, 768, 768),
  ('down', ('strided',), 64, 16, 768, 768),
)
THIN = ((8, 96, 3), (16, 3, 96))  # images and channels of the last and first layer

Shape = tuple[tuple[int, ...], Any]
Case = tuple[str, str, Callable[..., Array], tuple[Shape, ...]]


def formed(function: str, form: str, x: Array, kernel: Array) -> Array:
  """`up_conv` or `down_conv` in a given form, on a TPU."""
  choice = {
    f'{function}_form': lambda *_: form,
    'platform': lambda: '' if form == 'plain' else 'tpu',
  }
  with mock.patch.multiple(resampling, **choice):
    return getattr(resampling, f'{function}_conv')(x, kernel.astype(NARROW))


def few(form: str, x: Array, kernel: Array) -> Array:
  """`conv` of few channels: plain, or in blocks of pixels as on a TPU."""
  with mock.patch.object(convolution, 'platform', lambda: form):
    return convolution.conv(x, kernel.astype(NARROW))


def plain_attention(query: Array, key: Array, value: Array) -> Array:
  """Attention that keeps all scores of all images for the gradient."""
  scores = jnp.einsum('bqc,bkc->bqk', query, key, preferred_element_type=WIDE)
  weights = jax.nn.softmax(scores).astype(NARROW)
  return jnp.einsum('bqk,bkc->bqc', weights, value)


def normalized(x: Array, kernel: Array, u: Array, v: Array) -> Array:
  """Plain spectral norm: sigma from two products; the weight is divided by it."""
  u, v = jax.lax.stop_gradient((u, v))
  matrix = kernel.reshape(-1, kernel.shape[-1])
  return convolution.conv(x, (kernel / (v @ matrix @ u)).astype(NARROW))


def scaled(x: Array, kernel: Array, u: Array, v: Array) -> Array:
  """Spectral norm of gan_jax: sigma is known; feature maps are divided by it."""
  matrix = kernel.reshape(-1, kernel.shape[-1])
  sigma = spectral_norm._singular_value(matrix, u, v, u[0])
  return convolution.conv(
    (x.astype(WIDE) / sigma).astype(NARROW), kernel.astype(NARROW)
  )


def cases() -> Iterator[Case]:
  """(layer, form, function, shapes of the output and of the arguments) of all cases."""
  for size, c, o in UP:
    shapes = ((8, 2 * size, 2 * size, o), (8, size, size, c))
    maps = tuple((s, NARROW) for s in shapes)
    for form in ('plain', 'phases'):
      kernel = (3, 3, c, o), WIDE
      yield (
        f'up {size} {c}->{o}',
        form,
        partial(formed, 'up', form),
        (*maps, kernel),
      )
    for form in ('plain', 'four times'):
      kernel = (1, 1, c, o), WIDE
      name = f'up {size} {c}->{o}, 1x1'
      yield name, form, partial(formed, 'up', form), (*maps, kernel)
  for size, c in DOWN:
    shapes = ((16, size // 2, size // 2, c), (16, size, size, c), (3, 3, c, c))
    typed = tuple(zip(shapes, (NARROW, NARROW, WIDE), strict=True))
    for form in ('plain', 'strided'):
      yield f'down {size} {c}->{c}', form, partial(formed, 'down', form), typed
  for size, c, o in SHORTCUT_DOWN:
    shapes = ((16, size // 2, size // 2, o), (16, size, size, c), (1, 1, c, o))
    typed = tuple(zip(shapes, (NARROW, NARROW, WIDE), strict=True))
    for form in ('plain', 'strided'):
      yield f'down {size} {c}->{o}, 1x1', form, partial(formed, 'down', form), typed
  for function, others, b, size, c, o in MANY:
    after = size * 2 if function == 'up' else size // 2
    shapes = ((b, after, after, o), (b, size, size, c), (3, 3, c, o))
    typed = tuple(zip(shapes, (NARROW, NARROW, WIDE), strict=True))
    for form in ('plain', *others):
      name = f'{function} {size} {c}->{o}, {b} images'
      yield name, form, partial(formed, function, form), typed
  for b, c, o in THIN:
    shapes = ((b, 128, 128, o), (b, 128, 128, c), (3, 3, c, o))
    typed = tuple(zip(shapes, (NARROW, NARROW, WIDE), strict=True))
    for form, device in (('plain', ''), ('blocks', 'tpu')):
      yield f'conv 128 {c}->{o}', form, partial(few, device), typed
  shapes = ((8, 8, 8, 1536),) * 2 + ((3, 3, 1536, 1536), (1536,), (13824,))
  typed = tuple(zip(shapes, (NARROW, NARROW, WIDE, WIDE, WIDE), strict=True))
  for function in (normalized, scaled):
    yield 'spectral norm 8 1536->1536', function.__name__, function, typed
  shapes = ((16, 4096, 48), (16, 4096, 12), (16, 1024, 12), (16, 1024, 48))
  narrow = tuple((s, NARROW) for s in shapes)
  for form, run in (('whole', plain_attention), ('read apart', attention.attend)):
    yield 'attention 64', form, run, narrow


def measure(function: Callable[..., Array], shapes: tuple[Shape, ...], mesh: Any):
  """Compiles the forward and backward pass of a layer for a slice."""

  def both(g, *args):
    y, back = jax.vjp(function, *args)
    return y, back(g)

  place = NamedSharding(mesh, P())
  args = [jax.ShapeDtypeStruct(s, t, sharding=place) for s, t in shapes]
  run = jax.shard_map(both, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  start = time.perf_counter()
  with compilation.silent_stderr():
    compiled = jax.jit(run).lower(*args).compile()
  costs = compiled.cost_analysis()
  return {
    'megacycles': round(hlo.total_cycles(hlo.parse(compiled.as_text())) / 1e6, 3),
    'gflop': round(costs['flops'] / 1e9, 1),
    'mb': round(costs['bytes accessed'] / 1e6, 1),
    'compile_s': round(time.perf_counter() - start, 1),
  }


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--topology', default='v5e:2x2')
  p.add_argument('--only', default='', help='only layers whose name starts with this')
  args = p.parse_args()
  rows = list(csv.DictReader(OUT.open())) if OUT.is_file() else []
  done = {(row['layer'], row['form']) for row in rows}
  mesh, _ = chips.topology_mesh(args.topology)
  for name, form, function, shapes in cases():
    if (name, form) in done or not name.startswith(args.only):
      continue
    row = {'layer': name, 'form': form, **measure(function, shapes, mesh)}
    rows.append(row)
    print('  '.join(f'{k}={v}' for k, v in row.items()), flush=True)
    with OUT.open('w', newline='') as f:
      writer = csv.DictWriter(f, row)
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
