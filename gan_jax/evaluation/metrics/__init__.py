"""The registry of metrics, METRICS: one module per metric, one entry per score group.

A metric compares the statistics of real images with those of generated ones. The
metrics of one source share its statistics, and all sources share one pass over the
images. What needs the generator itself is in evaluation/latent_metrics: perceptual path
lengths, in PATHS, and SEPARABILITY of its latents.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gan_jax.evaluation.metrics import inception, prd, small_network
from gan_jax.evaluation.metrics.class_accuracy import classifier_accuracy
from gan_jax.evaluation.metrics.feature_network import NetworkStatistics
from gan_jax.evaluation.metrics.frechet import (
  frechet_distance,
  intra_class_frechet,
  require_full_rank,
)
from gan_jax.evaluation.metrics.kid import kernel_distance
from gan_jax.evaluation.metrics.memorization import (
  MIN_IMAGES,
  Memorization,
  measure_memorization,
)
from gan_jax.evaluation.metrics.ms_ssim import PairSimilarity, check_size
from gan_jax.evaluation.metrics.neighbors import NeighborScores, neighbor_scores
from gan_jax.evaluation.metrics.perceptual_path_length import PATHS
from gan_jax.evaluation.metrics.pixels import MAX_SIDE, PixelStatistics
from gan_jax.evaluation.metrics.separability import SEPARABILITY
from gan_jax.evaluation.metrics.sliced_wasserstein import (
  COARSEST,
  PATCHES_PER_IMAGE,
  PatchStatistics,
  level_sizes,
  sliced_wasserstein_distances,
)
from gan_jax.runtime.image_size import Size

if TYPE_CHECKING:
  from gan_jax.evaluation.protocol import EvaluationProtocol

MIRRORED = ' mirrored'  # a source with this suffix sees all images flipped
NEIGHBORS = 3  # k of precision, recall, density and coverage


class ImageStatistics(Protocol):
  """What one source stores of a stream of images."""

  def update(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Adds images uint8 [n, h, w, c] with their labels int32 [n]."""
    ...

  def merge(self, other: Any) -> None:
    """Adds the statistics of a stream that follows this one."""
    ...

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file."""
    ...


# The statistics of each source; `restore` reads what their `arrays` return.
SOURCES: dict[
  str,
  type[NetworkStatistics]
  | type[PixelStatistics]
  | type[PatchStatistics]
  | type[PairSimilarity],
] = {
  'inception': NetworkStatistics,
  'small': NetworkStatistics,
  'features': NetworkStatistics,  # of the network that the user names
  'pixels': PixelStatistics,
  'patches': PatchStatistics,
  'pairs': PairSimilarity,
}


class Metric(NamedTuple):
  """A group of scores that are computed together."""

  source: str  # of the statistics, a key of SOURCES
  settings: str  # fixed ones, for the protocol of a score
  best: dict[str, str]  # score -> 'min', 'max', or '' where neither is better
  # statistics of real images, of generated ones, and the protocol -> scores
  measure: Callable[[Any, Any, 'EvaluationProtocol'], dict[str, float]]
  min_images: int = 1  # real ones, and generated ones
  min_generated: Callable[['EvaluationProtocol'], int] = lambda protocol: 1
  min_classes: int = 0  # of the model and of the real images
  # Features of a covariance; 0: none is computed; None: those of the named network.
  full_rank_of: int | None = 0
  needs_features: bool = False  # of each real image, beyond mean and covariance
  check_size: Callable[[Size], Any] = lambda size: None  # raises UserError
  # the original flips half of the real images of a run that was trained with flips
  mirrored: bool = False
  # settings that the protocol decides, as JSON
  stamp: Callable[['EvaluationProtocol'], dict[str, Any]] = lambda protocol: {}
  scikit_learn: bool = False  # needs this optional package
  # What `measure` sums up, for an image grid: of the statistics of real images and of
  # generated ones, with those of the mirrored images or without.
  nearest: Callable[[list[Any], list[Any]], Memorization] | None = None

  @property
  def searches_mirrored(self) -> bool:
    """Whether it looks at the mirror images of a run that was trained with flips."""
    return self.nearest is not None

  @property
  def takes_statistics(self) -> bool:
    """Whether Inception statistics from a file can stand in place of real images.

    Not where an image grid shows the real images themselves.
    """
    return self.source == 'inception' and self.nearest is None

  def sources(self, mirror: bool) -> list[str]:
    """Its sources: two if it searches mirror images too.

    Args:
      mirror: the run was trained with flips.
    """
    both = mirror and self.searches_mirrored
    return [self.source, self.source + MIRRORED] if both else [self.source]


def _frechet(
  name: str, real: NetworkStatistics, fake: NetworkStatistics
) -> dict[str, float]:
  require_full_rank(real.features.n, real.features.dim, 'real')
  require_full_rank(fake.features.n, fake.features.dim, 'generated')
  return {name: frechet_distance(real.features, fake.features)}


def _intra_class_frechet(
  name: str, real: NetworkStatistics, fake: NetworkStatistics
) -> dict[str, float]:
  return {name: intra_class_frechet(real.features, fake.features)}


def _kernel(
  name: str, real: NetworkStatistics, fake: NetworkStatistics, p: 'EvaluationProtocol'
) -> dict[str, float]:
  a, b = real.features.rows, fake.features.rows
  size = min(p.kid_subset_size, len(a), len(b))
  mean, std = kernel_distance(a, b, p.kid_subsets, size, p.kid_seed)
  return {name: mean, f'{name}_std': std}


def _kernel_stamp(p: 'EvaluationProtocol') -> dict[str, Any]:
  return {
    'subsets': p.kid_subsets,
    'subset_size': min(p.kid_subset_size, p.num, p.reals),
    'subset_seed': p.kid_seed,
  }


def _neighbors(
  suffix: str, real: NetworkStatistics, fake: NetworkStatistics
) -> dict[str, float]:
  scores = neighbor_scores(real.features.rows, fake.features.rows, NEIGHBORS)
  return {f'{name}{suffix}': value for name, value in scores._asdict().items()}


def _accuracy(
  name: str, real: NetworkStatistics, fake: NetworkStatistics
) -> dict[str, float]:
  generated, held_out = classifier_accuracy(real.features, fake.features)
  return {name: generated, f'{name}_real': held_out}


def _prd(
  suffix: str, real: NetworkStatistics, fake: NetworkStatistics
) -> dict[str, float]:
  scores = prd.f_scores(prd.prd(fake.features.rows, real.features.rows, runs=prd.RUNS))
  return {f'prd_{name}{suffix}': value for name, value in scores._asdict().items()}


def _prd_metric(source: str, suffix: str) -> Metric:
  return Metric(
    source,
    f'{prd.RUNS} runs of {prd.CLUSTERS} clusters, {prd.ANGLES} slopes, as many real as '
    'generated images',
    {f'prd_{name}{suffix}': 'max' for name in prd.FScores._fields},
    lambda real, fake, protocol: _prd(suffix, real, fake),
    min_images=prd.CLUSTERS,
    needs_features=True,
    scikit_learn=True,
  )


def memorization_scores(name: str, found: Memorization) -> dict[str, float]:
  """The scores of a memorization metric."""
  return {name: found.share, f'{name}_real': found.real_share}


def _memorization(
  source: str, name: str, settings: str, rows: Callable[[Any], np.ndarray]
) -> Metric:
  """Memorization by the rows of a source's statistics."""
  nearest = lambda real, fake: measure_memorization(
    [rows(x) for x in real], [rows(x) for x in fake]
  )
  return Metric(
    source,
    settings,
    {name: '', f'{name}_real': ''},
    lambda real, fake, protocol: memorization_scores(name, nearest([real], [fake])),
    min_images=MIN_IMAGES,
    needs_features=True,
    nearest=nearest,
  )


