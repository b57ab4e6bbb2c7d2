"""The sections of a config as frozen dataclasses; each checks its own values.

The sections `model`, `schedule`, `g_adam` and `d_adam` have modules of their own:
`gan_jax.models`, `config.schedules` and `config.optimizers`.
"""

import dataclasses

from gan_jax import UserError
from gan_jax.runtime.keys import REQUIRED, check_ranges, key
from gan_jax.runtime.urls import check_path, check_url, is_url


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The dataset; see `gan_jax.data.load_dataset`."""

  name: str = key(
    REQUIRED, 'built-in set, path of a folder or zip, gs:// or s3:// URL, or TFDS set'
  )
  split: str = key('train', "split of a TFDS or prepared set, such as 'train[:90%]'")
  data_dir: str = key('', "TFDS sets; '': $TFDS_DATA_DIR, else ~/tensorflow_datasets")
  cache: str = key(
    '', "folder that a set is copied to; '': sets of URLs to ~/.cache/gan_jax/data"
  )
  upscale: bool = key(False, 'accept images smaller than model.res')
  skip_bad: bool = key(
    False, 'replace a corrupt image by the next one; allow that many are left out'
  )
  range: str = key(
    'auto',
    "values of more than 8 bits that become 0..255: auto, image, full or '0,4095'",
  )
  flip: bool = key(False, 'random horizontal flips')
  threads: int = key(8, 'decoding threads per process', at_least=0)

  def __post_init__(self) -> None:
    check_ranges('data', self)
    if not self.name:
      raise UserError("data.name is '': the name or the path of a dataset is needed.")
    self._check_places()

  def _check_places(self) -> None:
    """Checks the form of URLs; whether something is there is seen when it is read."""
    for field, check in (
      ('name', lambda text: is_url(text) and check_url(text)),
      ('data_dir', lambda text: is_url(text) and check_url(text, bucket_alone=True)),
      ('cache', check_path),
    ):
      try:
        check(getattr(self, field))
      except UserError as error:
        raise UserError(f'data.{field}={error}') from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """Length of training, batch layout and parallelism."""

  images: int = key(
    REQUIRED,
    'real images shown to D by the end of training',
    at_least=1,
    at_most=2**32 - 1,  # TrainState.images is uint32
  )
  d_steps: int = key(1, 'D steps per G step', at_least=1)
  simultaneous: bool = key(False, 'update G against D as it was before the D step')
  accum: int = key(
    1, 'micro-batches per batch; each has its own batch statistics', at_least=1
  )
  g_accum: int = key(
    0, 'micro-batches per G step; 0: as many as train.accum', at_least=0
  )
  g_batch: int = key(
    0, 'fake images per G step, all devices; 0: as many as schedule.batch', at_least=0
  )
  mapped: str = key(
    'jit',
    "'jit' shards the optimizer state over devices; or 'pmap'",
    choices=('pmap', 'jit'),
  )
  noise_scale: bool = key(False, 'log gradient noise scales')
  matmul_precision: str = key(
    'default',
    'of float32 products and convolutions; default: TF32 on GPUs, bfloat16 on TPUs',
    choices=('default', 'tensorfloat32', 'float32'),
  )
  seed: int = key(
    0,
    'of the weights, the noise and the order of images',
    at_least=0,
    at_most=2**32 - 1,
  )

  def __post_init__(self) -> None:
    check_ranges('train', self)
    if self.simultaneous and self.d_steps > 1:
      raise UserError(
        f'train.simultaneous is True and train.d_steps is {self.d_steps}: G and D can '
        'be updated together only with train.d_steps=1.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
  """Intervals of metrics, sample grids and checkpoints, in images; trackers."""

  metrics_every: int = key(REQUIRED, 'images between metrics', at_least=1)
  grid_every: int = key(REQUIRED, 'images between sample grids', at_least=1)
  checkpoint_every: int = key(REQUIRED, 'images between checkpoints', at_least=1)
  keep: int = key(3, 'newest checkpoints that are kept', at_least=1)
  keep_periodic: int = key(
    3, 'older checkpoints kept as well, four saves apart', at_least=0
  )
  grid_rows: int = key(8, 'rows of a sample grid', at_least=1)
  grid_columns: int = key(8, 'columns of a sample grid', at_least=1)
  trackers: tuple[str, ...] = key(
    ('tensorboard',),
    'where metrics go besides the workdir: tensorboard, wandb, mlflow; (): nowhere',
    choices=('tensorboard', 'wandb', 'mlflow'),
  )

  def __post_init__(self) -> None:
    check_ranges('log', self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreConfig:
  """Evaluation during training; see `gan_jax.evaluation.evaluator`.

  A progressive GAN is scored at its final resolution only, once that has faded in:
  scores of different resolutions are not comparable.
  """

  every: int = key(0, 'images between scores; 0: none during training', at_least=0)
  metrics: tuple[str, ...] = key((), '(): all metrics that need no weights file')
  n: int = key(
    0, 'generated images; 0: as many as real images, at most 50,000', at_least=0
  )
  reals: int = key(0, 'real images; 0: all', at_least=0)
  best: int = key(0, 'checkpoints kept for their score', at_least=0)
  best_by: str = key('', "the score that ranks them, e.g. 'fid'")

  def __post_init__(self) -> None:
    check_ranges('score', self)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollapseConfig:
  """Limits of the collapse monitor; see `gan_jax.training.collapse_monitor`.

  A run has collapsed when `grids` consecutive sample grids exceed a limit. A limit of
  0 is not checked.
  """

  max_skipped: int = key(
    20, 'consecutive iterations with a non-finite update; then stop', at_least=1
  )
  min_diversity: float = key(
    0.3, 'of a sample grid, as a fraction of the best so far', at_least=0
  )
  max_gap_ratio: float = key(
    4.0, "D's score gap between real and fake, over its median", at_least=0
  )
  max_sigma_ratio: float = key(
    4.0, "a network's largest singular value, over its median", at_least=0
  )
  max_gradient_ratio: float = key(
    4.0, "norm of G's gradient, over or under its median", at_least=0
  )
  grids: int = key(2, 'consecutive sample grids beyond a limit: collapsed', at_least=1)
  action: str = key(
    'warn',
    "'warn', 'stop', or 'rollback' to the last good checkpoint",
    choices=('warn', 'stop', 'rollback'),
  )
  lr_factor: float = key(
    0.5, 'multiplies the learning rates at each rollback', above=0, at_most=1
  )
  max_rollbacks: int = key(3, 'rollbacks before the run stops', at_least=0)

  def __post_init__(self) -> None:
    check_ranges('collapse', self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
  """What a run begins with besides new weights, and what stays as it begins.

  See `gan_jax.training.transfer` and `gan_jax.training.freezing`.
  """

  source: str = key(
    '', "workdir of the run whose weights this one begins with; '': new weights"
  )
  step: int = key(0, 'step of the checkpoint of it; 0: the newest', at_least=0)
  partial: bool = key(
    False, 'accept that arrays do not match in name and shape; they are drawn anew'
  )
  classes: tuple[str, ...] = key(
    (),
    'classes of the source, one entry per class of this run or one for all, such as '
    "'3' or '0.7*cat+0.3*dog'; (): the same",
  )
  freeze_d: tuple[str, ...] = key(
    (), "frozen parameters of D: '2' for the first 2 blocks from the image on, or names"
  )
  freeze_g: tuple[str, ...] = key(
    (), "frozen parameters of G: '2' for the first 2 blocks from 4x4 on, or names"
  )

  def __post_init__(self) -> None:
    check_ranges('finetune', self)
    for name in ('step', 'partial', 'classes'):
      value = getattr(self, name)
      if value and not self.source:
        raise UserError(
          f'finetune.{name} is {value}, but finetune.source is empty: name the run '
          'that it is about.'
        )
    try:
      if is_url(self.source):
        check_url(self.source)
    except UserError as error:
      raise UserError(f'finetune.source={error}') from error
