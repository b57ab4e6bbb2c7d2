"""Published names -> our variables, as tables that are total both ways."""

from gan_jax.importers.from_pytorch import (
  BIGGAN_D,
  BIGGAN_DEEP_D,
  BIGGAN_G,
  biggan,
  from_biggan,
  from_hugging_face,
  hugging_face,
  statistics_row,
)
from gan_jax.importers.from_tensorflow import (
  from_growing,
  growing_schedule,
  progan,
  stylegan,
)

__all__ = [
  'BIGGAN_D',
  'BIGGAN_DEEP_D',
  'BIGGAN_G',
  'biggan',
  'from_biggan',
  'from_growing',
  'from_hugging_face',
  'growing_schedule',
  'hugging_face',
  'progan',
  'statistics_row',
  'stylegan',
]
