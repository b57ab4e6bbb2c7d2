"""Scores of generated images against real ones; METRICS says which there are."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from gan_jax.evaluation.metrics import features, images, ppl
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.features import FeatureStats, InceptionScore
from gan_jax.evaluation.metrics.images import Patches, Similarity
from gan_jax.evaluation.metrics.ppl import PATHS

NEIGHBOURS = 3
SUBSETS, SUBSET = 100, 1000  # of KID; fewer images make smaller subsets
SPLITS = 10
IMAGES_OF_PATCHES = 8192
IMAGES_OF_PAIRS = 10_000


class Seen(Protocol):
  """What one source keeps of a stream of images; merges with what followed it."""

  def update(self, images: np.ndarray, labels: np.ndarray) -> None: ...

  def merge(self, other) -> None: ...

  def arrays(self) -> dict[str, np.ndarray]: ...


class Observed:
  """What a feature network saw: moments, features, and the score of its classes."""

  def __init__(self, network: FeatureNetwork | None, stats: FeatureStats, score=None):
    """`score`: an InceptionScore that takes the logits, or None."""
    self.network, self.stats, self.score = network, stats, score

  def update(self, images: np.ndarray, labels: np.ndarray) -> None:
    assert self.network is not None
    found, logits = self.network.extract(images)
    self.stats.update(found, labels)
    if self.score is not None:
      self.score.update(logits)

  def merge(self, other: 'Observed') -> None:
    self.stats.merge(other.stats)
    if self.score is not None:
      self.score.merge(other.score)

  def arrays(self) -> dict[str, np.ndarray]:
    score = self.score.arrays() if self.score is not None else {}
    return {**self.stats.arrays(), **{f'score_{k}': v for k, v in score.items()}}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'Observed':
    score = {k[6:]: v for k, v in arrays.items() if k.startswith('score_')}
    restored = InceptionScore.restore(score) if score else None
    return cls(None, FeatureStats.restore(arrays), restored)


class Metric(NamedTuple):
  """One entry of METRICS; every score it gives is named in `best`."""

  source: str  # what must be kept of the images: a feature network, patches or pairs
  settings: str  # what it does, for the protocol stamp
  best: dict[str, str]  # score -> 'min', 'max', or '' where neither is better
  measure: Callable[..., dict[str, float]]  # of what was seen, real and fake


def _frechet(name: str, real: Observed, fake: Observed) -> dict[str, float]:
  features.require_full_rank(real.stats.n, real.stats.dim, 'real')
  features.require_full_rank(fake.stats.n, fake.stats.dim, 'generated')
  return {name: features.frechet_distance(real.stats, fake.stats)}


def _kernel(name: str, real: Observed, fake: Observed) -> dict[str, float]:
  a, b = real.stats.rows, fake.stats.rows
  size = min(SUBSET, len(a), len(b))
  mean, std = features.kernel_distance(a, b, SUBSETS, size)
  return {name: mean, f'{name}_std': std}


def _neighbours(suffix: str, real: Observed, fake: Observed) -> dict[str, float]:
  found = features.neighbourhoods(real.stats.rows, fake.stats.rows, NEIGHBOURS)
  return {f'{name}{suffix}': value for name, value in found._asdict().items()}


def _inception_score(real: Observed, fake: Observed) -> dict[str, float]:
  del real
  assert fake.score is not None
  mean, std = fake.score.result()
  return {'is': mean, 'is_std': std}


def _intra(name: str, real: Observed, fake: Observed) -> dict[str, float]:
  return {name: features.intra_class_frechet(real.stats, fake.stats)}


def _accuracy(name: str, real: Observed, fake: Observed) -> dict[str, float]:
  generated, held_out = features.class_accuracy(real.stats, fake.stats)
  return {name: generated, f'{name}_real': held_out}


def _swd(real: Patches, fake: Patches) -> dict[str, float]:
  *levels, mean = images.swd(real, fake)
  size = 16 << (len(levels) - 1)
  return {f'swd_{size >> i}': x for i, x in enumerate(levels)} | {'swd': mean}


def _similarity(real: Similarity, fake: Similarity) -> dict[str, float]:
  return {'msssim': fake.result(), 'msssim_real': real.result()}


def _of_network(source: str, suffix: str, frechet: str) -> dict[str, Metric]:
  """The scores that any feature network gives, its suffix in their names."""
  kid, accuracy = f'kid{suffix}', f'accuracy{suffix}'

  def metric(settings, best, measure, name):
    return Metric(source, settings, best, lambda *seen: measure(name, *seen))

  shares = ('precision', 'recall', 'density', 'coverage')
  intra = f'intra_{frechet}'
  return {
    frechet: metric('n - 1, float64', {frechet: 'min'}, _frechet, frechet),
    kid: metric(
      f'{SUBSETS} subsets of {SUBSET} or all, cubic kernel, unbiased',
      {kid: 'min', f'{kid}_std': ''},
      _kernel,
      kid,
    ),
    f'prdc{suffix}': metric(
      f'k = {NEIGHBOURS}, closed balls',
      {f'{share}{suffix}': 'max' for share in shares},
      _neighbours,
      suffix,
    ),
    intra: metric('mean over classes, n - 1', {intra: 'min'}, _intra, intra),
    accuracy: metric(
      'linear discriminant of real features',
      {accuracy: 'max', f'{accuracy}_real': ''},
      _accuracy,
      accuracy,
    ),
  }


METRICS = {
  **_of_network('inception', '', 'fid'),
  'is': Metric(
    'inception',
    f'{SPLITS} splits in order, logits without bias',
    {'is': 'max', 'is_std': ''},
    _inception_score,
  ),
  **_of_network('small', '_small', 'fd_small'),
  'swd': Metric(
    'patches',
    f'{images.PER_IMAGE} patches of at most {IMAGES_OF_PATCHES} images, 512 directions',
    dict.fromkeys(('swd', *(f'swd_{16 << i}' for i in range(7))), 'min'),
    _swd,
  ),
  'msssim': Metric(
    'pairs',
    f'consecutive pairs of at most {IMAGES_OF_PAIRS} images',
    {'msssim': '', 'msssim_real': ''},
    _similarity,
  ),
}
CONDITIONAL = ('intra_fid', 'accuracy', 'intra_fd_small', 'accuracy_small')

__all__ = [
  'CONDITIONAL',
  'IMAGES_OF_PAIRS',
  'IMAGES_OF_PATCHES',
  'METRICS',
  'PATHS',
  'SPLITS',
  'Metric',
  'Observed',
  'Seen',
  'ppl',
]
