"""A small ProGAN whose maps are in blocks of pixels on a TPU: 256 pixels at last."""

from ml_collections import ConfigDict

from configs import progan_emoji


def get_config() -> ConfigDict:
  config = progan_emoji.get_config('tiny')
  widths = (16,) * 8
  config.model.update(dict(res=256, g_widths=widths, d_widths=widths))
  config.schedule.update(dict(resolutions=(256,)))
  return config
