"""What do the forms of ADA's warp take on a TPU? See README.md."""

import argparse
import csv
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax.models.augmentation import ada, geometry
from gan_jax.plan import hlo
from gan_jax.plan.chips import topology_mesh

TOPOLOGY = 'v5e:1x1'
# Of the instruction schedule that the compiler writes for a gather of rows of three
# floats, with LIBTPU_INIT_ARGS='--xla_jf_dump_to=DIR --xla_jf_dump_llo_text=true':
# 840 bundles, of one cycle each, for 128 rows.
CYCLES_PER_ROW = 840 / 128
FORMS = {
  'points': geometry.warp_points,
  'products': geometry.warp_by_products,
}


def compiled(
  f: Callable[..., Any], mesh: Mesh, *shapes: tuple[int, ...]
) -> hlo.Program:
  """The program of a function of float32 arrays, for the first device of a mesh."""
  sharding = NamedSharding(mesh, P())
  inputs = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=sharding) for s in shapes]
  with jax.set_mesh(mesh):
    return hlo.parse(jax.jit(f).lower(*inputs).compile().as_text())


def measure(sizes: list[int]) -> Iterator[dict[str, Any]]:
  """Estimated cycles, and rows without an estimate, for one image of each size."""
  mesh, _ = topology_mesh(TOPOLOGY)
  for n in sizes:
    b = max(geometry.PIXELS_AT_ONCE // n**2, 1)
    shapes, margins = ((b, n, n, 3), (b, 3, 3)), geometry.largest_margins(n, n)
    for name, form in FORMS.items():

      def forward(x, inverse, form=form, margins=margins):
        return form(x, inverse, margins)

      def transpose(x, inverse, forward=forward):
        return jax.linear_transpose(lambda x: forward(x, inverse), x)(x)

      for direction in (forward, transpose):
        program = compiled(direction, mesh, *shapes)
        cycles = hlo.total_cycles(program) / b
        rows = hlo.rows_without_estimate(program) / b
        yield {
          'pixels': n,
          'form': name,
          'pass': direction.__name__,
          'estimated_cycles': round(cycles),
          'rows_without_estimate': round(rows),
          'cycles_with_rows': round(cycles + rows * CYCLES_PER_ROW),
        }


def rounding(n: int, b: int = 64) -> tuple[jax.Array, jax.Array]:
  """Errors of products that read bfloat16, and of rounding the exact images to it.

  Computed on a CPU, for uniform noise and `bgc` at p = 0.9.
  """
  draws = ada.draw(jax.random.split(jax.random.key(1), b), ada.PIPES['bgc'], (n, n, 3))
  inverse = ada.inverse_matrix(ada.PIPES['bgc'], draws, 0.9, n, n, ada.DEFAULT_RANGES)
  margins = geometry.largest_margins(n, n)
  images = jax.random.uniform(jax.random.key(0), (b, n, n, 3), minval=-1)
  rounded = lambda x: x.astype(jnp.bfloat16).astype(x.dtype)
  exact = geometry.warp_points(images, inverse, margins)
  einsum = jnp.einsum

  def einsum_of_bfloat16(equation, x, y, **options):
    if not options:  # of default precision
      x, y = rounded(x), rounded(y)
    return einsum(equation, x, y, **options)

  with unittest.mock.patch.object(jnp, 'einsum', einsum_of_bfloat16):
    ours = geometry.warp_by_products(images, inverse, margins)
  return ours - exact, rounded(exact) - exact


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--sizes', type=int, nargs='+', default=[32, 64, 128, 256])
  parser.add_argument('--out', type=Path, required=True)
  args = parser.parse_args()
  rows = list(measure(args.sizes))
  with args.out.open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  for row in rows:
    print(*row.values(), sep='  ')
  for name, error in zip(('products', 'rounding'), rounding(32), strict=True):
    rms, largest = jnp.sqrt((error**2).mean()), jnp.abs(error).max()
    print(f'{name}: rms {rms:.5f}, largest {largest:.5f}')


if __name__ == '__main__':
  main()
