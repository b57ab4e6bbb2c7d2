"""Linear separability of latents (Karras et al. 2019, arXiv:1812.04948, section 4.2).

Classifiers say which binary attributes each generated image has, and a linear support
vector machine predicts them from the latent. What remains uncertain, in bits, says how
far the attribute is from a direction of the latent space.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from gan_jax import UserError
from gan_jax.evaluation.metrics.scikit_learn import without_convergence_warnings

KEPT_SHARE = 2  # one image in two is kept, the most confident ones of an attribute

# uint8 [n, h, w, c] -> logits [n, attributes]; above 0: the image has the attribute
Classifier = Callable[[np.ndarray], np.ndarray]


class AttributeStatistics:
  """The attribute logits of a stream of images."""

  def __init__(self, classify: Classifier | None, attributes: int):
    """
    Args:
      classify: needed by `update` only.
      attributes: number of logits per image.
    """
    self._classify, self._attributes = classify, attributes
    self._logits: list[np.ndarray] = []

  @property
  def logits(self) -> Float[np.ndarray, 'n attributes']:
    """In the order of the images, float32."""
    empty = np.zeros((0, self._attributes), np.float32)
    return np.concatenate([empty, *self._logits])

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
    self._logits += other._logits

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    return {'logits': self.logits}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'AttributeStatistics':
    """The statistics that `arrays` described. Raises: KeyError."""
    logits = arrays['logits']
    statistics = cls(None, logits.shape[1])
    statistics._logits = [logits]
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


def predictions(logits: Float[np.ndarray, ' n']) -> Float[np.ndarray, 'n 2']:
  """Probabilities that the images have the attribute, and that they do not, float32.

  The softmax of (logit, -logit), as in the original: its confidence is that of twice
  the logit.
  """
  pair = np.stack([logits, -logits], 1).astype(np.float32)
  powers = np.exp(pair - pair.max(1, keepdims=True))
  return powers / powers.sum(1, keepdims=True)


def most_confident(probabilities: Float[np.ndarray, 'n 2'], keep: int) -> Targets:
  """The `keep` images of largest confidence; ties keep the order of the images."""
  order = np.argsort(-probabilities.max(1), kind='stable')[:keep]
  return Targets(order, probabilities[order].argmax(1))


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
  keep: int,
) -> dict[str, float]:
  """2 to the power of the sum of all attributes' entropies, by space; 1 is the best.

  Args:
    spaces: latents of the images, for example z and w.
    keep: how many images are kept for each attribute, of largest confidence.
  """
  targets = [most_confident(predictions(x), keep) for x in logits.T]
  return {
    name: 2.0 ** sum(attribute_entropy(latents, x) for x in targets)
    for name, latents in spaces.items()
  }
