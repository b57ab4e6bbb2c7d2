"""Published names -> our variables, as tables that are total both ways."""

from gan_jax.importers.biggan_pytorch import (
  BIGGAN_D,
  BIGGAN_DEEP_D,
  BIGGAN_G,
  biggan_from_shapes,
  convert_biggan,
  convert_huggingface,
  huggingface_gan,
  statistics_row,
)
from gan_jax.importers.nvidia import (
  convert_progressive,
  growing_schedule,
  progan_from_kwargs,
  stylegan_from_kwargs,
)

__all__ = [
  'BIGGAN_D',
  'BIGGAN_DEEP_D',
  'BIGGAN_G',
  'biggan_from_shapes',
  'convert_biggan',
  'convert_progressive',
  'convert_huggingface',
  'growing_schedule',
  'huggingface_gan',
  'progan_from_kwargs',
  'statistics_row',
  'stylegan_from_kwargs',
]
