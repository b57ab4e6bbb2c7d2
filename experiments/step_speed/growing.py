"""What does each change bring to one block of a growing GAN on a TPU? See README.md."""

import argparse
import csv
import time
from collections.abc import Callable, Iterator
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

from gan_jax.nn.norms import instance_norm
from gan_jax.ops import block_convolution, blocks
from gan_jax.plan import chips, compilation, hlo
from gan_jax.runtime.environment import tpu_compiler_options

OUT = Path(__file__).parent / 'results' / 'growing.csv'
IMAGES, TAPS, WIDE = 4, (1, 2, 1), jnp.float32
# Width and channels of the larger map of a block; the smaller one has twice as many.
BLOCKS = ((1024, 16), (512, 32), (256, 64))
# Name, dtype, whether maps are in blocks of pixels, whether with our compiler options.
FORMS = (
  ('plain', jnp.float32, False, False),
  ('bfloat16', jnp.bfloat16, False, False),
  ('blocks', jnp.bfloat16, True, False),
  ('options', jnp.bfloat16, True, True),
  ('options, float32', jnp.float32, True, True),
)

Shapes = tuple[tuple[tuple[int, ...], Any], ...]


def d_block(x: Any, k1: Array, b1: Array, k2: Array, b2: Array) -> Any:
  """Convolution, then blur, convolution and downsampling."""
  x = block_convolution.conv(x, k1.astype(x.dtype))
  x = blocks.leaky_relu(blocks.add_bias(x, b1.astype(x.dtype)))
  x = block_convolution.down_conv(x, k2.astype(x.dtype), TAPS)
  return blocks.leaky_relu(blocks.add_bias(x, b2.astype(x.dtype)))


def g_block(x: Any, k1: Array, k2: Array, *rest: Array) -> Any:
  """Upsampling, convolution and blur, then convolution; each with noise and style."""

  def finish(x: Any, noise: Array, strength: Array, bias: Array, *style: Array) -> Any:
    noise = jax.lax.stop_gradient(noise)  # drawn at random
    noise = blocks.channel_products(x, noise, strength)
    x = blocks.map_values(lambda x, n: x + n.astype(x.dtype), x, noise)
    x = blocks.leaky_relu(blocks.add_bias(x, bias.astype(x.dtype)))
    return instance_norm(x, *style)

  x = finish(block_convolution.up_conv(x, k1.astype(x.dtype), TAPS), *rest[:5])
  return finish(block_convolution.conv(x, k2.astype(x.dtype)), *rest[5:])


def cases(dtype: Any) -> Iterator[tuple[str, Callable[..., Any], Shapes]]:
  """Layer, function, and the shapes of the result, the input and the weights."""
  for n, c in BLOCKS:
    large, small = (IMAGES, n, n, c), (IMAGES, n // 2, n // 2, 2 * c)
    bias = lambda c: ((1, 1, 1, c), WIDE)
    weights = ((3, 3, c, c), WIDE), bias(c), ((3, 3, c, 2 * c), WIDE), bias(2 * c)
    yield f'd {n} {c}', d_block, ((small, dtype), (large, dtype), *weights)
    style = ((IMAGES, 1, 1, c), WIDE)
    finish = ((IMAGES, n, n, 1), WIDE), ((1, c), WIDE), bias(c), style, style
    kernels = ((3, 3, 2 * c, c), WIDE), ((3, 3, c, c), WIDE)
    maps = (large, dtype), (small, dtype)
    yield f'g {n} {c}', g_block, (*maps, *kernels, *finish, *finish)


def measure(function: Callable[..., Any], shapes: Shapes, mesh: Any, options: Any):
  """Compiles the forward and backward pass of a block for a slice."""
  size = lambda shape: block_convolution.block_size('tpu', *shape[1:])

  def run(g: Array, x: Array, *weights: Array) -> Any:
    form = lambda x, *weights: blocks.values_of(
      function(as_map(x, size(shapes[1][0])), *weights)
    )
    y, back = jax.vjp(form, x, *weights)
    return y, back(g)

  def as_map(x: Array, size: blocks.Size) -> Any:
    return x if size == blocks.PIXEL else blocks.PixelBlocks(x, size)

  def stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    (b, h, w, c), (rows, columns) = shape, size(shape)
    return b, h // rows, w // columns, rows * columns * c

  place = NamedSharding(mesh, P())
  maps = [(stored(shape), dtype) for shape, dtype in shapes[:2]]
  args = [jax.ShapeDtypeStruct(*s, sharding=place) for s in (*maps, *shapes[2:])]
  mapped = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  start = time.perf_counter()
  with compilation.silent_stderr():
    lowered = jax.jit(mapped, compiler_options=options).lower(*args)
    compiled = lowered.compile()
  program, cycles = hlo.parse(compiled.as_text()), {}
  for op, count, fused in hlo.executed_ops(program):
    if not fused:
      kind = hlo.op_kind(program, op)
      cycles[kind] = cycles.get(kind, 0) + op.cycles * count
  return {
    'megacycles': round(sum(cycles.values()) / 1e6, 2),
    'of them copies': round(cycles.get('copy', 0) / 1e6, 2),
    'gb': round(compiled.cost_analysis()['bytes accessed'] / 1e9, 2),
    'temporary_gb': round(compiled.memory_analysis().temp_size_in_bytes / 1e9, 2),
    'compile_s': round(time.perf_counter() - start, 1),
  }


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--topology', default='v5e:2x2')
  p.add_argument('--only', default='', help='only layers whose name starts with this')
  p.add_argument('--form', default='', help='only this form')
  args = p.parse_args()
  rows = list(csv.DictReader(OUT.open())) if OUT.is_file() else []
  done = {(row['block'], row['form']) for row in rows}
  mesh, _ = chips.topology_mesh(args.topology)
  for form, dtype, in_blocks, with_options in FORMS:
    for name, function, shapes in cases(dtype):
      if (name, form) in done or not name.startswith(args.only):
        continue
      if args.form not in ('', form):
        continue
      options = tpu_compiler_options() if with_options else None
      size = blocks.block_size if in_blocks else lambda *_: blocks.PIXEL
      with mock.patch.object(block_convolution, 'block_size', size):
        figures = measure(function, shapes, mesh, options)
      rows.append({'block': name, 'form': form, **figures})
      print('  '.join(f'{k}={v}' for k, v in rows[-1].items()), flush=True)
      with OUT.open('w', newline='') as f:
        writer = csv.DictWriter(f, rows[-1])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == '__main__':
  main()
