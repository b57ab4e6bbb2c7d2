"""Images seen -> Phase. Host arithmetic only; every unit of time is images."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from gan_jax import UserError
from gan_jax.models.base import Phase


class Stage(NamedTuple):
  """What is compiled for: one resolution, one batch, one input pipeline."""

  after: int  # it holds from the first step that starts after more images than these
  res: int
  batch: int  # reals per D step, of all devices


@dataclasses.dataclass(frozen=True)
class ConstantSchedule:
  """A schedule without growth; a section of a config.

  `batch` is the number of reals per D step, of all devices. `ema` is the decay of the
  moving average per generator step; until `ema_start` images have been seen the
  average is a copy of the generator.
  """

  batch: int
  g_lr: float = 5e-5
  d_lr: float = 2e-4
  ema: float = 0.9999
  ema_start: int = 0

  def __post_init__(self):
    if self.batch < 1:
      raise UserError(f'schedule.batch is {self.batch}: it must be at least 1.')

  def stages(self, res: int) -> tuple[Stage, ...]:
    """The only one."""
    return (Stage(-1, res, self.batch),)

  def phase_at(self, images: int, res: int) -> Phase:
    """What holds for the step that starts after `images` images."""
    return Phase(
      alpha=np.float32(1),
      g_lr=np.float32(self.g_lr),
      d_lr=np.float32(self.d_lr),
      ema=np.float32(self.ema if images >= self.ema_start else 0),
      res=res,
    )

  def resets_between(self, before: int, after: int) -> bool:
    """Whether the optimizers start anew between two image counts: never."""
    del before, after
    return False


@dataclasses.dataclass(frozen=True)
class ProgressiveSchedule:
  """Progressive growing (ProGAN, appendix A; StyleGAN's loop is the same).

  Each of the `resolutions` trains for `stabilise` images, then the next one fades in
  over `fade` images; the final one goes on to the end. Batch and learning rates have
  one entry for each resolution, or one for all; during a fade the higher resolution
  counts. `batch` is the number of reals per D step, of all devices.

  `ema` is the decay of the generator's moving average per step; `ema_half_life`, in
  images, replaces it where not 0. Learning rates ramp up over `warmup` images.

  Raises:
    UserError: resolutions that skip one or are none, or tables of another length.
  """

  resolutions: tuple[int, ...]
  batch: tuple[int, ...]
  stabilise: int = 600_000
  fade: int = 600_000
  g_lr: tuple[float, ...] = (1e-3,)
  d_lr: tuple[float, ...] = (1e-3,)
  warmup: int = 0
  ema: float = 0.999
  ema_half_life: int = 0

  def __post_init__(self):
    key, sizes = 'schedule.resolutions', self.resolutions
    if not sizes or sizes[0] < 4 or sizes[0] & (sizes[0] - 1):
      raise UserError(f'{key} is {sizes}: it starts from a power of two, 4 or more.')
    for low, high in zip(sizes, sizes[1:], strict=False):
      if high != 2 * low:
        raise UserError(f'{key} goes from {low} to {high}: {2 * low} has to come next.')
    for name in ('batch', 'g_lr', 'd_lr'):
      table = getattr(self, name)
      if len(table) not in (1, len(sizes)):
        raise UserError(
          f'schedule.{name} has {len(table)} entries: it needs 1 or {len(sizes)}, one '
          f'for each of {key}.'
        )
    if min(self.batch) < 1:
      raise UserError(f'schedule.batch has {min(self.batch)}: at least 1 is needed.')
    for name in ('stabilise', 'fade'):
      if getattr(self, name) < 0:
        raise UserError(f'schedule.{name} is {getattr(self, name)}: 0 is the least.')
    if len(sizes) > 1 and not self.stabilise + self.fade:
      raise UserError('schedule.stabilise and fade are 0: there is no time to grow.')

  def stages(self, res: int) -> tuple[Stage, ...]:
    """One for each resolution.

    Raises:
      UserError: the model's `res` is not the last resolution.
    """
    if res != self.resolutions[-1]:
      raise UserError(
        f'schedule.resolutions ends in {self.resolutions[-1]}, but model.res is {res}: '
        'they have to be the same.'
      )
    period = self.stabilise + self.fade
    first = self.stabilise - (not self.fade)  # a jump is of the higher resolution
    return tuple(
      Stage((i - 1) * period + first if i else -1, size, _entry(self.batch, i))
      for i, size in enumerate(self.resolutions)
    )

  def lod_at(self, images: int) -> float:
    """Level of detail after `images` images: see growing.py.

    Where a fade begins and where it ends the lod is whole, and of the lower and of
    the higher resolution.
    """
    lod = float(len(self.resolutions) - 1)
    if self.stabilise + self.fade:
      stages, within = divmod(images, self.stabilise + self.fade)
      lod -= stages
      if self.fade:
        lod -= max(within - self.stabilise, 0) / self.fade
    return max(lod, 0.0)

  def phase_at(self, images: int, res: int) -> Phase:
    """What holds for the step that starts after `images` images; `res` is the last."""
    lod = self.lod_at(images)
    stage = len(self.resolutions) - 1 - math.floor(lod)
    ramp = min(images / self.warmup, 1) if self.warmup else 1
    ema = self.ema
    if self.ema_half_life:
      ema = 0.5 ** (_entry(self.batch, stage) / self.ema_half_life)
    return Phase(
      alpha=np.float32(1 - (lod - math.floor(lod))),
      g_lr=np.float32(_entry(self.g_lr, stage) * ramp),
      d_lr=np.float32(_entry(self.d_lr, stage) * ramp),
      ema=np.float32(ema),
      res=res >> math.floor(lod),
    )

  def resets_between(self, before: int, after: int) -> bool:
    """Whether the optimizers start anew: a fade has begun or ended since `before`."""
    old, new = self.lod_at(before), self.lod_at(after)
    ends = lambda lod: (math.floor(lod), math.ceil(lod))
    return ends(old) != ends(new)


def _entry(table: tuple, stage: int):
  """Of a table for each stage, or of one entry for all."""
  return table[stage] if len(table) > 1 else table[0]
