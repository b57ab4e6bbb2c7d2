"""Statistics of real and of generated images, collected over all processes."""

import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from gan_jax import data
from gan_jax.evaluation.metrics import MIRRORED, SOURCES, ImageStatistics
from gan_jax.evaluation.metrics.feature_network import (
  FeatureNetwork,
  NetworkStatistics,
  save_npz,
)
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.metrics.inception_score import (
  InceptionScore,
  shuffled_places,
  split_boundaries,
)
from gan_jax.evaluation.metrics.ms_ssim import PairSimilarity
from gan_jax.evaluation.metrics.pixels import PixelStatistics
from gan_jax.evaluation.metrics.separability import Attributes, AttributeStatistics
from gan_jax.evaluation.metrics.sliced_wasserstein import PatchStatistics
from gan_jax.evaluation.metrics.transparency import composite_bytes
from gan_jax.evaluation.protocol import MAX_FEATURE_ROWS, EvaluationProtocol
from gan_jax.evaluation.real_images import process_share, read_batches, real_order
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

Batches = Iterator[tuple[np.ndarray, np.ndarray]]  # images uint8 NHWC, labels int32

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StatisticsCollector:
  """Passes streams of images through the sources of the metrics."""

  networks: Mapping[str, FeatureNetwork]  # by source
  protocol: EvaluationProtocol
  progress: bool = True  # show a progress bar
  attributes: Attributes | None = None  # of the source 'attributes'

  def collect(
    self, batches: Batches, n: int, sources: Sequence[str], description: str
  ) -> dict[str, Any]:
    """Statistics of n images by source. Collective: all processes must call it.

    Args:
      batches: this process's share of the n images, see `process_share`.
      sources: keys of SOURCES, with or without MIRRORED; of generated images also
        'attributes'.
      description: label of the progress bar.
    """
    if not sources:
      return {}
    first = int(process_share(np.arange(n), self.protocol.batch)[:1].sum())
    statistics = {source: self._empty(source, n, first) for source in sources}
    hidden = not self.progress or jax.process_index() > 0
    with tqdm(
      total=n, unit='img', desc=description, disable=hidden, leave=False
    ) as bar:
      for images, labels in batches:
        images = composite_bytes(images)
        for source in sources:
          flipped = source.endswith(MIRRORED)
          seen = images[:, :, ::-1] if flipped else images
          statistics[source].update(seen, labels)
        bar.update(len(images) * jax.process_count())
    return {source: gather_statistics(x) for source, x in statistics.items()}

  def max_images(self, source: str) -> int:
    """Of how many images a source stores something, beyond sums."""
    p = self.protocol
    if source == 'patches':
      return min(p.swd_images, p.num, p.reals)
    return p.msssim_images if source == 'pairs' else MAX_FEATURE_ROWS

  def _empty(self, source: str, n: int, first: int) -> ImageStatistics:
    """Statistics of no images yet; the process's first image has the index `first`."""
    source = source.removesuffix(MIRRORED)
    max_images = self.max_images(source)
    if source == 'patches':
      return PatchStatistics(max_images, first)
    if source == 'pairs':
      return PairSimilarity(max_images, first)
    if source == 'pixels':
      return PixelStatistics(max(max_images - first, 0))
    if source == 'attributes':
      return AttributeStatistics(self.attributes and self.attributes.classify)
    network = self.networks[source]
    features = FeatureStatistics(network.dim, max(max_images - first, 0))
    score = None
    if source == 'inception':
      seed = self.protocol.is_seed
      score = InceptionScore(
        split_boundaries(n, self.protocol.is_splits),
        network.classes,
        first,
        None if seed is None else shuffled_places(n, seed),
      )
    return NetworkStatistics(network, features, score)


def gather_statistics(statistics: Any) -> Any:
  """Statistics of all processes merged in process order, on every process.

  Collective: all processes must call it.
  """
  if jax.process_count() == 1:
    return statistics
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **statistics.arrays())
  local = np.frombuffer(buffer.getvalue(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(local))).ravel()
  padded = np.pad(local, (0, int(sizes.max()) - len(local)))
  merged = None
  for bytes_, size in zip(
    multihost_utils.process_allgather(padded), sizes, strict=True
  ):
    arrays = read_npz(io.BytesIO(bytes_[:size].tobytes()))
    restored = type(statistics).restore(arrays)
    if merged is None:
      merged = restored
    else:
      merged.merge(restored)
  return merged


def _missing_anywhere(sources: Sequence[str], known: Mapping[str, Any]) -> list[str]:
  """The sources that a process lacks; hosts may have different caches. Collective."""
  lacking = np.array([source not in known for source in sources], bool)
  if jax.process_count() > 1 and sources:
    lacking = np.any(multihost_utils.process_allgather(lacking), 0)
  return [source for source, x in zip(sources, lacking, strict=True) if x]


class RealStatistics:
  """Statistics of a dataset, computed once and cached in files."""

  def __init__(
    self,
    dataset: data.Dataset,
    dataset_stamp: Mapping[str, Any],
    collector: StatisticsCollector,
    cache: Path,
    mirror: bool = False,
  ):
    """
    Args:
      dataset_stamp: JSON values that identify the real images, see
        `real_images_stamp`.
      cache: folder of the cached statistics.
      mirror: flip half of the images.
    """
    self._dataset, self._dataset_stamp = dataset, dataset_stamp
    self._collector, self._cache, self._mirror = collector, cache, mirror
    self._statistics: dict[str, Any] = {}

  def get(self, sources: Sequence[str]) -> dict[str, Any]:
    """Statistics by source, from memory, the cache, or one pass over the dataset.

    Collective: all processes must call it.

    Raises:
      UserError: the cache cannot be written.
    """
    for source in sources:
      if source not in self._statistics:
        self._read(source)
    missing = _missing_anywhere(sources, self._statistics)
    if missing:
      protocol = self._collector.protocol
      order = real_order(len(self._dataset.examples), protocol.reals)
      share = process_share(order, protocol.batch)
      batches = read_batches(self._dataset, share, protocol.batch, mirror=self._mirror)
      computed = self._collector.collect(batches, len(order), missing, 'real')
      self._statistics |= computed
      if jax.process_index() == 0:
        for source, statistics in computed.items():
          save_npz(self.path(source), statistics.arrays())
    return self._statistics

  def _read(self, source: str) -> None:
    path = self.path(source)
    if not path.is_file():
      return
    try:
      with path.open('rb') as f:
        self._statistics[source] = SOURCES[source.removesuffix(MIRRORED)].restore(
          read_npz(f)
        )
    except NPZ_ERRORS:
      _logger.warning('%s is corrupted: the statistics are computed again.', path)

  def path(self, source: str) -> Path:
    """The cache file of a source, named by a hash of all that it depends on."""
    network = self._collector.networks.get(source.removesuffix(MIRRORED))
    key = {
      **self._dataset_stamp,
      'reals': self._collector.protocol.reals,
      'source': source,
      'keep': self._collector.max_images(source),
      **({'mirror': True} if self._mirror else {}),
      **(network.stamp if network else {}),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return self._cache / f'real-{source.replace(" ", "-")}-{digest[:16]}.npz'
