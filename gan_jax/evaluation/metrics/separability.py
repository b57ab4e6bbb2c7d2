"""Linear separability of latents (Karras et al. 2019, arXiv:1812.04948, section 4.2).

Classifiers say which binary attributes each generated image has, and a linear support
vector machine predicts them from the latent. What remains uncertain, in bits, says how
far the attribute is from a direction of the latent space.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8, UInt32

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.named_network import NamedNetwork
from gan_jax.evaluation.metrics.scikit_learn import without_convergence_warnings
from gan_jax.models.base import GAN, Variables
from gan_jax.sampling import samplers

SEPARABILITY = 'separability'  # name of the metric
KEEP = 0.5  # share of the images that is kept, the most confident ones of an attribute
MIN_GENERATED = 20  # images
_SETTINGS = f'the most confident {KEEP:.0%} of the images of each {{}}, LinearSVC, bits'

# uint8 [n, h, w, c] -> logits [n, attributes]; above 0: the image has the attribute
Classifier = Callable[[np.ndarray], np.ndarray]


class Attributes(NamedTuple):
  """Classifiers of binary attributes."""

  stamp: dict[str, str]  # for the protocol of a score
  classify: Classifier
  choose: 'Choose'  # the images that are kept for an attribute


def named_attributes(
  networks: Sequence[NamedNetwork], mesh: Mesh, batch: int
) -> Attributes:
  """The attributes of classifiers that the user names; each logit is one attribute."""
  extractors = [network.extractor(mesh, batch) for network in networks]

  def classify(images: np.ndarray) -> np.ndarray:
    return np.concatenate([extract(images)[0] for extract in extractors], 1)

  stamps = [network.stamp for network in networks]
  joined = {key: ', '.join(stamp[key] for stamp in stamps) for key in stamps[0]}
  stamp = {'settings': _SETTINGS.format('attribute'), **joined}
  return Attributes(stamp, classify, most_confident)


def class_attributes(network: FeatureNetwork) -> Attributes:
  """The classes of a classifier: each is an attribute that an image has or has not.

  The most confident images of all would hardly ever be of the class, of many classes.
  """
  return Attributes(
    {'settings': _SETTINGS.format('class and of the rest'), **network.stamp},
    lambda images: one_vs_rest(network.extract(images)[1]),
    most_confident_of_both,
  )


class AttributeStatistics:
  """The attribute logits of a stream of images."""

  def __init__(self, classify: Classifier | None):
    """
    Args:
      classify: needed by `update` only.
    """
    self._classify = classify
    self._logits: list[np.ndarray] = []

  @property
  def logits(self) -> Float[np.ndarray, 'n attributes']:
    """In the order of the images, float32."""
    return (
      np.concatenate(self._logits) if self._logits else np.zeros((0, 0), np.float32)
    )

  def update(
    self, images: UInt8[np.ndarray, 'n h w c'], labels: Int[np.ndarray, ' n']
  ) -> None:
    """Adds images.

    Raises:
      UserError: a logit is non-finite.
    """
    del labels
    assert self._classify is not None
    logits = self._classify(images)
    if not np.isfinite(logits).all():
      raise UserError('separability: a classifier returned NaN or infinity.')
    self._logits.append(np.asarray(logits, np.float32))

  def merge(self, other: 'AttributeStatistics') -> None:
    """Adds the logits of a stream that follows this one."""
    if len(other.logits):
      self._logits.append(other.logits)

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    return {'logits': self.logits}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'AttributeStatistics':
    """The statistics that `arrays` described. Raises: KeyError."""
    statistics = cls(None)
    logits = arrays['logits']
    statistics._logits = [logits] if len(logits) else []
    return statistics


def one_vs_rest(
  logits: Float[np.ndarray, 'n classes'],
) -> Float[np.ndarray, 'n attributes']:
  """Logits of 'is of class k' from the logits of a classifier of classes.

  Two classes give one attribute: the second one would be its opposite.
  """
  logits = logits.astype(np.float64)
  columns = []
  for k in range(logits.shape[1] if logits.shape[1] > 2 else 1):
    rest = np.delete(logits, k, 1)
    columns.append(logits[:, k] - np.logaddexp.reduce(rest, 1))
  return np.stack(columns, 1).astype(np.float32)


class Targets(NamedTuple):
  """What a classifier says about the images of which it is most confident."""

  kept: Int[np.ndarray, ' k']  # indices of the images
  classes: Int[np.ndarray, ' k']  # 0: they have the attribute, 1: they do not


# Probabilities of `predictions` -> the images that are kept
Choose = Callable[[np.ndarray], Targets]


def predictions(logits: Float[np.ndarray, ' n']) -> Float[np.ndarray, 'n 2']:
  """Probabilities that the images have the attribute, and that they do not, float32.

  The softmax of (logit, -logit), as in the original: its confidence is that of twice
  the logit.
  """
  pair = np.stack([logits, -logits], 1).astype(np.float32)
  powers = np.exp(pair - pair.max(1, keepdims=True))
  return powers / powers.sum(1, keepdims=True)


def most_confident(
  probabilities: Float[np.ndarray, 'n 2'], keep: int | None = None
) -> Targets:
  """The images of largest confidence; ties keep the order of the images.

  Args:
    keep: how many; None for the share KEEP of all.
  """
  keep = int(KEEP * len(probabilities)) if keep is None else keep
  order = np.argsort(-probabilities.max(1), kind='stable')[:keep]
  return Targets(order, probabilities[order].argmax(1))


def most_confident_of_both(probabilities: Float[np.ndarray, 'n 2']) -> Targets:
  """The share KEEP of the images with the attribute, and of those without it."""
  has_not = probabilities.argmax(1)
  sides = [np.flatnonzero(has_not == side) for side in (0, 1)]
  kept = [
    rows[most_confident(probabilities[rows], ceil(KEEP * len(rows))).kept]
    for rows in sides
  ]
  order = np.concatenate(kept)
  return Targets(order, has_not[order])


def predict_linearly(
  latents: Float[np.ndarray, 'k d'], classes: Int[np.ndarray, ' k']
) -> Int[np.ndarray, ' k']:
  """Classes predicted by a linear SVM that is fitted to the same latents.

  The classes themselves where all are equal: the original treats a fit that fails so.
  """
  if len(np.unique(classes)) < 2:
    return classes
  from sklearn.svm import LinearSVC

  with without_convergence_warnings():
    return LinearSVC(random_state=0).fit(latents, classes).predict(latents)


def joint_table(
  predicted: Int[np.ndarray, ' k'], classes: Int[np.ndarray, ' k']
) -> Float[np.ndarray, '2 2']:
  """Shares of the images by predicted class (row) and class (column)."""
  counts = np.bincount(2 * predicted + classes, minlength=4)
  return counts.reshape(2, 2) / len(classes)


def conditional_entropy(joint: Float[np.ndarray, '2 2']) -> float:
  """H(column | row) in bits, at least 0: entropy less mutual information.

  In float32, as in the original. Logarithms are rounded once, so that the value does
  not depend on the machine's.
  """
  log2 = lambda x: np.log2(x.astype(np.float64)).astype(np.float32)
  joint = joint.astype(np.float32)
  joint = joint / joint.sum()
  independent = joint.sum(1, keepdims=True) * joint.sum(0)
  classes, filled = joint.sum(0), joint > 0
  classes = classes[classes > 0]
  entropy = -(classes * log2(classes)).sum()
  ratio = joint[filled] / independent[filled]
  information = (joint[filled] * log2(ratio)).sum()
  return max(0.0, float(entropy - information))


def attribute_entropy(latents: Float[np.ndarray, 'n d'], targets: Targets) -> float:
  """Bits of uncertainty about an attribute once the linear prediction is known."""
  predicted = predict_linearly(latents[targets.kept], targets.classes)
  return conditional_entropy(joint_table(predicted, targets.classes))


def separability(
  spaces: Mapping[str, Float[np.ndarray, 'n d']],
  logits: Float[np.ndarray, 'n attributes'],
  choose: Choose = most_confident,
) -> dict[str, float]:
  """2 to the power of the sum of all attributes' entropies, by space; 1 is the best.

  Args:
    spaces: latents of the images, for example z and w.
    choose: the images that are kept for an attribute.
  """
  targets = [choose(predictions(x)) for x in logits.T]
  return {
    name: 2.0 ** sum(attribute_entropy(latents, x) for x in targets)
    for name, latents in spaces.items()
  }


def latent_spaces(
  gan: GAN,
  g: Variables,
  seeds: UInt32[np.ndarray, ' n'],
  truncation: float,
  batch: int,
) -> dict[str, Float[np.ndarray, 'n d']]:
  """z of the images and, for a StyleGAN, w before truncation, by name of the score."""
  draw = lambda seeds: samplers.latents(seeds, gan.dim_z, truncation)
  z = np.concatenate(list(samplers.run_in_batches(draw, [seeds], batch)))
  spaces = {f'{SEPARABILITY}_z': z}
  if style := gan.style_based:
    mapping = jax.jit(style.w)
    labels = np.asarray(samplers.labels_from_seeds(seeds, gan.n_classes))
    rows = samplers.run_in_batches(
      lambda z, labels: mapping(g, z, labels), [z, labels], batch
    )
    spaces[f'{SEPARABILITY}_w'] = np.concatenate(list(rows))
  return spaces
