"""A small feature network, trained in seconds on the real images themselves.

It gives Frechet and kernel distances, precision and recall without downloaded weights.
Every dataset has its own network: its scores have the suffix `_small`, and only scores
of runs on the same data are comparable.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from gan_jax.evaluation.metrics.feature_network import (
  FeatureNetwork,
  make_extractor,
  save_npz,
)
from gan_jax.evaluation.metrics.resize import PREPROCESSING, preprocess
from gan_jax.storage.nested import fingerprint
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

SIDE = 32  # pixels of the network's input
DIM = 96  # length of a feature vector
MAX_IMAGES = 8192  # real images that it is trained on
VERSION = 1  # increase it when a change below changes the trained weights
TRAINING_STEPS, TRAINING_BATCH = 300, 64
_PREPROCESSING = 'friendly'

_logger = logging.getLogger(__name__)


class SmallNetwork(nn.Module):
  """Images [n, 32, 32, 3] -> features [n, 96], class logits, logits of 4 rotations.

  The features are the spatial means of the last two layers.
  """

  classes: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n 32 32 3']
  ) -> tuple[Float[Array, 'n 96'], Float[Array, 'n classes'], Float[Array, 'n 4']]:
    maps = []
    for width in (32, 32, 64):
      x = nn.Conv(width, (3, 3), strides=2, padding=1)(x)
      x = nn.leaky_relu(nn.GroupNorm(8)(x), 0.1)
      maps.append(x)
    features = jnp.concatenate([m.mean((1, 2)) for m in maps[1:]], -1)
    flat = x.reshape(len(x), -1)
    # A layer of no outputs cannot be initialized.
    logits = nn.Dense(self.classes)(flat) if self.classes else jnp.zeros((len(x), 0))
    return features, logits, nn.Dense(4)(flat)


def train(
  images: UInt8[np.ndarray, 'n h w c'],
  labels: Int[np.ndarray, ' n'],
  classes: int,
  steps: int = 0,
) -> dict[str, Any]:
  """Trains a SmallNetwork to predict the class and the rotation of an image.

  Rotations are multiples of 90 degrees. The same images give the same weights.

  Args:
    classes: number of classes; 0 trains on the rotation only.
    steps: 0 for TRAINING_STEPS.

  Returns:
    The variables of the network, on the host.
  """
  steps = steps or TRAINING_STEPS
  network = SmallNetwork(classes)
  inputs = _preprocess_in_batches(images)
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps), b2=0.99)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels

  def loss(params: Any, x: Array, y: Array, rotation: Array) -> Array:
    _, class_logits, rotation_logits = network.apply(params, x)
    losses = cross_entropy(rotation_logits, rotation)
    if classes:
      losses += cross_entropy(class_logits, y)
    return losses.mean()

  @jax.jit
  def step(params: Any, opt: Any, x: Array, y: Array, rotation: Array) -> tuple:
    updates, opt = tx.update(jax.grad(loss)(params, x, y, rotation), opt)
    return optax.apply_updates(params, updates), opt

  rng = np.random.Generator(np.random.Philox(VERSION))
  rotation = np.arange(TRAINING_BATCH) % 4
  with jax.default_device(jax.local_devices()[0]):
    image = jnp.zeros((1, SIDE, SIDE, 3))
    params = jax.jit(network.init)(jax.random.key(VERSION), image)
    opt = tx.init(params)
    for _ in range(steps):
      chosen = rng.integers(len(inputs), size=TRAINING_BATCH)
      rotated = [
        np.rot90(inputs[i], int(k)) for i, k in zip(chosen, rotation, strict=True)
      ]
      params, opt = step(params, opt, np.stack(rotated), labels[chosen], rotation)
  return jax.device_get(params)


def _preprocess_in_batches(images: np.ndarray, batch: int = 512) -> np.ndarray:
  """`images` as inputs of the network, float32 [n, 32, 32, 3]."""
  how = PREPROCESSING[_PREPROCESSING]
  starts = range(0, len(images), batch)
  return np.concatenate(
    [
      np.asarray(preprocess(jnp.asarray(images[i : i + batch]), how, SIDE))
      for i in starts
    ]
  )


def load(
  training_images: Callable[[], tuple[np.ndarray, np.ndarray]],
  classes: int,
  dataset_stamp: dict[str, Any],
  cache: Path,
  mesh: Mesh,
  batch: int = 256,
) -> FeatureNetwork:
  """The network of a dataset, from the cache or trained now.

  Args:
    training_images: returns images uint8 [n, h, w, c] and labels int32 [n]; called
      only if the cache does not hold the network.
    dataset_stamp: JSON values that identify the dataset.
    cache: folder of the cached weights.

  Raises:
    UserError: the cache cannot be written.
  """
  key = {'small': VERSION, 'classes': classes, **dataset_stamp}
  digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
  path = cache / f'small-{digest[:16]}.npz'
  network, how = SmallNetwork(classes), PREPROCESSING[_PREPROCESSING]
  params = _read_params(path, network)
  if params is None:
    params = train(*training_images(), classes)
    save_npz(path, _numbered(params))

  def apply(params: Any, images: Array) -> tuple[Array, Array]:
    features, logits, _ = network.apply(params, preprocess(images, how, SIDE))
    return features, logits

  stamp = {
    'network': f'small-{VERSION}',
    'weights': fingerprint(_numbered(params)),
    'preprocessing': f'{_PREPROCESSING} {SIDE}',
    'dtype': 'float32',
  }
  extract = make_extractor(apply, params, mesh, batch)
  return FeatureNetwork('small', DIM, classes, stamp, extract)


def _read_params(path: Path, network: SmallNetwork) -> Any:
  """The variables stored in `path`; None if it does not exist or is corrupted."""
  if not path.is_file():
    return None
  image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)
  try:
    with path.open('rb') as f:
      arrays = read_npz(f)
    leaves = [arrays[f'{i:03d}'] for i in range(len(arrays))]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
  except NPZ_ERRORS:
    _logger.warning('%s is corrupted: the network is trained again.', path)
    return None


def _numbered(params: Any) -> dict[str, np.ndarray]:
  """The leaves of the variables, named 000, 001, ..."""
  return {f'{i:03d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(params))}
