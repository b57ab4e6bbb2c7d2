"""Scores generators against the real images of a dataset."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import UInt32

from gan_jax import UserError, data
from gan_jax.evaluation.metrics import (
  METRICS,
  PATHS,
  inception,
  lpips,
  small_network,
)
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.frechet import require_full_rank
from gan_jax.evaluation.metrics.perceptual_path_length import path_length
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.real_images import (
  dataset_fingerprint,
  process_share,
  read_batches,
  real_order,
)
from gan_jax.evaluation.statistics import RealStatistics, StatisticsCollector
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.storage.files import cache_folder

ScoreRecord = dict[str, Any]  # JSON: metric, value, best, stamp
_DIMS = {'inception': inception.DIM, 'small': small_network.DIM}


def default_metrics(gan: GAN, res: int, reals: int) -> list[str]:
  """The metrics that need no downloaded weights and that these images allow."""
  names = ['fd_small'] if reals > small_network.DIM else []
  names += ['kid_small', 'prdc_small']
  if gan.n_classes:
    names.append('accuracy_small')
  if res >= 16 and res & (res - 1) == 0:
    names.append('swd')
  return names + (['msssim'] if res % 32 == 0 else [])


def check_metrics(names: Sequence[str], gan: GAN) -> None:
  """Checks that metrics exist and that they apply to a family.

  Raises:
    UserError: they do not.
  """
  known = [*METRICS, *PATHS]
  for name in names:
    if name not in known:
      raise UserError(
        f'--metrics: there is no {name!r}{did_you_mean(name, known)}; there are '
        f'{", ".join(known)}.'
      )
    if name in METRICS and METRICS[name].needs_classes and not gan.n_classes:
      raise UserError(f'{name} needs a conditional model, and this one has no classes.')


class Evaluator:
  """Scores generators of one family on one dataset.

  The sampler and the feature networks are compiled once. Statistics of the real images
  are computed once and cached.
  """

  def __init__(
    self,
    gan: GAN,
    dataset: data.Dataset,
    metrics: Sequence[str] = (),
    protocol: EvaluationProtocol | None = None,
    *,
    res: int = 0,
    split: str = 'train',
    inception_file: str | None = None,
    lpips_files: str | None = None,
    cache: Path | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
  ):
    """
    Args:
      metrics: keys of METRICS and PATHS; none for `default_metrics`.
      res: current resolution of a growing GAN; 0 for the final one.
      split: of the dataset; recorded with the scores.
      inception_file, lpips_files: weights; None takes them from the environment.
      cache: folder of cached statistics; None for `cache_folder()`.
      mesh: devices of this process; None for all of them. Processes share the images.
      progress: show progress bars.

    Raises:
      UserError: an unknown metric, a missing file of weights, or too few images.
    """
    self.gan, self.res = gan, res or gan.res
    self.mesh = mesh or make_mesh(jax.local_devices())
    self.dataset = dataset.downsampled(gan.res // self.res)
    self.protocol = (protocol or EvaluationProtocol()).resolve(
      dataset.name, len(dataset.examples), self.mesh.size
    )
    self.metrics = list(metrics) or default_metrics(gan, self.res, self.protocol.reals)
    check_metrics(self.metrics, gan)
    self._dataset_stamp = {
      'data': dataset.name,
      'split': split,
      'res': self.res,
      'channels': gan.channels,
      'content': dataset_fingerprint(self.dataset),
    }
    self.sampler = samplers.make_sampler(gan, self.mesh, self.res)
    needs_lpips = any(name in PATHS for name in self.metrics)
    self._lpips = lpips.load(lpips_files) if needs_lpips else None
    cache = cache or cache_folder()
    self._networks = self._load_networks(inception_file, cache)
    self._collector = StatisticsCollector(self._networks, self.protocol, progress)
    self.real_statistics = RealStatistics(
      self.dataset, self._dataset_stamp, self._collector, cache
    )

  @property
  def _sources(self) -> list[str]:
    return sorted({METRICS[name].source for name in self.metrics if name in METRICS})

  def _load_networks(
    self, inception_file: str | None, cache: Path
  ) -> dict[str, FeatureNetwork]:
    """The feature networks of the metrics, after checking the numbers of images."""
    networks = {}
    if 'inception' in self._sources:
      resizing, batch = self.protocol.resizing, self.protocol.batch
      networks['inception'] = inception.load(
        inception_file, self.mesh, resizing=resizing, batch=batch
      )
    for name in self.metrics:
      if name in METRICS and METRICS[name].needs_full_rank:
        dim = _DIMS[METRICS[name].source]
        require_full_rank(self.protocol.reals, dim, 'real')
        require_full_rank(self.protocol.num, dim, 'generated')
    if 'small' in self._sources:
      networks['small'] = small_network.load(
        self._training_images,
        self.dataset.n_classes,
        self._dataset_stamp,
        cache,
        self.mesh,
      )
    return networks

  def _training_images(self) -> tuple[np.ndarray, np.ndarray]:
    """Real images and labels that the small network is trained on."""
    order = real_order(len(self.dataset.examples), small_network.MAX_IMAGES)
    batches = list(read_batches(self.dataset, order, 512))
    images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    return images, labels

  @property
  def best(self) -> dict[str, str]:
    """Whether the 'min' or the 'max' of each score is best; '' where neither is."""
    best: dict[str, str] = {}
    for name in self.metrics:
      best |= METRICS[name].best if name in METRICS else {name: 'min'}
    above_res = {f'swd_{2 * self.res << i}' for i in range(7)}
    return {name: x for name, x in best.items() if name not in above_res}

  def stamp(self, name: str, protocol: EvaluationProtocol) -> dict[str, Any]:
    """All that a metric's value depends on besides the model, as JSON."""
    shared = {**self._dataset_stamp, **protocol.generator_stamp()}
    if name in PATHS:
      assert self._lpips
      return {**shared, 'settings': '1%-99%, step 1e-4', **self._lpips[1]}
    metric = METRICS[name]
    network = self._networks.get(metric.source)
    return {
      **shared,
      **protocol.images_stamp(),
      'settings': metric.settings,
      **(network.stamp if network else {}),
    }

  def scores(self, g: Variables, **changes: Any) -> dict[str, float]:
    """The scores of a generator by name; arguments as `evaluate`."""
    return {record['metric']: record['value'] for record in self.evaluate(g, **changes)}

  def evaluate(self, g: Variables, **changes: Any) -> list[ScoreRecord]:
    """Scores a generator, with one pass over its images for all metrics.

    Collective: all processes must call it.

    Args:
      g: variables of the generator, on the host or replicated over any devices.
      changes: fields of the EvaluationProtocol that differ in this call.

    Returns:
      A JSON object per score: its name (`metric`), `value`, `best` ('min', 'max' or
      '') and protocol (`stamp`).

    Raises:
      UserError: non-finite weights or features, or too few images for a score.
    """
    protocol = dataclasses.replace(self.protocol, **changes)
    g = jax.tree.map(_local_array, g)
    require_finite(g)
    g = jax.device_put(g, NamedSharding(self.mesh, P()))
    real = self.real_statistics.get(self._sources)
    seeds = process_share(protocol.seeds, protocol.batch)
    fake = self._collector.collect(
      self.generate(g, protocol, seeds), protocol.num, self._sources, 'generated'
    )
    records = []
    for name in self.metrics:
      if name in METRICS:
        metric = METRICS[name]
        values = metric.measure(real[metric.source], fake[metric.source])
      else:
        values = {name: self._path_length(name, g, protocol)}
      stamp = self.stamp(name, protocol)
      records += [
        {'metric': score, 'value': value, 'best': self.best[score], 'stamp': stamp}
        for score, value in values.items()
      ]
    return records

  def _path_length(
    self, name: str, g: Variables, protocol: EvaluationProtocol
  ) -> float:
    assert self._lpips
    weights = self._lpips[0]
    distance = lambda a, b: lpips.distance(weights, a, b)
    return path_length(self.gan, g, PATHS[name], distance, protocol.seeds, self.mesh)

  def generate(
    self, g: Variables, protocol: EvaluationProtocol, seeds: UInt32[np.ndarray, ' n']
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of images, uint8 [b, h, w, c], and their class labels, int32 [b].

    Args:
      g: variables, replicated over the mesh.
      seeds: of the images. Their number is independent of `protocol.num`.
    """
    p, gan = protocol, self.gan
    one_hot = np.eye(max(gan.n_classes, 1), dtype=np.float32)
    if p.standing:
      g = samplers.standing_statistics(
        gan, self.mesh, g, p.standing, p.batch, p.truncation, p.psi
      )
    for start in range(0, len(seeds), p.batch):
      n = len(seeds[start : start + p.batch])
      rows = np.minimum(np.arange(start, start + p.batch), start + n - 1)
      z = np.asarray(samplers.latents(seeds[rows], gan.dim_z, p.truncation))
      labels = np.asarray(samplers.labels_from_seeds(seeds[rows], gan.n_classes))
      images = self.sampler(g, z, one_hot[labels], p.psi, seeds[rows], p.alpha)
      yield np.asarray(images)[:n], labels[:n]


def _local_array(x: Any) -> Any:
  """A replicated array as an array on one device of this process."""
  return x.addressable_data(0) if isinstance(x, jax.Array) else x


def require_finite(g: Variables) -> None:
  """Checks the weights: images are bytes, which cannot show NaN.

  Raises:
    UserError: a variable is non-finite.
  """
  for path, x in jax.tree_util.tree_leaves_with_path(g):
    if not np.isfinite(np.asarray(x)).all():
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise UserError(f'the generator cannot be scored: {name} holds NaN or infinity.')
