"""Times single layers on this CPU: plain, and as gan_jax computes them."""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gan_jax.ops import convolution, reductions, resampling, winograd
from gan_jax.runtime.environment import keep_freed_memory

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
  return jnp.asarray(RNG.standard_normal(shape, np.float32))


def conv(x: Array, kernel: Array, stride: int = 1) -> Array:
  steps, numbers = (stride, stride), ('NHWC', 'HWIO', 'NHWC')
  pads = ((1, 1), (1, 1))
  return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=numbers)


def of_kernel(f: Callable[..., Array]) -> Callable[..., Array]:
  """The gradient of the kernel behind bias and ReLU, as in a discriminator."""

  def gradient(x, kernel, g):
    back = jax.vjp(lambda k: f(jax.nn.relu(x + 0.1), k), kernel)[1]
    return back(2 * g)[0]

  return gradient


def of_both(f: Callable[..., Array]) -> Callable[..., Any]:
  def gradients(*args):
    y, back = jax.vjp(f, *args[:-1])
    return y, back(args[-1])

  return gradients


def normalised(x: Array, gain: Array, bias: Array) -> Array:
  """Conditional batch norm and ReLU, in the plain form."""
  mean, square = x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2))
  y = (x - mean) * lax.rsqrt(square - mean**2 + 1e-5)
  return jax.nn.relu(y * gain + bias)


def normalised_by_sums(x: Array, gain: Array, bias: Array) -> Array:
  n = x.size // x.shape[-1]
  mean, square = (s.sum(0, keepdims=True) / n for s in reductions.moments(x))
  scale = lax.rsqrt(square - mean**2 + 1e-5)
  return jax.nn.relu(reductions.scale_and_shift(x, mean, scale * gain, bias))


def cases() -> dict[str, tuple[Callable, Callable, tuple[Array, ...]]]:
  x, g, k = normal(32, 32, 32, 256), normal(32, 32, 32, 256), normal(3, 3, 256, 256)
  small = normal(32, 16, 16, 256)
  condition = normal(32, 1, 1, 256), normal(32, 1, 1, 256)
  scores, queries = normal(1, 4096, 1024), normal(1, 4096, 4)
  return {
    'batch norm and ReLU, 32 x 32x32x256, both ways': (
      of_both(normalised),
      of_both(normalised_by_sums),
      (x, *condition, g),
    ),
    '3x3 and upsampling, 32 x 16x16x256, both ways': (
      of_both(lambda x, k: resampling.up_conv(x, k, 'phases')),
      of_both(resampling.up_conv),
      (small, k, g),
    ),
    '3x3 and downsampling, 32 x 32x32x256, both ways': (
      of_both(lambda x, k: resampling.down_conv(x, k, 'strided')),
      of_both(resampling.down_conv),
      (x, k, small),
    ),
    '3x3, 32 x 32x32x256': (conv, winograd.conv, (x, k)),
    "its kernel's gradient": (of_kernel(conv), of_kernel(winograd.conv), (x, k, g)),
    "1x1, 32 x 32x32x256, its kernel's gradient": (
      of_kernel(lambda x, k: x @ k),
      of_kernel(convolution.matmul),
      (x, k[0, 0], g),
    ),
    '3x3 to an image, 32 x 32x32x256': (conv, convolution.conv, (x, k[..., :3])),
    'scores by queries, 1024 keys of 4 channels': (
      lambda s, q: jnp.einsum('bqk,bqc->bkc', s, q),
      lambda s, q: jnp.einsum('bqc,bqk->bck', q, s).swapaxes(1, 2),
      (scores, queries),
    ),
  }


def milliseconds(f: Callable, args: tuple[Array, ...], repeats: int) -> float:
  run, times = jax.jit(f), []
  for _ in range(2 + repeats):
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    times.append(1e3 * (time.perf_counter() - start))
  return statistics.median(times[2:])


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--repeats', type=int, default=9)
  p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results')
  args = p.parse_args()
  with (args.out / 'layers.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(('layer', 'plain_ms', 'taken_ms'))
    for name, (plain, taken, arrays) in cases().items():
      found = [milliseconds(f, arrays, args.repeats) for f in (plain, taken)]
      writer.writerow((name, *(f'{x:.2f}' for x in found)))
      print(f'| {name} | {found[0]:.1f} | {found[1]:.1f} |', flush=True)


if __name__ == '__main__':
  keep_freed_memory()
  main()
