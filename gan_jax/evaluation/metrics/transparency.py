"""Images with an alpha channel, as all metrics see them: composited on white.

Feature networks take three channels, and a decoder that drops alpha composites on white
as well (`gan_jax.data.decode`). The color of transparent pixels then plays no role.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

STAMP = {'background': 'white'}  # in the protocol of a score of RGBA images


def composite_bytes(
  images: UInt8[np.ndarray, 'n h w c'],
) -> UInt8[np.ndarray, 'n h w c2']:
  """RGBA images in 0..255 as RGB on white; images of other channels as they are."""
  if images.shape[-1] != 4:
    return images
  rgb, alpha = images[..., :3].astype(np.uint32), images[..., 3:].astype(np.uint32)
  return ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def composite(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c2']:
  """RGBA images in [-1, 1] as RGB on white; images of other channels as they are."""
  if x.shape[-1] != 4:
    return x
  alpha = jnp.clip((x[..., 3:] + 1) / 2, 0, 1)
  return x[..., :3] * alpha + (1 - alpha)
