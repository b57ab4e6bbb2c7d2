"""Small growing GANs of 16 x 16 pixels, which several tests share."""

import numpy as np

from gan_jax.models.base import Phase
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN

WIDTHS = (6, 6, 5, 4)  # at 1x1, 4x4, 8x8, 16x16
PROGAN = ProGAN(res=16, n_classes=3, dim_z=6, g_widths=WIDTHS, d_widths=WIDTHS)
STYLEGAN = StyleGAN(
  res=16,
  dim_z=6,
  dim_w=7,
  g_widths=WIDTHS,
  d_widths=WIDTHS,
  mapping_layers=2,
  mapping_width=5,
)


def phase(res, alpha=1.0, lr=0.0):
  return Phase(*(np.float32(v) for v in (alpha, lr, lr, 0.9)), res=res)
