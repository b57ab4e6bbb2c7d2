"""A small feature network, trained in seconds on the real images themselves.

With it Frechet and kernel distances, precision and recall can be had on a machine that
has nothing downloaded. It is another network for every dataset: its scores carry the
suffix `_small`, and compare only runs on the same data.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from gan_jax.evaluation.metrics.feature_network import (
  FeatureNetwork,
  fingerprint,
  make_extractor,
  save_npz,
)
from gan_jax.evaluation.metrics.inception import RESIZINGS, prepared

SIDE = 32  # pixels of the network's input
DIM = 96
IMAGES = 8192  # real ones it is trained on, at most
VERSION = 1  # counts up when anything below changes what is learned
_STEPS, _BATCH = 300, 64


class SmallNetwork(nn.Module):
  """[n, 32, 32, 3] -> features [n, 96], logits of the classes and of four rotations.

  The features are spatial means of two depths: what is there, and how it looks.
  """

  classes: int

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array, Array]:
    maps = []
    for width in (32, 32, 64):
      x = nn.Conv(width, (3, 3), strides=2, padding=1)(x)
      x = nn.leaky_relu(nn.GroupNorm(8)(x), 0.1)
      maps.append(x)
    features = jnp.concatenate([m.mean((1, 2)) for m in maps[1:]], -1)
    flat = x.reshape(len(x), -1)
    return features, nn.Dense(self.classes)(flat), nn.Dense(4)(flat)


def train(images: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
  """Learns classes, if there are any, and by what multiple of 90 degrees an image is
  turned; the same images give the same weights.

  Args:
    images: uint8 [n, h, w, c].
    labels: int32 [n].
    classes: how many; 0: they are not used.

  Returns:
    The variables of a SmallNetwork.
  """
  network = SmallNetwork(classes)
  device = jax.local_devices()[0]
  shrink = lambda part: np.asarray(prepared(part, RESIZINGS['friendly'], SIDE))
  parts = range(0, len(images), 512)
  seen = np.concatenate([shrink(images[i : i + 512]) for i in parts])
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, _STEPS), b2=0.99)

  def loss(params, x, y, turned):
    _, class_logits, turn_logits = network.apply(params, x)
    each = optax.softmax_cross_entropy_with_integer_labels(turn_logits, turned)
    if classes:
      each += optax.softmax_cross_entropy_with_integer_labels(class_logits, y)
    return each.mean()

  @jax.jit
  def step(params, opt, x, y, turned):
    updates, opt = tx.update(jax.grad(loss)(params, x, y, turned), opt)
    return optax.apply_updates(params, updates), opt

  draws = np.random.Generator(np.random.Philox(VERSION))
  with jax.default_device(device):
    image = jnp.zeros((1, SIDE, SIDE, 3))
    params = jax.jit(network.init)(jax.random.key(VERSION), image)
    opt = tx.init(params)
    for _ in range(_STEPS):
      chosen = draws.integers(len(seen), size=_BATCH)
      turned = np.arange(_BATCH) % 4
      turns = [np.rot90(seen[i], int(k)) for i, k in zip(chosen, turned, strict=True)]
      params, opt = step(params, opt, np.stack(turns), labels[chosen], turned)
  return jax.device_get(params)


def load(
  sample: Callable[[], tuple[np.ndarray, np.ndarray]],
  classes: int,
  about: dict[str, Any],
  cache: Path,
  mesh: Mesh,
  batch: int = 256,
) -> FeatureNetwork:
  """The network of a dataset, from the cache or trained now.

  Args:
    sample: returns images uint8 [n, h, w, c] and labels int32 [n] to train on; only
      called when the cache has no such network.
    about: what identifies the dataset, as JSON.
    cache: folder of the files; written atomically.
  """
  key = json.dumps({'small': VERSION, 'classes': classes, **about}, sort_keys=True)
  path = cache / f'small-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz'
  network = SmallNetwork(classes)
  image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)
  if path.is_file():
    with np.load(path, allow_pickle=False) as z:
      leaves = [z[f'{i:03d}'] for i in range(len(z.files))]
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
  else:
    params = train(*sample(), classes)
    save_npz(path, _numbered(params))

  def apply(params, images):
    features, logits, _ = network.apply(
      params, prepared(images, RESIZINGS['friendly'], SIDE)
    )
    return features, logits

  stamp = {
    'network': f'small-{VERSION}',
    'weights': fingerprint(_numbered(params)),
    'preprocessing': f'friendly {SIDE}',
    'dtype': 'float32',
  }
  extract = make_extractor(apply, params, mesh, batch)
  return FeatureNetwork('small', DIM, classes, stamp, extract)


def _numbered(params: Any) -> dict[str, np.ndarray]:
  return {f'{i:03d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(params))}
