"""The sections of a config as frozen dataclasses; each checks its own values.

The sections `model`, `schedule`, `g_adam` and `d_adam` have modules of their own:
`gan_jax.models`, `config.schedules` and `config.optimizers`.
"""

import dataclasses
from typing import Any

from gan_jax import UserError


def _check_minimum(section: str, values: Any, keys: tuple[str, ...]) -> None:
  for key in keys:
    if getattr(values, key) < 1:
      raise UserError(
        f'{section}.{key} is {getattr(values, key)}: it must be at least 1.'
      )


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    allowed = f'{", ".join(choices[:-1])} and {choices[-1]}'
    raise UserError(f'{key} is {value!r}: allowed are {allowed}.')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The dataset; see `gan_jax.data.load_dataset`."""

  name: str
  split: str = 'train'
  data_dir: str = ''  # '': $TFDS_DATA_DIR, else ~/tensorflow_datasets
  upscale: bool = False  # accept images smaller than model.res
  skip_bad: bool = False  # replace a corrupt image by the next one
  flip: bool = False  # random horizontal flips
  threads: int = 8  # decoding threads per process


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Length of training, batch layout and parallelism."""

  images: int  # real images shown to D by the end of training
  d_steps: int = 1  # D steps per G step
  accum: int = 1  # micro-batches per batch; batch statistics are per micro-batch
  g_batch: int = 0  # fake images per G step, all devices; 0: as many as schedule.batch
  mapped: str = 'jit'  # 'jit' shards the optimizer state over devices; or 'pmap'
  noise_scale: bool = False  # log gradient noise scales; see training.noise_scale
  seed: int = 0

  def __post_init__(self) -> None:
    _check_choice('train.mapped', self.mapped, ('pmap', 'jit'))
    _check_minimum('train', self, ('images', 'd_steps', 'accum'))


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """Intervals of metrics, sample grids and checkpoints, in images."""

  metrics_every: int
  grid_every: int
  checkpoint_every: int
  keep: int = 3  # newest checkpoints that are kept
  keep_periodic: int = 3  # older checkpoints kept as well, four saves apart
  grid_rows: int = 8
  grid_columns: int = 8

  def __post_init__(self) -> None:
    _check_minimum(
      'log', self, ('metrics_every', 'grid_every', 'checkpoint_every', 'keep')
    )


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
  """Evaluation during training; see `gan_jax.evaluation.evaluator`.

  A progressive GAN is scored at its final resolution only, once that has faded in:
  scores of different resolutions are not comparable.
  """

  every: int = 0  # images; 0: no evaluation during training
  metrics: tuple[str, ...] = ()  # (): all metrics that need no weights file
  n: int = 0  # generated images; 0: as many as real images, at most 50,000
  reals: int = 0  # real images; 0: all
  best: int = 0  # checkpoints kept for their score
  best_by: str = ''  # the score that ranks them, e.g. 'fid'

  def __post_init__(self) -> None:
    for key in ('every', 'n', 'reals', 'best'):
      if getattr(self, key) < 0:
        raise UserError(
          f'score.{key} is {getattr(self, key)}: it must not be negative.'
        )
    if bool(self.best) != bool(self.best_by):
      raise UserError(
        f'score.best={self.best} and score.best_by={self.best_by!r} must be set '
        "together: the number of checkpoints to keep, and the score (e.g. 'fid') that "
        'ranks them.'
      )
    if self.best and not self.every:
      raise UserError(
        f'score.best is {self.best}, but score.every is 0: no score would be computed.'
      )


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
  """Limits of the collapse monitor; see `gan_jax.training.collapse_monitor`.

  A run has collapsed when `grids` consecutive sample grids exceed a limit. A limit of
  0 is not checked.
  """

  max_skipped: int = 20  # consecutive iterations with a non-finite update; then stop
  min_diversity: float = 0.3  # of a sample grid, as a fraction of the best so far
  max_gap_ratio: float = 4.0  # D's score gap between real and fake, over its median
  max_sigma_ratio: float = 4.0  # a network's largest singular value, over its median
  max_gradient_ratio: float = 4.0  # norm of G's gradient, over or under its median
  grids: int = 2
  action: str = 'warn'  # or 'stop', or 'rollback' to the last good checkpoint
  lr_factor: float = 0.5  # multiplies the learning rates at each rollback
  max_rollbacks: int = 3

  def __post_init__(self) -> None:
    _check_choice('collapse.action', self.action, ('warn', 'stop', 'rollback'))
    if not 0 < self.lr_factor <= 1:
      raise UserError(
        f'collapse.lr_factor is {self.lr_factor}: it must be above 0 and at most 1.'
      )
    _check_minimum('collapse', self, ('max_skipped', 'grids'))