def _inception_score(fake: NetworkStatistics) -> dict[str, float]:
  assert fake.inception_score is not None
  mean, std = fake.inception_score.result()
  return {'is': mean, 'is_std': std}


def _sliced_wasserstein(
  real: PatchStatistics, fake: PatchStatistics
) -> dict[str, float]:
  *levels, mean = sliced_wasserstein_distances(real, fake)
  size = COARSEST << (len(levels) - 1)
  return {f'swd_{size >> i}': x for i, x in enumerate(levels)} | {'swd': mean}


def _ms_ssim(real: PairSimilarity, fake: PairSimilarity) -> dict[str, float]:
  return {'msssim': fake.result(), 'msssim_real': real.result()}


def _network_metrics(
  source: str, suffix: str, frechet: str, dim: int | None
) -> dict[str, Metric]:
  """The metrics that any feature network gives.

  Args:
    suffix: part of their names.
    dim: length of a feature vector; None for that of a network that the user names.
  """
  kid = f'kid{suffix}'

  def metric(
    settings: str, best: dict[str, str], measure: Callable, name: str, **needs: Any
  ) -> Metric:
    named = lambda real, fake, protocol: measure(name, real, fake)
    return Metric(source, settings, best, named, **needs)

  return {
    frechet: metric(
      'n - 1, float64',
      {frechet: 'min'},
      _frechet,
      frechet,
      full_rank_of=dim,
      mirrored=True,
    ),
    kid: Metric(
      source,
      'cubic kernel, unbiased',
      {kid: 'min', f'{kid}_std': ''},
      partial(_kernel, kid),
      min_images=2,
      needs_features=True,
      stamp=_kernel_stamp,
    ),
    f'prdc{suffix}': metric(
      f'k = {NEIGHBORS}, closed balls',
      {f'{name}{suffix}': 'max' for name in NeighborScores._fields},
      _neighbors,
      suffix,
      min_images=NEIGHBORS + 1,
      needs_features=True,
    ),
    f'prd{suffix}': _prd_metric(source, suffix),
    f'memorization{suffix}': _memorization(
      source, f'memorization{suffix}', 'Euclidean', lambda x: x.features.rows
    ),
    **_class_metrics(source, suffix, f'intra_{frechet}'),
  }


