"""A config becomes objects here, and is refused here; below, nobody sees a config."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from gan_jax import UserError
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule, ProgressiveSchedule, Stage
from gan_jax.models.base import GAN
from gan_jax.models.biggan import BigGAN
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN

FAMILIES = {'biggan': BigGAN, 'progan': ProGAN, 'stylegan': StyleGAN}
SCHEDULES = {
  'biggan': ConstantSchedule,
  'progan': ProgressiveSchedule,
  'stylegan': ProgressiveSchedule,
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where the pictures come from; see `data.load`."""

  name: str
  split: str = 'train'
  data_dir: str = ''  # '': $TFDS_DATA_DIR, else ~/tensorflow_datasets
  upscale: bool = False  # take images smaller than model.res
  skip_bad: bool = False  # read the next image instead of one that is damaged
  flip: bool = False
  threads: int = 8


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How long, in what portions and on what mapping."""

  images: int  # reals shown to D until the end
  d_steps: int = 1
  accum: int = 1  # micro-batches per batch; batch statistics are a micro-batch's
  g_batch: int = 0  # fakes per G step, of all devices; 0: as many as the D step's reals
  mapped: str = 'pmap'  # or 'jit'
  noise_scale: bool = False  # log it; see noise.py
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What is written how often, in images."""

  metrics_every: int
  sheet_every: int
  checkpoint_every: int
  keep: int = 3  # newest checkpoints
  ring: int = 3  # older ones that stay as well, four checkpoints apart
  sheet_rows: int = 8
  sheet_columns: int = 8


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
  """Scores taken while training; see evaluator.py.

  Of a growing GAN the final resolution is scored, from when it has faded in: scores of
  different resolutions do not compare.
  """

  every: int = 0  # images; 0: only gan_jax.evaluate takes any
  metrics: tuple[str, ...] = ()  # none: all that need no file of weights
  n: int = 0  # generated images; 0: as many as real ones, 50,000 at most
  reals: int = 0  # 0: all
  best: int = 0  # checkpoints that stay for their score
  best_by: str = ''  # that score, such as 'fid'


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
  """When a run counts as lost, and what is done then; see watch.py."""

  patience: int = 20  # iterations in a row with an update that is not finite: stop
  # Collapsed are `sheets` in a row with less than this share of the best variety, or
  # on which D was this many times as sure as usual, a singular value this many times
  # as large, or G's gradient this many times larger or smaller; 0 does not ask.
  diversity: float = 0.3
  gap: float = 4.0
  sigma: float = 4.0
  gradient: float = 4.0
  sheets: int = 2
  response: str = 'tell'  # or 'stop', or 'rollback' to the last good checkpoint
  lower: float = 0.5  # times the learning rates with each rollback
  rollbacks: int = 3  # and no more


@dataclasses.dataclass(frozen=True)
class Config:
  """All of a run."""

  gan: GAN
  schedule: ConstantSchedule | ProgressiveSchedule
  g_adam: AdamConfig
  d_adam: AdamConfig
  data: DataConfig
  train: TrainConfig
  log: LogConfig
  score: ScoreConfig
  watch: CollapseConfig

  def source(self, split: str = '') -> dict[str, Any]:
    """The arguments of `data.load`; `split` in place of the config's."""
    source = self.data
    return dict(
      name=source.name,
      split=split or source.split,
      data_dir=source.data_dir or None,
      res=self.gan.res,
      channels=self.gan.channels,
      upscale=source.upscale,
      skip_bad=source.skip_bad,
    )

  @property
  def stages(self) -> tuple[Stage, ...]:
    """What is compiled for, in the order of training."""
    return self.schedule.stages(self.gan.res)

  def shape(self, stage: Stage, n_devices: int) -> tuple[int, int, int]:
    """(micro-batches per iteration, images, G-step fakes) per device.

    Raises:
      UserError: a batch that does not divide.
    """
    t = self.train
    parts = n_devices * t.accum
    group = self.gan.group
    sizes = {'schedule.batch': stage.batch, 'train.g_batch': t.g_batch or stage.batch}
    for key, value in sizes.items():
      if value % parts:
        raise UserError(
          f'{key}={value} does not divide by {n_devices} devices x '
          f'train.accum={t.accum}: take a multiple of {parts}.'
        )
      if value // t.accum % min(group, value // t.accum):
        raise UserError(
          f'{key}={value} with train.accum={t.accum} does not divide into groups of '
          f'model.mbstd_group={group}: take a multiple of {group * t.accum}.'
        )
    return t.d_steps * t.accum, stage.batch // parts, sizes['train.g_batch'] // parts

  def images_per_step(self, stage: Stage) -> int:
    return stage.batch * self.train.d_steps


