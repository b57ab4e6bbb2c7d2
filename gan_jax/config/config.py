"""`Config`: everything that defines a run."""

import dataclasses
from typing import Any

from gan_jax import UserError
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule, ProgressiveSchedule, Stage
from gan_jax.config.sections import (
  CollapseConfig,
  DataConfig,
  FineTuneConfig,
  LogConfig,
  ScoreConfig,
  TrainConfig,
)
from gan_jax.models.augmentation import Augmentation
from gan_jax.models.base import GAN, Phase
from gan_jax.models.biggan import BigGAN
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN

FAMILIES = {'biggan': BigGAN, 'progan': ProGAN, 'stylegan': StyleGAN}
SCHEDULES = {
  'biggan': ConstantSchedule,
  'progan': ProgressiveSchedule,
  'stylegan': ProgressiveSchedule,
}
SECTIONS = {  # besides model and schedule, whose classes depend on the family
  'g_adam': AdamConfig,
  'd_adam': AdamConfig,
  'data': DataConfig,
  'train': TrainConfig,
  'augment': Augmentation,
  'finetune': FineTuneConfig,
  'log': LogConfig,
  'score': ScoreConfig,
  'collapse': CollapseConfig,
}


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that defines a run; `parse_config` makes one from a mapping."""

  gan: GAN
  schedule: ConstantSchedule | ProgressiveSchedule
  g_adam: AdamConfig
  d_adam: AdamConfig
  data: DataConfig
  train: TrainConfig
  augment: Augmentation
  finetune: FineTuneConfig
  log: LogConfig
  score: ScoreConfig
  collapse: CollapseConfig

  def source(self, split: str = '') -> dict[str, Any]:
    """Arguments of `data.load_dataset`; `split` replaces that of the config."""
    source = self.data
    return dict(
      name=source.name,
      split=split or source.split,
      data_dir=source.data_dir or None,
      cache=source.cache or None,
      res=self.gan.size(),
      channels=self.gan.channels,
      upscale=source.upscale,
      skip_bad=source.skip_bad,
      value_range=source.range,
    )

  @property
  def stages(self) -> tuple[Stage, ...]:
    """The stages of training, in order; the step is compiled once per stage."""
    return self.schedule.stages(self.gan.res)

  def phase_at(self, images: int) -> Phase:
    """The phase of the step before which `images` images were seen."""
    evaluated = self.schedule.evaluated_at(images, self.train.d_steps)
    return self.schedule.phase_at(evaluated, self.gan.res)

  def resets_between(self, before: int, after: int) -> bool:
    """Whether optimizers are reset between two image counts: a fade began or ended."""
    d_steps = self.train.d_steps
    seen = (self.schedule.evaluated_at(images, d_steps) for images in (before, after))
    return self.schedule.resets_between(*seen)

  def shape(self, stage: Stage, n_devices: int) -> tuple[int, int, int]:
    """(micro-batches of the D steps, images of one, fakes of a micro-batch of G).

    The latter two are per device.

    Raises:
      UserError: a batch is not divisible by the devices and micro-batches.
    """
    t, group = self.train, self.gan.group
    g_batch, g_accum = t.g_batch or stage.batch, t.g_accum or t.accum
    g_key = 'train.g_accum' if t.g_accum else 'train.accum'
    for key, value, accum_key, accum in (
      ('schedule.batch', stage.batch, 'train.accum', t.accum),
      ('train.g_batch' if t.g_batch else 'schedule.batch', g_batch, g_key, g_accum),
    ):
      parts, micro_batch = n_devices * accum, value // accum
      if value % parts:
        raise UserError(
          f'{key}={value} does not divide by {n_devices} devices x '
          f'{accum_key}={accum}: take a multiple of {parts}.'
        )
      if micro_batch % min(group, micro_batch):
        raise UserError(
          f'{key}={value} with {accum_key}={accum} does not divide into groups of '
          f'model.mbstd_group={group}: take a multiple of {group * accum}.'
        )
    real = stage.batch // (n_devices * t.accum)
    return t.d_steps * t.accum, real, g_batch // (n_devices * g_accum)

  def images_per_step(self, stage: Stage) -> int:
    """Real images per iteration, over all devices and D steps."""
    return stage.batch * self.train.d_steps

  def to_dict(self) -> dict[str, dict[str, Any]]:
    """Every key with its value, defaults included; `parse_config` inverts it."""
    family = next(name for name, cls in FAMILIES.items() if type(self.gan) is cls)
    gan: Any = self.gan
    sections = {name: getattr(self, name) for name in ('schedule', *SECTIONS)}
    return {
      'model': {'family': family, **dataclasses.asdict(gan)},
      **{name: dataclasses.asdict(section) for name, section in sections.items()},
    }