def _class_metrics(source: str, suffix: str, intra: str) -> dict[str, Metric]:
  """The metrics of `_network_metrics` that need labels."""
  accuracy = f'accuracy{suffix}'
  return {
    intra: Metric(
      source,
      'mean over classes, n - 1',
      {intra: 'min'},
      lambda real, fake, protocol: _intra_class_frechet(intra, real, fake),
      min_classes=1,
      mirrored=True,
    ),
    accuracy: Metric(
      source,
      'linear discriminant of real features',
      {accuracy: 'max', f'{accuracy}_real': ''},
      lambda real, fake, protocol: _accuracy(accuracy, real, fake),
      min_classes=2,
    ),
  }


METRICS = {
  **_network_metrics('inception', '', 'fid', inception.DIM),
  'is': Metric(
    'inception',
    'logits without bias',
    {'is': 'max', 'is_std': ''},
    lambda real, fake, protocol: _inception_score(fake),
    min_generated=lambda p: p.is_splits,
    stamp=lambda p: {'splits': p.is_splits, 'shuffle_seed': p.is_seed},
  ),
  **_network_metrics('small', '_small', 'fd_small', small_network.DIM),
  **_network_metrics('features', '_features', 'fd_features', None),
  'memorization_pixels': _memorization(
    'pixels',
    'memorization_pixels',
    f'Euclidean, at most {MAX_SIDE} pixels per side',
    lambda x: x.rows,
  ),
  'swd': Metric(
    'patches',
    f'{PATCHES_PER_IMAGE} patches of each image, 512 directions',
    dict.fromkeys(('swd', *(f'swd_{COARSEST << i}' for i in range(7))), 'min'),
    lambda real, fake, protocol: _sliced_wasserstein(real, fake),
    check_size=level_sizes,
    mirrored=True,
    stamp=lambda p: {'images': min(p.swd_images, p.num, p.reals)},
  ),
  'msssim': Metric(
    'pairs',
    'consecutive pairs',
    {'msssim': '', 'msssim_real': ''},
    lambda real, fake, protocol: _ms_ssim(real, fake),
    min_images=2,
    check_size=check_size,
    mirrored=True,
    stamp=lambda p: {'images': min(p.msssim_images, p.num)},
  ),
}

METRIC_NAMES = (*METRICS, *PATHS, SEPARABILITY)

__all__ = [
  'METRICS',
  'METRIC_NAMES',
  'MIRRORED',
  'PATHS',
  'SEPARABILITY',
  'SOURCES',
  'ImageStatistics',
  'Metric',
  'memorization_scores',
]
