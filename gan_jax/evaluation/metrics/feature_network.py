"""Feature networks: their weights from files, and running them on many images."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.runtime.mesh import AXIS
from gan_jax.storage import weights
from gan_jax.storage.files import atomic_path

# Weights from files.


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
  """The arrays of a .npz, .safetensors or PyTorch file by name; runs no code in it.

  Raises:
    UserError: there is no such file, it is damaged, or its name carries the beginning
      of another checksum than it has.
  """
  path = Path(path)
  if not path.is_file():
    raise UserError(f'{path}: there is no such file of weights.')
  # The convention of torch.hub: name-<first digits of the SHA-256>.pth
  named = re.search(r'-([0-9a-f]{8,64})$', path.stem)
  if named:
    with path.open('rb') as f:
      digest = hashlib.file_digest(f, 'sha256').hexdigest()
    if not digest.startswith(named[1]):
      raise UserError(
        f'{path} is damaged: its SHA-256 begins with {digest[: len(named[1])]}, its '
        f'name says {named[1]}; fetch it again.'
      )
  try:
    return weights.read_arrays(path)
  except UserError:
    raise
  except Exception as error:
    raise UserError(f'{path} cannot be read as weights ({error}).') from error


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of names, shapes and float32 values: the same from any kind of file."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    value = np.ascontiguousarray(arrays[name], np.float32)
    digest.update(f'{name}{value.shape}'.encode())
    digest.update(value.tobytes())
  return digest.hexdigest()


class FeatureNetwork(NamedTuple):
  """A feature network ready to use, with what a protocol stamp says of it."""

  name: str
  dim: int
  classes: int  # of its logits; 0: it has none
  stamp: dict[str, str]  # weights, preprocessing, dtype
  # uint8 [n, h, w, c] -> features [n, dim], logits [n, classes], float32
  extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_extractor(
  apply: Callable[[Any, Array], tuple[Array, Array]],
  variables: Any,
  mesh: Mesh,
  batch: int,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Compiles apply(variables, images) once, for `batch` images split over the mesh.

  Returns:
    A function of any number of uint8 images, which are padded and cut to `batch`.
  """
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  compiled = jax.jit(apply, in_shardings=(whole, split), out_shardings=split)
  held = jax.device_put(variables, whole)
  batch = -(-batch // mesh.size) * mesh.size

  def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, logits = [], []
    for start in range(0, len(images), batch):
      n = len(images[start : start + batch])
      rows = np.minimum(np.arange(start, start + batch), start + n - 1)
      found = jax.device_get(compiled(held, jax.device_put(images[rows], split)))
      features.append(found[0][:n])
      logits.append(found[1][:n])
    return np.concatenate(features), np.concatenate(logits)

  return extract


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Whole or not at all, whoever else writes the same file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(path) as part:
    np.savez(part, allow_pickle=False, **arrays)
