"""Scores generators against the real images of a dataset."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, UInt32

from gan_jax import UserError, data
from gan_jax.evaluation.applicability import (
  DEFAULT_METRICS,
  applicable_metrics,
  check_metric,
  fewer_images,
)
from gan_jax.evaluation.latent_metrics import LatentMetric, PathLength, Separability
from gan_jax.evaluation.metrics import (
  METRICS,
  PATHS,
  SEPARABILITY,
  inception,
  lpips,
  memorization_scores,
  separability,
  small_network,
  transparency,
)
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.memorization import Memorization
from gan_jax.evaluation.metrics.named_network import NO_NETWORKS, NamedNetworks
from gan_jax.evaluation.protocol import MAX_GENERATED, EvaluationProtocol
from gan_jax.evaluation.real_images import (
  dataset_stamp,
  images_stamp,
  process_share,
  read_batches,
  real_images_stamp,
  real_order,
)
from gan_jax.evaluation.statistics import RealStatistics, StatisticsCollector
from gan_jax.evaluation.statistics_files import StatisticsFile
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.storage.files import cache_folder

ScoreRecord = dict[str, Any]  # JSON: metric, value, best, stamp


class Evaluator:
  """Scores generators of one family on one dataset.

  The sampler and the feature networks are compiled once. Statistics of the real images
  are computed once and cached.

  Attributes:
    nearest: the nearest training images of the images that the latest `evaluate` has
      generated, by memorization metric.
  """

  nearest: dict[str, Memorization]

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
    given: StatisticsFile | None = None,
    named: NamedNetworks = NO_NETWORKS,
    cache: Path | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
    defaults: Sequence[str] = DEFAULT_METRICS,
    flip: bool = False,
    log: Callable[[str], Any] = print,
  ):
    """
    Args:
      metrics: keys of METRICS and PATHS; none for those of `defaults` that apply.
      res: current resolution of a growing GAN; 0 for the final one.
      split: of the dataset; recorded with the scores.
      inception_file, lpips_files: weights; None takes them from the environment.
      given: Inception statistics, which stand in place of the real images.
      named: networks that the user names.
      cache: folder of cached statistics; None for `cache_folder()`.
      mesh: devices of this process; None for all of them. Processes share the images.
      progress: show progress bars.
      defaults: keys of METRICS.
      flip: the generator was trained with random flips.
      log: takes a sentence about each default metric that does not apply.

    Raises:
      UserError: one of `metrics` does not exist or apply, or weights are missing.
    """
    self.gan, self.res = gan, res or gan.res
    self.mesh = mesh or make_mesh(jax.local_devices())
    self.dataset = dataset.downsampled(gan.res // self.res)
    self._given, self._named = given, named
    self._log, self._optional, self.nearest = log, not metrics, {}
    asked, images = protocol or EvaluationProtocol(), len(dataset.examples)
    known = images or (given and given.n) or MAX_GENERATED
    self.protocol = asked.resolve(dataset.name, known, self.mesh.size)
    self._mirror = self.protocol.mirrors(flip)
    self.metrics = self._checked_metrics(metrics, defaults, asked)
    self._dataset_stamp = dataset_stamp(self.dataset, split) if images else {}
    cache_stamp = real_images_stamp(self.dataset, self._dataset_stamp)
    self.sampler = samplers.make_sampler(gan, self.mesh, self.res)
    self._latent_metrics = self._make_path_lengths(lpips_files)
    cache = cache or cache_folder()
    self._networks = self._load_networks(inception_file, cache, cache_stamp)
    attributes = self._load_attributes()
    self._latent_metrics |= self._make_separability(attributes)
    self._collector = StatisticsCollector(
      self._networks, self.protocol, progress, attributes
    )
    self.real_statistics = self._make_real_statistics(cache, cache_stamp)

  def _make_real_statistics(
    self, cache: Path, cache_stamp: dict[str, Any]
  ) -> dict[bool, RealStatistics]:
    """Statistics by whether half of the images are flipped."""
    collector = self._collector
    return {
      flips: RealStatistics(self.dataset, cache_stamp, collector, cache, flips)
      for flips in (False, True)
    }

  def _checked_metrics(
    self,
    metrics: Sequence[str],
    defaults: Sequence[str],
    asked: EvaluationProtocol,
  ) -> list[str]:
    """`metrics`, or those of `defaults` that apply; says what is other than asked."""
    case = self.gan, self.dataset, self.res, self.protocol, self._given, self._named
    for name in metrics:
      check_metric(name, *case)
    chosen = list(metrics)
    if not metrics:
      chosen, left_out = applicable_metrics(defaults, *case)
      for sentence in left_out.values():
        self._log(f'left out: {sentence}')
    if metrics or asked.name:
      for sentence in fewer_images(chosen, asked, self.protocol, self.dataset):
        self._log(f'note: {sentence}')
    return chosen

  def _make_path_lengths(self, lpips_files: str | None) -> dict[str, LatentMetric]:
    """The path lengths among the metrics, by name."""
    names = [name for name in self.metrics if name in PATHS]
    if not names:
      return {}
    weights = lpips.load(lpips_files)
    return {x: PathLength(x, self.gan, self.res, self.mesh, weights) for x in names}

  def _make_separability(
    self, attributes: separability.Attributes | None
  ) -> dict[str, LatentMetric]:
    """The separability metric by name, if there are attributes."""
    if attributes is None:
      return {}
    return {SEPARABILITY: Separability(self.gan, attributes, self._dataset_stamp)}

  @property
  def _sources(self) -> list[str]:
    """The sources of the metrics of METRICS."""
    metrics = [METRICS[name] for name in self.metrics if name in METRICS]
    return sorted({x for metric in metrics for x in metric.sources(self._mirror)})

  def _real_statistics(self) -> dict[str, list[Any]]:
    """Statistics of the real images by metric, one per source. Collective."""
    real: dict[str, list[Any]] = {}
    names = []
    for name in (x for x in self.metrics if x in METRICS):
      if self._given and METRICS[name].takes_statistics:
        real[name] = [self._given.statistics]
      else:
        names.append(name)
    for flips, statistics in self.real_statistics.items():
      chosen = [x for x in names if (self._mirror and METRICS[x].mirrored) is flips]
      sources = {name: METRICS[name].sources(self._mirror) for name in chosen}
      found = statistics.get(sorted({x for names in sources.values() for x in names}))
      real |= {name: [found[x] for x in names] for name, names in sources.items()}
    return real

  def _load_networks(
    self, inception_file: str | None, cache: Path, cache_stamp: dict[str, Any]
  ) -> dict[str, FeatureNetwork]:
    """The feature networks of the metrics."""
    networks = {}
    if 'inception' in self._sources:
      resizing, batch = self.protocol.resizing, self.protocol.batch
      networks['inception'] = inception.load(
        inception_file, self.mesh, resizing=resizing, batch=batch
      )
    if self._named.features and 'features' in self._sources:
      networks['features'] = self._named.features.feature_network(
        self.mesh, self.protocol.batch
      )
    trains_classifier = SEPARABILITY in self.metrics and not self._named.classifiers
    if 'small' in self._sources or trains_classifier:
      networks['small'] = small_network.load(
        self._training_images,
        0 if self.dataset.has_vectors else self.dataset.n_classes,
        cache_stamp,
        cache,
        self.mesh,
      )
    return networks

  def _load_attributes(self) -> separability.Attributes | None:
    """The classifiers of the separability metric; None if it is not computed."""
    if SEPARABILITY not in self.metrics:
      return None
    if networks := self._named.classifiers:
      return separability.named_attributes(networks, self.mesh, self.protocol.batch)
    return separability.class_attributes(self._networks['small'])

  def _training_images(self) -> tuple[np.ndarray, np.ndarray]:
    """Real images and labels that the small network is trained on."""
    order = real_order(len(self.dataset.examples), small_network.MAX_IMAGES)
    batches = list(read_batches(self.dataset, order, 512))
    images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    return transparency.composite_bytes(images), labels

  @property
  def best(self) -> dict[str, str]:
    """Whether the 'min' or the 'max' of each score is best; '' where neither is."""
    best: dict[str, str] = {}
    for name in self.metrics:
      best |= (METRICS if name in METRICS else self._latent_metrics)[name].best
    shorter = min(self.gan.size(self.res))
    above_res = {f'swd_{2 * shorter << i}' for i in range(7)}
    return {name: x for name, x in best.items() if name not in above_res}

  def stamp(self, name: str, protocol: EvaluationProtocol) -> dict[str, Any]:
    """All that a metric's value depends on besides the model, as JSON."""
    if name in self._latent_metrics:
      return self._latent_metrics[name].stamp(protocol)
    metric, given = METRICS[name], self._given
    network = self._networks.get(metric.source)
    shared = {**self._dataset_stamp, **protocol.generator_stamp()}
    real = protocol.images_stamp(
      self._mirror and (metric.mirrored or metric.searches_mirrored)
    )
    if given and metric.takes_statistics:
      model = images_stamp(self.gan, self.res)
      shared = {**given.stamp(), **model, **protocol.generator_stamp()}
      real |= {'reals': given.n, 'mirror': None}
      protocol = dataclasses.replace(protocol, reals=given.n or protocol.reals)
    return {
      **shared,
      **real,
      'settings': metric.settings,
      **metric.stamp(protocol),
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
      UserError: non-finite weights or features, or too few images for one of the
        metrics that were asked for; default metrics are left out instead.
    """
    protocol = dataclasses.replace(self.protocol, **changes)
    g = self.replicate(g)
    require_finite(g)
    real = self._real_statistics()
    fake = self._generated_statistics(g, protocol)
    self.nearest = {}
    records = []
    for name in self.metrics:
      try:
        if name in METRICS:
          values = self._measure(name, real[name], fake, protocol)
        else:
          values = self._latent_metrics[name].measure(g, protocol, fake)
      except UserError as error:  # for example a class that has no real image
        if not self._optional:
          raise
        self._log(f'left out: {name}: {error}')
        continue
      stamp = self.stamp(name, protocol)
      records += [
        {'metric': score, 'value': value, 'best': self.best[score], 'stamp': stamp}
        for score, value in values.items()
      ]
    return records

  def _generated_statistics(
    self, g: Variables, protocol: EvaluationProtocol
  ) -> dict[str, Any]:
    """Statistics of generated images by source. Collective.

    One pass over the images for each number of images that the metrics take.
    """
    passes = {protocol.num: list(self._sources)}
    for metric in self._latent_metrics.values():
      for source, n in metric.sources(protocol).items():
        passes.setdefault(n, []).append(source)
    statistics: dict[str, Any] = {}
    for n, sources in passes.items():
      p = dataclasses.replace(protocol, num=n)
      images = self.generate(g, p, process_share(p.seeds, p.batch))
      statistics |= self._collector.collect(images, n, sources, 'generated')
    return statistics

  def _measure(
    self,
    name: str,
    real: list[Any],
    fakes: dict[str, Any],
    protocol: EvaluationProtocol,
  ) -> dict[str, float]:
    """The scores of a metric of METRICS; keeps what an image grid shows.

    Args:
      real: statistics of the real images, one per source of the metric.
      fakes: statistics of the generated images by source.
    """
    metric = METRICS[name]
    fake = [fakes[x] for x in metric.sources(self._mirror)]
    if metric.nearest is None:
      return metric.measure(real[0], fake[0], protocol)
    self.nearest[name] = metric.nearest(real, fake)
    return memorization_scores(name, self.nearest[name])

  def replicate(self, g: Variables) -> Variables:
    """Variables on the host, or replicated over any devices, for `generate`."""
    local = jax.tree.map(_local_array, g)
    return jax.device_put(local, NamedSharding(self.mesh, P()))

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
      classes = one_hot[labels]
      if gan.n_classes and self.dataset.has_vectors:
        labels, classes = np.zeros_like(labels), self._label_vectors(seeds[rows])
      images = self.sampler(g, z, classes, p.psi, seeds[rows], p.alpha)
      yield np.asarray(images)[:n], labels[:n]

  def _label_vectors(
    self, seeds: UInt32[np.ndarray, ' n']
  ) -> Float[np.ndarray, 'n classes']:
    """The label vector of a real image for each seed."""
    examples = self.dataset.examples
    images = np.asarray(samplers.labels_from_seeds(seeds, len(examples)))
    return np.stack([data.label_of(examples, int(i)) for i in images])


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