SECTIONS = {  # besides model and schedule, whose classes the family decides
  'g_adam': AdamConfig,
  'd_adam': AdamConfig,
  'data': DataConfig,
  'train': TrainConfig,
  'log': LogConfig,
  'score': ScoreConfig,
  'watch': CollapseConfig,
}


def parse_config(config: Mapping[str, Any]) -> Config:
  """A config as a Recipe.

  Raises:
    UserError: an unknown or missing key, a wrong type or an impossible value; one
      sentence that names the key and what is allowed.
  """
  names = ('model', 'schedule', *SECTIONS)
  for key in config:
    if key not in names:
      raise UserError(
        f'the config has no section {key!r}{_nearest(key, names)}: sections are '
        f'{", ".join(names)}.'
      )
  gan = build_gan(config.get('model', {}))
  sections = SECTIONS | {'schedule': SCHEDULES[config['model']['family']]}
  parts = {
    name: _section(cls, name, config.get(name, {})) for name, cls in sections.items()
  }
  recipe = Config(gan=gan, **parts)
  train = recipe.train
  if train.mapped not in ('pmap', 'jit'):
    raise UserError(f'train.mapped is {train.mapped!r}: allowed are pmap and jit.')
  watch = recipe.watch
  if watch.response not in ('tell', 'stop', 'rollback'):
    raise UserError(
      f'watch.response is {watch.response!r}: allowed are tell, stop and rollback.'
    )
  if not 0 < watch.lower <= 1:
    raise UserError(f'watch.lower is {watch.lower}: it lies above 0, and is at most 1.')
  score = recipe.score
  for key in ('every', 'n', 'reals', 'best'):
    if getattr(score, key) < 0:
      raise UserError(f'score.{key} is {getattr(score, key)}: it must not be negative.')
  if bool(score.best) != bool(score.best_by):
    raise UserError(
      f'score.best={score.best} and score.best_by={score.best_by!r} go together: how '
      "many checkpoints stay, and for which score, such as 'fid'."
    )
  if score.best and not score.every:
    raise UserError(
      f'score.best is {score.best}, but score.every is 0: no score would be taken.'
    )
  for name, keys in {
    'train': ('images', 'd_steps', 'accum'),
    'log': ('metrics_every', 'sheet_every', 'checkpoint_every', 'keep'),
    'watch': ('patience', 'sheets'),
  }.items():
    for key in keys:
      value = getattr(getattr(recipe, name), key)
      if value < 1:
        raise UserError(f'{name}.{key} is {value}: it must be at least 1.')
  for stage in recipe.stages:
    recipe.shape(stage, n_devices=1)
  return recipe


def build_gan(model: Mapping[str, Any]) -> GAN:
  """The model section of a config as a GAN.

  Raises:
    UserError: as `read`.
  """
  fields = dict(model)
  family = fields.pop('family', None)
  if family not in FAMILIES:
    raise UserError(
      f'model.family is {family!r}{_nearest(str(family), FAMILIES)}: families are '
      f'{", ".join(FAMILIES)}.'
    )
  return _section(FAMILIES[family], 'model', fields)


def _section(cls: type, name: str, values: Mapping[str, Any]) -> Any:
  hints = typing.get_type_hints(cls)
  fields = {f.name: f for f in dataclasses.fields(cls)}
  for key in values:
    if key not in fields:
      raise UserError(
        f'{name} has no key {key!r}{_nearest(key, fields)}: keys are '
        f'{", ".join(fields)}.'
      )
  for key, field in fields.items():
    if field.default is dataclasses.MISSING and key not in values:
      raise UserError(f'{name}.{key} is missing; it has no default.')
  return cls(**{k: _typed(f'{name}.{k}', v, hints[k]) for k, v in values.items()})


def _typed(key: str, value: Any, hint: Any) -> Any:
  """The value as the field's type; ints pass for floats, lists for tuples."""
  if typing.get_origin(hint) is tuple:
    one = typing.get_args(hint)[0]
    if isinstance(value, list | tuple):
      return tuple(_typed(f'{key}[{i}]', v, one) for i, v in enumerate(value))
    raise UserError(f'{key} is {value!r}: a tuple of {one.__name__}s is needed.')
  if hint is float and type(value) is int:
    return float(value)
  if type(value) is not hint:
    raise UserError(f'{key} is {value!r}: {hint.__name__} is needed.')
  return value


def _nearest(word: str, words: Any) -> str:
  near = difflib.get_close_matches(word, list(words), 1)
  return f' (did you mean {near[0]!r}?)' if near else ''
