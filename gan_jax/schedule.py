"""Images seen -> Phase. Host arithmetic only; every unit of time is images."""

import dataclasses
import math

import numpy as np

from gan_jax import UserError
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

  def resets_between(self, before: int, after: int, res: int) -> bool:
    """Whether the optimizers start anew between two image counts: never."""
    del before, after, res
    return False


@dataclasses.dataclass(frozen=True)
class Growing:
  """Progressive growing (ProGAN, appendix A; StyleGAN's loop is the same).

  Each resolution from `start_res` on trains for `stabilise` images, then the next one
  fades in over `fade` images, until the final one has; that goes on to the end. Batch
  and learning rates are tables of one entry for 4, 8, 16, ... pixels, of which the
  last also holds for all further ones; during a fade the higher resolution counts.

  `ema` is the decay of the generator's moving average per step; `ema_half_life`, in
  images, replaces it where not 0. Learning rates ramp up over `warmup` images.
  """

  start_res: int = 4
  stabilise: int = 600_000
  fade: int = 600_000
  batch: tuple[int, ...] = (16,)
  g_lr: tuple[float, ...] = (1e-3,)
  d_lr: tuple[float, ...] = (1e-3,)
  warmup: int = 0
  ema: float = 0.999
  ema_half_life: int = 0

  def __post_init__(self):
    if self.start_res < 4 or self.start_res & (self.start_res - 1):
      raise UserError(
        f'schedule.start_res is {self.start_res}: growing starts from a power of two '
        'from 4 up.'
      )
    for name in ('batch', 'g_lr', 'd_lr'):
      if not getattr(self, name):
        raise UserError(f'schedule.{name} is empty: it needs an entry for 4 pixels.')

  def lod_at(self, images: int, res: int) -> float:
    """Level of detail after `images` images: see growing.py; `res` is the final one.

    Where a fade begins and where it ends the lod is whole, and of the lower and of
    the higher resolution.
    """
    lod = float(res.bit_length() - self.start_res.bit_length())
    if self.stabilise + self.fade:
      stages, within = divmod(images, self.stabilise + self.fade)
      lod -= stages
      if self.fade:
        lod -= max(within - self.stabilise, 0) / self.fade
    return max(lod, 0.0)

  def res_at(self, images: int, res: int) -> int:
    """The highest resolution in use."""
    return res >> math.floor(self.lod_at(images, res))

  def batch_at(self, images: int, res: int) -> int:
    """Reals per D step, of all devices."""
    return _entry(self.batch, self.res_at(images, res))

  def phase_at(self, images: int, res: int) -> Phase:
    """What holds for the step that starts after `images` images."""
    lod, now = self.lod_at(images, res), self.res_at(images, res)
    ramp = min(images / self.warmup, 1) if self.warmup else 1
    ema = self.ema
    if self.ema_half_life:
      ema = 0.5 ** (_entry(self.batch, now) / self.ema_half_life)
    return Phase(
      alpha=np.float32(1 - (lod - math.floor(lod))),
      g_lr=np.float32(_entry(self.g_lr, now) * ramp),
      d_lr=np.float32(_entry(self.d_lr, now) * ramp),
      ema=np.float32(ema),
      res=now,
    )

  def resets_between(self, before: int, after: int, res: int) -> bool:
    """Whether the optimizers start anew: a fade has begun or ended since `before`."""
    old, new = self.lod_at(before, res), self.lod_at(after, res)
    ends = lambda lod: (math.floor(lod), math.ceil(lod))
    return ends(old) != ends(new)


def _entry(table: tuple, res: int):
  """Of a table for 4, 8, 16, ... pixels, whose last entry holds for all further."""
  return table[min(res.bit_length() - 3, len(table) - 1)]
