"""Inception score (Salimans et al. 2016, arXiv:1606.03498)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


class InceptionScore:
  """exp(mean KL(p(y|x) || p(y))) of each split of a stream of images.

  Stores sums only; memory is splits x classes.
  """

  def __init__(
    self,
    boundaries: Sequence[int] | np.ndarray,
    classes: int,
    first: int = 0,
    places: Int[np.ndarray, ' n'] | None = None,
  ):
    """
    Args:
      boundaries: split i is the images at the places boundaries[i] to
        boundaries[i + 1].
      classes: number of logits.
      first: index in the stream of the first image that this instance receives.
      places: of each image of the stream; None for their order in it.
    """
    self.boundaries = np.asarray(boundaries)
    self.position, self._places = first, places
    self._neg_entropy = np.zeros(len(self.boundaries) - 1)  # sums of p log p
    self._p = np.zeros((len(self.boundaries) - 1, classes))

  def update(self, logits: Float[np.ndarray, 'n classes']) -> None:
    """Adds the logits of the next images."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    p = np.exp(log_p)
    index = self.position + np.arange(len(x))
    if self._places is not None:
      index = self._places[index]
    split = np.searchsorted(self.boundaries, index, 'right') - 1
    inside = (split >= 0) & (split < len(self._p))
    np.add.at(self._neg_entropy, split[inside], (p * log_p).sum(1)[inside])
    np.add.at(self._p, split[inside], p[inside])
    self.position += len(x)

  def merge(self, other: 'InceptionScore') -> None:
    """Adds the sums of a stream that follows this one."""
    self.position = other.position
    self._neg_entropy += other._neg_entropy
    self._p += other._p

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    return {
      'borders': self.boundaries,
      'seen': np.array(self.position),
      'entropy': self._neg_entropy,
      'p': self._p,
    }

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'InceptionScore':
    """The sums that `arrays` described. Raises: KeyError."""
    score = cls(arrays['borders'], arrays['p'].shape[1], int(arrays['seen']))
    score._neg_entropy, score._p = arrays['entropy'], arrays['p']
    return score

  def result(self, ddof: int = 0) -> tuple[float, float]:
    """Mean and standard deviation over the splits; the divisor is splits - ddof."""
    n = np.diff(self.boundaries)
    mean = self._p / n[:, None]
    log = np.log(mean, where=mean > 0, out=np.zeros_like(mean))
    scores = np.exp(self._neg_entropy / n - (mean * log).sum(1))
    if len(scores) <= ddof:
      return float(scores.mean()), float('nan')
    return float(scores.mean()), float(scores.std(ddof=ddof))


def split_boundaries(n: int, splits: int) -> list[int]:
  """Boundaries i n // splits: the sizes of the splits differ by at most one image."""
  return [i * n // splits for i in range(splits + 1)]


def shuffled_places(n: int, seed: int) -> Int[np.ndarray, ' n']:
  """Where each of n images comes to lie, shuffled as torch-fidelity does."""
  return np.argsort(np.random.RandomState(seed).permutation(n))
