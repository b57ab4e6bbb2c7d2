"""MNIST, and a classifier of its digits that counts modes."""

import hashlib
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from gan_jax import UserError
from gan_jax.storage.files import atomic_path

SIDE = 32  # pixels; MNIST's 28 with two black ones on each side
FILES = {  # name -> its SHA-256 and the bytes of its header
  'train-images-idx3-ubyte': (
    'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    16,
  ),
  'train-labels-idx1-ubyte': (
    '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    8,
  ),
  't10k-images-idx3-ubyte': (
    '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    16,
  ),
  't10k-labels-idx1-ubyte': (
    'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    8,
  ),
}


def read_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Digits uint8 [n, 32, 32] and their classes; split is 'train' or 't10k'."""
  images = _read(folder / f'{split}-images-idx3-ubyte').reshape(-1, 28, 28)
  labels = _read(folder / f'{split}-labels-idx1-ubyte')
  return np.pad(images, ((0, 0), (2, 2), (2, 2))), labels


def _read(path: Path) -> np.ndarray:
  digest, header = FILES[path.name]
  if not path.is_file():
    raise UserError(f'--mnist: {path} does not exist: README.md says where MNIST is.')
  content = path.read_bytes()
  if hashlib.sha256(content).hexdigest() != digest:
    raise UserError(f"--mnist: {path} is not MNIST's file of that name.")
  return np.frombuffer(content, np.uint8, offset=header)


class Classifier(nn.Module):
  """Digits [b, 32, 32], 0 to 255 -> logits [b, 10]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)[..., None] / 255
    for width, size in (32, 5), (64, 3), (64, 3):
      x = nn.relu(nn.Conv(width, (size, size), 2)(x))
    return nn.Dense(10)(x.reshape(len(x), -1))


def load_classifier(mnist: Path, path: Path, epochs: int = 14) -> Any:
  """Weights of the classifier, trained on MNIST's training digits or read from `path`.

  Each digit is shifted by up to two pixels.
  """
  network = Classifier()
  params = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE)))
  if path.is_file():
    return serialization.from_bytes(params, path.read_bytes())
  digits, labels = read_mnist(mnist, 'train')
  batch = 100
  steps = epochs * len(digits) // batch
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

  def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = network.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @jax.jit
  def step(params: Any, opt: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
    updates, opt = tx.update(jax.grad(loss)(params, x, y), opt)
    return optax.apply_updates(params, updates), opt

  rng, opt = np.random.default_rng(0), tx.init(params)
  for epoch in range(epochs):
    for rows in rng.permutation(len(digits)).reshape(-1, batch):
      shift = rng.integers(-2, 3, size=2)
      x = np.roll(digits[rows], shift, axis=(1, 2))
      params, opt = step(params, opt, x, labels[rows].astype(np.int32))
    print(f'classifier: epoch {epoch + 1} of {epochs}', flush=True)
  with atomic_path(path) as temporary:
    temporary.write_bytes(serialization.to_bytes(params))
  return params


def classify(params: Any, digits: np.ndarray, batch: int = 1024) -> np.ndarray:
  """The classes of digits uint8 [n, 32, 32]."""
  apply = jax.jit(lambda x: Classifier().apply(params, x).argmax(-1))
  parts = [digits[i : i + batch] for i in range(0, len(digits), batch)]
  return np.concatenate([np.asarray(apply(part)) for part in parts])
