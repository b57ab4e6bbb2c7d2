"""Schedules: the number of images seen -> `Phase`. NumPy only; time is in images."""

import dataclasses
import math
from typing import NamedTuple, TypeVar

import numpy as np

from gan_jax import UserError
from gan_jax.models.base import Phase
from gan_jax.runtime.keys import REQUIRED, check_ranges, key

T = TypeVar('T')

LR_DROP_AFTER = 'images after which lr_drop applies; 0: never'
LR_DROP = 'factor of the learning rates after lr_drop_after images'


class Stage(NamedTuple):
  """One resolution: one compiled step, one batch size, one input pipeline."""

  after: int  # starts with the first step for which more images than these were seen
  res: int
  batch: int  # real images per D update, all devices together


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantSchedule:
  """The section `schedule` of a config without progressive growing."""

  batch: int = key(
    REQUIRED, 'real images per D update, all devices together', at_least=1
  )
  g_lr: float = key(5e-5, 'learning rate of G', at_least=0)
  d_lr: float = key(2e-4, 'learning rate of D', at_least=0)
  lr_drop_after: int = key(0, LR_DROP_AFTER, at_least=0)
  lr_drop: float = key(0.1, LR_DROP, at_least=0, at_most=1)
  ema: float = key(
    0.9999, 'decay of the EMA weights per iteration', at_least=0, at_most=1
  )
  ema_start: int = key(
    0, "images; until then the EMA weights are a copy of G's weights", at_least=0
  )

  def __post_init__(self) -> None:
    check_ranges('schedule', self)

  def stages(self, res: int) -> tuple[Stage, ...]:
    """The only stage."""
    return (Stage(-1, res, self.batch),)

  def phase_at(self, images: int, res: int) -> Phase:
    """The phase of the step before which `images` images were seen."""
    drop = _drop(self, images)
    return Phase(
      alpha=np.float32(1),
      g_lr=np.float32(self.g_lr * drop),
      d_lr=np.float32(self.d_lr * drop),
      ema=np.float32(self.ema if images >= self.ema_start else 0),
      res=res,
    )

  def resets_between(self, before: int, after: int) -> bool:
    """Whether the optimizers are reset between two image counts: never."""
    del before, after
    return False

  def evaluated_at(self, images: int, d_steps: int) -> int:
    """The images at which the step after `images` evaluates the schedule: all."""
    del d_steps
    return images


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressiveSchedule:
  """The section `schedule` of a config with progressive growing.

  Each resolution trains for `stabilise` images; then the next one fades in over `fade`
  images. The final one trains until the end (ProGAN, appendix A; the training loop of
  StyleGAN does the same).

  `batch`, `g_lr` and `d_lr` have one entry per resolution, or one for all. During a
  fade the entry of the higher resolution counts.

  Raises:
    UserError: invalid resolutions, lengths or values.
  """

  resolutions: tuple[int, ...] = key(
    REQUIRED, 'consecutive powers of two, from 4 or more to model.res'
  )
  batch: tuple[int, ...] = key(
    REQUIRED,
    'real images per D update, all devices; one entry, or one per resolution',
    at_least=1,
  )
  stabilise: int = key(
    600_000, 'images at each resolution before the next fades in', at_least=0
  )
  fade: int = key(600_000, 'images over which a resolution fades in', at_least=0)
  g_lr: tuple[float, ...] = key(
    (1e-3,), 'learning rate of G; one entry, or one per resolution', at_least=0
  )
  d_lr: tuple[float, ...] = key(
    (1e-3,), 'learning rate of D; one entry, or one per resolution', at_least=0
  )
  warmup: int = key(0, 'images over which the learning rates rise from 0', at_least=0)
  lr_drop_after: int = key(0, LR_DROP_AFTER, at_least=0)
  lr_drop: float = key(0.1, LR_DROP, at_least=0, at_most=1)
  ema: float = key(
    0.999, 'decay of the EMA weights per iteration', at_least=0, at_most=1
  )
  ema_half_life: int = key(
    0, 'images; 0: the decay is ema, else it follows from this', at_least=0
  )
  minibatch_repeats: int = key(
    1,
    "iterations from one evaluation of the schedule to the next; 4 in the originals' "
    'code',
    at_least=1,
  )

  def __post_init__(self) -> None:
    check_ranges('schedule', self)
    name, sizes = 'schedule.resolutions', self.resolutions
    if not sizes or sizes[0] < 4 or sizes[0] & (sizes[0] - 1):
      raise UserError(
        f'{name} is {sizes}: it must start with a power of two, at least 4.'
      )
    for low, high in zip(sizes, sizes[1:], strict=False):
      if high != 2 * low:
        raise UserError(f'{name} goes from {low} to {high}: {2 * low} must come next.')
    for name in ('batch', 'g_lr', 'd_lr'):
      table = getattr(self, name)
      if len(table) not in (1, len(sizes)):
        raise UserError(
          f'schedule.{name} has {len(table)} entries: it needs 1 or {len(sizes)}, one '
          'per entry of schedule.resolutions.'
        )
    if len(sizes) > 1 and not self.stabilise + self.fade:
      raise UserError(
        'schedule.stabilise and schedule.fade are both 0: one of them must be positive '
        'to train more than one resolution.'
      )

  def stages(self, res: int) -> tuple[Stage, ...]:
    """One stage per resolution.

    Raises:
      UserError: `res`, the resolution of the model, is not the final resolution.
    """
    if res != self.resolutions[-1]:
      raise UserError(
        f'schedule.resolutions ends with {self.resolutions[-1]}, but model.res is '
        f'{res}: they must be equal.'
      )
    period = self.stabilise + self.fade
    # Without a fade, the step at the boundary has the higher resolution.
    first = self.stabilise - (not self.fade)
    return tuple(
      Stage((i - 1) * period + first if i else -1, size, _entry(self.batch, i))
      for i, size in enumerate(self.resolutions)
    )

  def lod_at(self, images: int) -> float:
    """Level of detail after `images` images; see `gan_jax.models.progressive`.

    It is an integer outside fades. In a fade it falls from that of the lower to that of
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
    """The phase of the step before which `images` images were seen.

    Args:
      res: the final resolution.
    """
    lod = self.lod_at(images)
    stage = len(self.resolutions) - 1 - math.floor(lod)
    ramp = min(images / self.warmup, 1) if self.warmup else 1
    factor = ramp * _drop(self, images)
    ema = self.ema
    if self.ema_half_life:
      ema = 0.5 ** (_entry(self.batch, stage) / self.ema_half_life)
    return Phase(
      alpha=np.float32(1 - (lod - math.floor(lod))),
      g_lr=np.float32(_entry(self.g_lr, stage) * factor),
      d_lr=np.float32(_entry(self.d_lr, stage) * factor),
      ema=np.float32(ema),
      res=res >> math.floor(lod),
    )

  def resets_between(self, before: int, after: int) -> bool:
    """Whether optimizers are reset: a fade began or ended between two image counts."""
    old, new = self.lod_at(before), self.lod_at(after)
    ends = lambda lod: (math.floor(lod), math.ceil(lod))
    return ends(old) != ends(new)

  def evaluated_at(self, images: int, d_steps: int) -> int:
    """The images at which the schedule was evaluated for the step after `images`.

    Counted from the beginning of training, in rounds of `minibatch_repeats` iterations
    of d_steps batches each. The size of a batch, too, is that of the evaluation.
    """
    if self.minibatch_repeats == 1:
      return images
    stages, start = self.stages(self.resolutions[-1]), 0
    while True:
      stage = [s for s in stages if s.after < start][-1]
      length = stage.batch * d_steps * self.minibatch_repeats
      later = [s.after for s in stages if s.after >= start]
      end = start + ((later[0] - start) // length + 1) * length if later else math.inf
      if images < end:
        return start + (images - start) // length * length
      start = int(end)


def _drop(schedule: ConstantSchedule | ProgressiveSchedule, images: int) -> float:
  """Factor of the learning rates after `images` images."""
  return schedule.lr_drop if 0 < schedule.lr_drop_after <= images else 1


def _entry(table: tuple[T, ...], stage: int) -> T:
  """The entry of a stage, in a table of one entry per stage or one for all."""
  return table[stage] if len(table) > 1 else table[0]
