"""The noise maps of a StyleGAN while they are optimized: they are to stay noise.

Karras et al. 2020, arXiv:1912.04958, appendix D.
"""

from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.runtime.image_size import Size

WEIGHT, WEIGHT_RES = 1e5, 1024  # of the original, and the pixels of its images
SMALLEST = 8  # pixels of the smallest scale of a penalty


def penalty_weight(size: Size) -> float:
  """The weight of the penalty for images of a height and width.

  White noise on n pixels has a penalty in proportion to 1 / n, by chance. The weight
  follows n, so that noise costs what it does at 1024 pixels in the original.
  """
  return WEIGHT * (size[0] * size[1] / WEIGHT_RES**2)


def penalty(maps: Iterable[Float[Array, 'b h w 1']]) -> Float[Array, ' b'] | float:
  """The squared correlation of neighbors at several scales, summed over the maps.

  Each scale halves the one before by means of 2 x 2 values, down to SMALLEST pixels or
  an odd side.
  0 without maps.
  """
  return sum(map(_penalty, maps), 0.0)


def _penalty(x: Float[Array, 'b h w 1']) -> Float[Array, ' b']:
  total = jnp.zeros(x.shape[0], x.dtype)
  while True:
    for axis in (1, 2):
      total += jnp.square((x * jnp.roll(x, 1, axis)).mean((1, 2, 3)))
    b, h, w, c = x.shape
    if min(h, w) <= SMALLEST or h % 2 or w % 2:
      return total
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def normalize(x: Float[Array, 'b h w 1']) -> Float[Array, 'b h w 1']:
  """Each map with mean 0 and mean square 1."""
  x = x - x.mean((1, 2, 3), keepdims=True)
  return x / jnp.sqrt(jnp.square(x).mean((1, 2, 3), keepdims=True))
