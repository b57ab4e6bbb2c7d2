"""Which metrics apply to a model, its resolution, and the real images."""

from collections.abc import Sequence

from gan_jax import UserError, data
from gan_jax.evaluation.metrics import (
  METRIC_NAMES,
  METRICS,
  PATHS,
  SEPARABILITY,
  Metric,
)
from gan_jax.evaluation.metrics.frechet import require_full_rank
from gan_jax.evaluation.metrics.named_network import NO_NETWORKS, NamedNetworks
from gan_jax.evaluation.metrics.perceptual_path_length import check_path, check_side
from gan_jax.evaluation.metrics.scikit_learn import require_scikit_learn
from gan_jax.evaluation.metrics.separability import MIN_GENERATED
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.statistics_files import StatisticsFile
from gan_jax.models.base import GAN
from gan_jax.runtime.errors import did_you_mean

DEFAULT_METRICS = (  # none of them needs downloaded weights
  *('fd_small', 'kid_small', 'prdc_small', 'accuracy_small', 'swd', 'msssim'),
)


def check_metric(
  name: str,
  gan: GAN,
  dataset: data.Dataset,
  res: int,
  protocol: EvaluationProtocol,
  given: StatisticsFile | None = None,
  named: NamedNetworks = NO_NETWORKS,
) -> None:
  """Checks that a metric exists and applies, as far as that is known beforehand.

  Args:
    dataset: the real images; without any if only `given` is known of them.
    res: current resolution of a growing GAN.
    given: statistics of the real images, for the metrics of Inception's features.
    protocol: with numbers in place of zeros, see `EvaluationProtocol.resolve`.
    named: the networks that the user names.

  Raises:
    UserError: it does not.
  """
  if dataset.has_vectors and gan.n_classes and (name in PATHS or name == SEPARABILITY):
    raise UserError(
      f'{name} draws classes, and the labels of {dataset.name} are vectors.'
    )
  if name in PATHS:
    check_path(PATHS[name], gan)
    check_side(min(gan.size()), protocol.ppl_crop == 'face')
    return
  if name == SEPARABILITY:
    images = protocol.separability_images or protocol.num
    _check_separability(gan, dataset, res, images, named)
    return
  if name not in METRICS:
    raise UserError(
      f'there is no metric {name!r}{did_you_mean(name, METRIC_NAMES)}: --metrics, and '
      f'score.metrics in a config, take {", ".join(METRIC_NAMES)}.'
    )
  metric = METRICS[name]
  full_rank_of = _features_of_covariance(name, metric, gan, res, named)
  reals: int | None = protocol.reals
  if given and metric.takes_statistics:
    given.check_metric(name, metric.min_classes, metric.needs_features)
    reals = None if full_rank_of and given.has_moments else given.n
  elif not len(dataset.examples):
    raise UserError(
      f'{name} needs the real images, and there are only the statistics in '
      f'{dataset.name}.'
    )
  elif metric.min_classes:
    _check_classes(name, metric, gan, dataset)
  if metric.scikit_learn:
    require_scikit_learn(name)
  metric.check_size(gan.size(res))
  _check_numbers(name, metric, full_rank_of, reals, protocol)


def needs_images(name: str, named: NamedNetworks) -> bool:
  """Whether a metric needs the real images beside their Inception statistics."""
  if name in METRICS:
    return not METRICS[name].takes_statistics
  return name == SEPARABILITY and not named.classifiers


def _check_numbers(
  name: str,
  metric: Metric,
  full_rank_of: int,
  reals: int | None,
  protocol: EvaluationProtocol,
) -> None:
  """Raises a UserError where there are too few images."""
  for n, least, kind in (
    (reals, metric.min_images, 'real'),
    (protocol.num, max(metric.min_images, metric.min_generated(protocol)), 'generated'),
  ):
    if n is None:  # unknown, of a mean and a covariance
      continue
    if full_rank_of:
      try:
        require_full_rank(n, full_rank_of, kind)
      except UserError as error:
        raise UserError(f'{name}: {error}') from error
    if n < least:
      raise UserError(
        f'{name} needs at least {least} {kind} images, and there are {n}: take more.'
      )


