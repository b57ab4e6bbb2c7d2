"""Feature networks: weights from files, compiled extraction, and their statistics."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int, UInt8

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.metrics.inception_score import InceptionScore
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.urls import check_path
from gan_jax.storage import weights
from gan_jax.storage.files import atomic_path

# uint8 [n, h, w, c] -> features [n, dim], logits [n, classes], both float32
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class FeatureNetwork(NamedTuple):
  """A feature network with weights, ready to use."""

  name: str
  dim: int  # length of a feature vector
  classes: int  # number of logits; 0 for none
  stamp: dict[str, str]  # weights, preprocessing and dtype, for the protocol of a score
  extract: Extractor


class NetworkStatistics:
  """Feature statistics of a stream of images and, if wanted, its inception score."""

  def __init__(
    self,
    network: FeatureNetwork | None,
    features: FeatureStatistics,
    inception_score: InceptionScore | None = None,
  ):
    """
    Args:
      network: needed by `update` only.
      features: receives the feature vectors.
      inception_score: receives the logits.
    """
    self._network, self.features = network, features
    self.inception_score = inception_score

  def update(
    self, images: UInt8[np.ndarray, 'n h w c'], labels: Int[np.ndarray, ' n']
  ) -> None:
    """Adds images with their labels.

    Raises:
      UserError: a feature is non-finite.
    """
    assert self._network is not None
    features, logits = self._network.extract(images)
    self.features.update(features, labels)
    if self.inception_score is not None:
      self.inception_score.update(logits)

  def merge(self, other: 'NetworkStatistics') -> None:
    """Adds the statistics of a stream that follows this one."""
    self.features.merge(other.features)
    if self.inception_score is not None and other.inception_score is not None:
      self.inception_score.merge(other.inception_score)

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    arrays = self.features.arrays()
    if self.inception_score is not None:
      score = self.inception_score.arrays()
      arrays |= {f'score_{name}': x for name, x in score.items()}
    return arrays

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'NetworkStatistics':
    """The statistics that `arrays` described. Raises: KeyError."""
    score = {
      name.removeprefix('score_'): x
      for name, x in arrays.items()
      if name.startswith('score_')
    }
    restored = InceptionScore.restore(score) if score else None
    return cls(None, FeatureStatistics.restore(arrays), restored)


def make_extractor(
  apply: Callable[[Any, Array], tuple[Array, Array]],
  variables: Any,
  mesh: Mesh,
  batch: int,
) -> Extractor:
  """Compiles apply(variables, images) for one batch size, sharded over the mesh.

  Returns:
    A function of any number of uint8 images, which it splits and pads to `batch`.
  """
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  shardings = (replicated, sharded)
  compiled = jax.jit(apply, in_shardings=shardings, out_shardings=sharded)
  on_devices = jax.device_put(variables, replicated)
  batch = -(-batch // mesh.size) * mesh.size

  def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, logits = [], []
    for start in range(0, len(images), batch):
      n = len(images[start : start + batch])
      rows = np.minimum(np.arange(start, start + batch), start + n - 1)
      outputs = compiled(on_devices, jax.device_put(images[rows], sharded))
      outputs = jax.device_get(outputs)
      features.append(outputs[0][:n])
      logits.append(outputs[1][:n])
    return np.concatenate(features), np.concatenate(logits)

  return extract


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
  """The arrays of a .npz, .safetensors or PyTorch file by name. Runs no code in it.

  Raises:
    UserError: the file is missing or corrupted, or its name holds the beginning of a
      SHA-256 that is not the file's.
  """
  path = Path(os.path.expanduser(check_path(str(path))))
  if not path.is_file():
    raise UserError(f'{path}: no such file of weights.')
  # The convention of torch.hub: name-<first digits of the SHA-256>.pth
  named = re.search(r'-([0-9a-f]{8,64})$', path.stem)
  if named:
    with path.open('rb') as f:
      digest = hashlib.file_digest(f, 'sha256').hexdigest()
    if not digest.startswith(named[1]):
      raise UserError(
        f'{path} is corrupted: its SHA-256 begins with {digest[: len(named[1])]}, but '
        f'its name says {named[1]}; download it again.'
      )
  try:
    return weights.read_arrays(path)
  except UserError:
    raise
  except Exception as error:
    raise UserError(f'{path} cannot be read as weights ({error}).') from error


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an .npz file atomically, and its folder if it does not exist.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      np.savez(part, allow_pickle=False, **arrays)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written ({error.strerror}): name another cache folder with '
      '--cache or $GAN_JAX_CACHE.'
    ) from error
