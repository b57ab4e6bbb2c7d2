"""Do the fast forms of convolutions cost accuracy? See README.md."""

import argparse
import csv
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.models import progan
from gan_jax.models.progan import ProGAN
from gan_jax.nn import layers, norms
from gan_jax.ops import convolution, resampling

NETWORKS = (  # resolution, channels at 1x1, 4x4, ...
  (16, (8, 8, 8, 8)),  # tests/parity's tiny pickle
  (32, (24, 24, 24, 24, 12)),
  (64, (16, 16, 16, 16, 8, 4)),
  (128, (8, 8, 8, 8, 8, 8, 8)),
  (32, (96, 96, 96, 96, 96)),  # with Winograd's algorithm
)
PLAIN = {
  (resampling, 'up_form'): lambda *_: 'plain',
  (convolution, 'FEW_CHANNELS'): 0,
  (convolution, 'use_winograd'): lambda *_: False,
}


def wide(f: Callable[..., Any]) -> Callable[..., Any]:
  """f computed in float64 and rounded to the dtype of its first argument."""
  return lambda x, *args: f(
    x.astype('float64'), *(a.astype('float64') for a in args)
  ).astype(x.dtype)


WIDE_NORM = {(progan, 'pixel_norm'): wide(norms.pixel_norm)}
WIDE_CONV = {
  (progan, 'up_conv'): wide(resampling.up_conv),
  (progan, 'EqualizedConv'): functools.partial(
    layers.EqualizedConv, apply_kernel=wide(convolution.conv)
  ),
}
FORMS: dict[str, dict] = {
  'fast': {},
  'plain': PLAIN,
  'phases': {(resampling, 'up_form'): lambda *_: 'phases'},
  'pixel norm in float64': WIDE_NORM,
  'convolutions in float64': WIDE_CONV,
  'both in float64': WIDE_NORM | WIDE_CONV,
}


def compiled(gan: ProGAN, changes: dict, *args: Any) -> Any:
  """The compiled generator with some names of modules replaced while it is traced."""
  old = {where: getattr(*where) for where in changes}
  try:
    for (module, name), value in changes.items():
      setattr(module, name, value)
    return jax.jit(lambda *a: gan.generate(*a)).lower(*args).compile()
  finally:
    for (module, name), value in old.items():
      setattr(module, name, value)


def cast(tree: Any, dtype: str) -> Any:
  return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def errors(res: int, widths: tuple[int, ...], seeds: int, n: int = 8) -> list[dict]:
  """Largest errors over random weights and z, relative to the largest value."""
  gan = ProGAN(res=res, dim_z=widths[0], g_widths=widths, d_widths=widths)
  shapes, _ = jax.eval_shape(gan.init, jax.random.key(0))
  labels, worst = jnp.zeros(n, jnp.int32), {form: [] for form in FORMS}

  def draw(rng: np.random.Generator) -> Any:
    scale = lambda x: 1.0 if x.ndim == 2 or x.shape[0] > 1 or x.shape[2] > 1 else 0.3
    return jax.tree.map(lambda x: rng.normal(size=x.shape) * scale(x), shapes)

  with jax.enable_x64(True):
    z = np.zeros((n, gan.dim_z))
    narrow = cast(draw(np.random.default_rng(0)), 'float32'), cast(z, 'float32'), labels
    programs = {form: compiled(gan, change, *narrow) for form, change in FORMS.items()}
    exact = compiled(
      dataclasses.replace(gan, dtype='float64'),
      PLAIN,
      cast(narrow[0], 'float64'),
      z,
      labels,
    )
    for seed in range(seeds):
      rng = np.random.default_rng(seed)
      g, z = cast(draw(rng), 'float32'), cast(rng.normal(size=z.shape), 'float32')
      want = np.asarray(exact(cast(g, 'float64'), cast(z, 'float64'), labels))
      for form, program in programs.items():
        image = np.asarray(program(g, z, labels), np.float64)
        worst[form].append(float(np.abs(image - want).max() / np.abs(want).max()))
  return [
    {
      'res': res,
      'narrowest': min(widths),
      'form': form,
      'max': f'{max(values):.2e}',
      'mean': f'{np.mean(values):.2e}',
    }
    for form, values in worst.items()
  ]


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--seeds', type=int, default=20)
  p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results/cpu.csv')
  args = p.parse_args()
  rows = []
  for res, widths in NETWORKS:
    rows += errors(res, widths, args.seeds)
    print(*rows[-len(FORMS) :], sep='\n', flush=True)
  with args.out.open('w', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