def _features_of_covariance(
  name: str, metric: Metric, gan: GAN, res: int, named: NamedNetworks
) -> int:
  """`Metric.full_rank_of`, 0 for none; checks the network that the user names."""
  if metric.source != 'features':
    return metric.full_rank_of or 0
  if named.features is None:
    raise UserError(
      f'{name} needs a feature network: name the file of an exported JAX function '
      'with --features=FILE of gan_jax.evaluate.'
    )
  named.features.check_images(gan.size(res), min(gan.channels, 3))
  return named.features.dim if metric.full_rank_of is None else 0


def _check_separability(
  gan: GAN, dataset: data.Dataset, res: int, num: int, named: NamedNetworks
) -> None:
  for network in named.classifiers:
    network.check_images(gan.size(res), min(gan.channels, 3))
  if not named.classifiers and dataset.n_classes < 2:
    raise UserError(
      f'{SEPARABILITY} needs classifiers: {dataset.name} has no labels of two classes '
      'or more to train one on; name files of exported JAX functions with '
      '--classifiers=FILE,FILE of gan_jax.evaluate.'
    )
  if num < MIN_GENERATED:
    raise UserError(
      f'{SEPARABILITY} needs at least {MIN_GENERATED} generated images, and there are '
      f'{num}: take more.'
    )
  require_scikit_learn(SEPARABILITY)


def _check_classes(name: str, metric: Metric, gan: GAN, dataset: data.Dataset) -> None:
  if not gan.n_classes:
    raise UserError(f'{name} needs a conditional model, and this one has no classes.')
  if not dataset.n_classes:
    raise UserError(f'{name} needs labeled images, and {dataset.name} has no labels.')
  if gan.n_classes != dataset.n_classes:
    raise UserError(
      f'{name} needs images of the classes of the model, which has {gan.n_classes} '
      f'classes, and {dataset.name} has {dataset.n_classes}.'
    )
  if dataset.has_vectors:
    raise UserError(
      f'{name} needs images of classes, and the labels of {dataset.name} are vectors.'
    )
  if gan.n_classes < metric.min_classes:
    raise UserError(f'{name} needs at least {metric.min_classes} classes.')


def applicable_metrics(
  names: Sequence[str],
  gan: GAN,
  dataset: data.Dataset,
  res: int,
  protocol: EvaluationProtocol,
  given: StatisticsFile | None = None,
  named: NamedNetworks = NO_NETWORKS,
) -> tuple[list[str], dict[str, str]]:
  """The metrics that apply, and for each of the others the sentence that says why not.

  Raises:
    UserError: none applies.
  """
  left_out = {}
  for name in names:
    try:
      check_metric(name, gan, dataset, res, protocol, given, named)
    except UserError as error:
      left_out[name] = str(error)
  chosen = [name for name in names if name not in left_out]
  if not chosen:
    raise UserError(f'no metric applies: {" ".join(left_out.values())}')
  return chosen, left_out


def fewer_images(
  metrics: Sequence[str],
  asked: EvaluationProtocol,
  resolved: EvaluationProtocol,
  dataset: data.Dataset,
) -> list[str]:
  """A sentence for each number of images that is lower because the data have no more.

  Args:
    asked: the protocol as the user gave it.
    resolved: see `EvaluationProtocol.resolve`.
  """
  sentences: list[str] = []
  if not len(dataset.examples):  # only statistics of the real images are known
    return sentences
  if resolved.reals < asked.reals:
    sentences.append(
      f'{dataset.name} has {resolved.reals} real images, where the protocol '
      f'{asked.name} takes {asked.reals}.'
    )
  for name, most in (('swd', asked.swd_images), ('msssim', asked.msssim_images)):
    if name in metrics:
      images = METRICS[name].stamp(resolved)['images']
      if images < most and resolved.reals == len(dataset.examples) <= images:
        sentences.append(
          f'{name} compares {images} images instead of {most}, since {dataset.name} '
          'has no more.'
        )
  return sentences
