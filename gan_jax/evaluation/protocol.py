"""The evaluation protocol: all settings that the value of a score depends on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.metrics.resize import PREPROCESSING
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.flags import flag

MAX_GENERATED = 50_000  # generated images, unless `num` says otherwise
MAX_FEATURE_ROWS = 50_000  # feature vectors that are stored

# The settings of each tool, see docs/metrics.md; what it leaves to its user is absent.
# `reals` and the numbers of swd and msssim are upper limits.
_NVIDIA = {
  'num': 50_000,
  'reals': 50_000,
  'psi': 1.0,
  'truncation': float('inf'),
  'ema': True,
  'mirror': 'trained',
  'resizing': 'tf1',
}
_IN_ORDER = {'is_splits': 10, 'is_seed': None}
_KID = {'kid_subsets': 100, 'kid_subset_size': 1000}
PROTOCOLS: dict[str, dict[str, Any]] = {
  # NVlabs/stylegan, metrics/: fid50k, ls and ppl_*
  'stylegan': {
    **_NVIDIA,
    'separability_images': 200_000,
    'ppl_samples': 100_000,
    'ppl_crop': 'face',
    'ppl_noise': 'fresh',
  },
  # tkarras/progressive_growing_of_gans, util_scripts.py: evaluate_metrics
  'progan': {**_NVIDIA, **_IN_ORDER, 'swd_images': 16_384, 'msssim_images': 20_000},
  # Brock et al. 2019; inception_tf13.py of BigGAN-PyTorch
  'biggan': {
    **_IN_ORDER,
    'num': 50_000,
    'reals': 0,
    'mirror': 'never',
    'resizing': 'tf1',
  },
  'pytorch-fid': {'reals': 0, 'mirror': 'never', 'resizing': 'torch'},
  'clean-fid': {
    **_KID,
    'num': 50_000,
    'reals': 0,
    'mirror': 'never',
    'resizing': 'clean-fid',
  },
  'torch-fidelity': {
    **_KID,
    'kid_seed': 2020,
    'is_splits': 10,
    'is_seed': 2020,
    'reals': 0,
    'mirror': 'never',
    'resizing': 'tf1',
  },
}


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
    'torch-fidelity (tf1), clean-fid, ...',
    choices=tuple(PREPROCESSING),
  )
  mirror: str = flag(
    'trained',
    'flip half of the real images for Frechet distances, swd and msssim: if the run '
    'was trained with flips (trained), always, or never',
    choices=('trained', 'always', 'never'),
  )
  kid_subsets: int = flag(100, 'subsets of kid', metavar='N')
  kid_subset_size: int = flag(
    1000, 'images of each subset of kid; all if there are fewer', metavar='N'
  )
  kid_seed: int = flag(2020, 'seed of the subsets of kid', metavar='SEED')
  is_splits: int = flag(10, 'splits of is', metavar='N')
  is_seed: int | None = flag(
    None,
    'shuffle the images before they are split for is; default: in order',
    metavar='SEED',
  )
  swd_images: int = flag(
    16_384, 'images of each side for swd; all if there are fewer', metavar='N'
  )
  msssim_images: int = flag(
    20_000, 'images whose pairs msssim compares; all if there are fewer', metavar='N'
  )
  separability_images: int = flag(
    0, 'images of separability; default: as many as generated images', metavar='N'
  )
  ppl_samples: int = flag(
    0, 'paths of ppl; default: as many as generated images', metavar='N'
  )
  ppl_crop: str = flag(
    'none',
    'what ppl compares of the images: all (none), or rows 3/8 to 7/8 and columns 1/4 '
    'to 3/4 (face)',
    choices=('none', 'face'),
  )
  ppl_noise: str = flag(
    'constant',
    "noise of StyleGAN's layers for ppl: stored with the weights (constant), or drawn "
    'for each batch (fresh)',
    choices=('constant', 'fresh'),
  )
  name: str = ''  # key of PROTOCOLS that set some of the fields

  def __post_init__(self) -> None:
    for name in ('truncation', 'psi', 'batch', 'kid_subsets', 'is_splits'):
      if not getattr(self, name) > 0:
        raise UserError(f'--{name}={getattr(self, name)}: it must be above 0.')
    for name in (
      'num',
      'reals',
      'standing',
      'seed',
      'separability_images',
      'ppl_samples',
    ):
      if getattr(self, name) < 0:
        raise UserError(f'--{name}={getattr(self, name)}: it must not be negative.')
    for name, least, most in (
      ('kid_subset_size', 2, MAX_FEATURE_ROWS),
      ('kid_seed', 0, 2**32 - 1),
      ('is_seed', 0, 2**32 - 1),
      ('swd_images', 1, 10**6),
      ('msssim_images', 2, 10**6),
    ):
      value = getattr(self, name)
      if value is not None and not least <= value <= most:
        raise UserError(
          f'--{name}={value}: it must be at least {least} and at most {most}.'
        )

  @classmethod
  def named(
    cls, name: str, given: Mapping[str, Any], flags: Mapping[str, str] | None = None
  ) -> 'EvaluationProtocol':
    """The protocol of a tool.

    Args:
      name: key of PROTOCOLS.
      given: further fields, which must not contradict it.
      flags: of fields whose flag is not --<field>=<value>, for messages.

    Raises:
      UserError: there is no such protocol, or a field contradicts it.
    """
    if name not in PROTOCOLS:
      raise UserError(
        f'--protocol={name}{did_you_mean(name, PROTOCOLS)}: allowed are '
        f'{", ".join(PROTOCOLS)}.'
      )
    settings = PROTOCOLS[name]
    for field, value in given.items():
      if field in settings and settings[field] != value:
        written = (flags or {}).get(field, f'--{field}={value}')
        raise UserError(
          f'{written} contradicts --protocol={name}, which takes '
          f'{_in_words(field, settings[field])}: leave out one of the two.'
        )
    return cls(**{**settings, **given, 'name': name})

  def resolve(
    self, dataset_name: str, dataset_size: int, devices: int
  ) -> 'EvaluationProtocol':
    """The protocol with numbers in place of zeros, and a batch that devices divide.

    Raises:
      UserError: the dataset has fewer images than `reals`, unless a named protocol
        asks for them.
    """
    if self.reals > dataset_size and not self.name:
      raise UserError(
        f'--reals={self.reals}: {dataset_name} has {dataset_size} real images.'
      )
    reals = min(self.reals or dataset_size, dataset_size)
    num = self.num or min(reals, MAX_GENERATED)
    return dataclasses.replace(
      self,
      reals=reals,
      num=num,
      separability_images=self.separability_images or num,
      ppl_samples=self.ppl_samples or num,
      batch=-(-self.batch // devices) * devices,
    )

  def mirrors(self, trained_with_flips: bool) -> bool:
    """Whether half of the real images are flipped, for metrics whose originals do."""
    return trained_with_flips if self.mirror == 'trained' else self.mirror == 'always'

  @property
  def seeds(self) -> np.ndarray:
    """Seeds of the generated images, uint32 [num]."""
    return np.arange(self.seed, self.seed + self.num, dtype=np.uint32)

  @property
  def separability_seeds(self) -> np.ndarray:
    """Seeds of the images of separability, uint32 [separability_images]."""
    return dataclasses.replace(self, num=self.separability_images).seeds

  @property
  def path_seeds(self) -> np.ndarray:
    """Seeds of the paths of ppl, uint32 [ppl_samples]."""
    return dataclasses.replace(self, num=self.ppl_samples).seeds

  def generator_stamp(self) -> dict[str, Any]:
    """The settings that every metric depends on, as JSON."""
    return {
      **({'protocol': self.name} if self.name else {}),
      'n': self.num,
      'seeds': f'{self.seed}-{self.seed + self.num - 1}',
      'ema': self.ema,
      'standing': f'{self.standing} x {self.batch}' if self.standing else 'running',
    }

  def images_stamp(self, mirrored: bool) -> dict[str, Any]:
    """The further settings of metrics that compare generated with real images.

    Args:
      mirrored: half of the real images are flipped.
    """
    return {
      'reals': self.reals,
      'truncation': None if np.isinf(self.truncation) else self.truncation,
      'psi': self.psi,
      'alpha': self.alpha,
      'mirror': mirrored,
    }

  def path_stamp(self, batch: int) -> dict[str, Any]:
    """The settings of ppl, which replace some of `generator_stamp`.

    Args:
      batch: paths that share noise, if it is fresh.
    """
    fresh = f'fresh for each {batch} paths'
    return {
      'n': self.ppl_samples,
      'seeds': f'{self.seed}-{self.seed + self.ppl_samples - 1}',
      'settings': '1%-99%, step 1e-4',
      'crop': self.ppl_crop,
      'noise': fresh if self.ppl_noise == 'fresh' else 'constant',
    }


def _in_words(field: str, value: Any) -> str:
  """A setting of PROTOCOLS, for messages."""
  words = {
    ('reals', 0): 'all',
    ('truncation', float('inf')): 'untruncated images',
    ('psi', 1.0): 'untruncated images',
    ('is_seed', None): 'the images in order',
    ('ema', True): 'the EMA weights',
  }
  return words.get((field, value), str(value))
