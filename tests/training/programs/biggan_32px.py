"""The tiny BigGAN of configs/biggan_imagenet.py, but at 32 pixels."""

from ml_collections import ConfigDict

from configs import biggan_imagenet


def get_config() -> ConfigDict:
  config = biggan_imagenet.get_config('tiny')
  config.model.update(dict(res=32, dim_z=20))
  config.model.update(dict(g_widths=(), d_widths=()))
  return config
