"""The evaluation protocol: all settings that the value of a score depends on."""

import dataclasses
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.metrics.resize import PREPROCESSING
from gan_jax.runtime.flags import flag

MAX_GENERATED = 50_000  # generated images, unless `num` says otherwise


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol:
  """How scores are computed: numbers of images, truncation, seeds, preprocessing.

  Together with the data and the metric, it determines the value of a model's score.
  """

  num: int = flag(0, 'generated images; default: as many as real ones, 50,000 at most')
  reals: int = flag(0, 'real images; default: all of the split')
  truncation: float = flag(
    float('inf'), 'resample entries of z outside [-T, T]', metavar='T'
  )
  psi: float = flag(1.0, 'factor of z or, for StyleGAN, of w - mean(w)')
  alpha: float = 1.0  # fade-in of a growing GAN's resolution, in (0, 1]
  ema: bool = True  # False: the raw weights of G
  standing: int = flag(
    16,
    'batches from which batch statistics are computed; 0: the running averages',
    metavar='N',
  )
  seed: int = flag(0, 'seed of the first image; the others count up from it')
  batch: int = flag(64, 'images per batch')
  resizing: str = flag(
    'torch',
    'how images are resized to 299 pixels for Inception: as pytorch-fid (torch), '
    'torch-fidelity (tf1), clean-fid (clean), ...',
    choices=tuple(PREPROCESSING),
  )

  def __post_init__(self) -> None:
    for name in ('truncation', 'psi', 'batch'):
      if not getattr(self, name) > 0:
        raise UserError(f'--{name}={getattr(self, name)}: it must be above 0.')
    for name in ('num', 'reals', 'standing', 'seed'):
      if getattr(self, name) < 0:
        raise UserError(f'--{name}={getattr(self, name)}: it must not be negative.')

  def resolve(
    self, dataset_name: str, dataset_size: int, devices: int
  ) -> 'EvaluationProtocol':
    """The protocol with numbers in place of zeros, and a batch that devices divide.

    Raises:
      UserError: the dataset has fewer images than `reals`.
    """
    if self.reals > dataset_size:
      raise UserError(
        f'--reals={self.reals}: {dataset_name} has {dataset_size} real images.'
      )
    reals = self.reals or dataset_size
    return dataclasses.replace(
      self,
      reals=reals,
      num=self.num or min(reals, MAX_GENERATED),
      batch=-(-self.batch // devices) * devices,
    )

  @property
  def seeds(self) -> np.ndarray:
    """Seeds of the generated images, uint32 [num]."""
    return np.arange(self.seed, self.seed + self.num, dtype=np.uint32)

  def generator_stamp(self) -> dict[str, Any]:
    """The settings that every metric depends on, as JSON."""
    return {
      'n': self.num,
      'seeds': f'{self.seed}-{self.seed + self.num - 1}',
      'ema': self.ema,
      'standing': f'{self.standing} x {self.batch}' if self.standing else 'running',
    }

  def images_stamp(self) -> dict[str, Any]:
    """The further settings of metrics that compare generated with real images."""
    return {
      'reals': self.reals,
      'truncation': None if np.isinf(self.truncation) else self.truncation,
      'psi': self.psi,
      'alpha': self.alpha,
    }
