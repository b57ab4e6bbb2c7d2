"""Converts published weights into our variables, and both into runs."""

from gan_jax.importers.biggan_names import (
  BIGGAN_D,
  BIGGAN_DEEP_D,
  BIGGAN_G,
  convert_biggan,
)
from gan_jax.importers.biggan_settings import biggan_from_kwargs
from gan_jax.importers.huggingface import convert_huggingface, huggingface_gan
from gan_jax.importers.nvidia import convert_progressive
from gan_jax.importers.nvidia_settings import progan_from_kwargs, stylegan_from_kwargs

__all__ = [
  'BIGGAN_D',
  'BIGGAN_DEEP_D',
  'BIGGAN_G',
  'biggan_from_kwargs',
  'convert_biggan',
  'convert_huggingface',
  'convert_progressive',
  'huggingface_gan',
  'progan_from_kwargs',
  'stylegan_from_kwargs',
]
