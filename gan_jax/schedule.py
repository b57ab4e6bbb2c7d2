"""Images seen -> Phase. Host arithmetic only; every unit of time is images."""

import dataclasses

import numpy as np

from gan_jax.gan import Phase


@dataclasses.dataclass(frozen=True)
class Constant:
  """A schedule without growth; a section of a config.

  `ema` is the decay of the moving average per generator step; until `ema_start`
  images have been seen the average is a copy of the generator.
  """

  g_lr: float = 5e-5
  d_lr: float = 2e-4
  ema: float = 0.9999
  ema_start: int = 0

  def phase_at(self, images: int, res: int) -> Phase:
    """What holds for the step that starts after `images` images."""
    return Phase(
      alpha=np.float32(1),
      g_lr=np.float32(self.g_lr),
      d_lr=np.float32(self.d_lr),
      ema=np.float32(self.ema if images >= self.ema_start else 0),
      res=res,
    )
