"""A classifier of clothes: the judge of generated images, and its features."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from gan_jax.storage.files import atomic_path

SIDE, CLASSES = 32, 10
DIM = 128  # length of a feature vector
EPOCHS, BATCH, RATE = 8, 100, 2e-3


class Classifier(nn.Module):
  """Images uint8 [n, 32, 32, 1] -> features [n, 128], logits [n, 10]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.float32) / 127.5 - 1
    half = SIDE // 2
    x = x.reshape(-1, half, 2, half, 2).transpose(0, 1, 3, 2, 4)
    x = x.reshape(-1, half, half, 4)  # 2 x 2 pixels as channels
    for width, stride in ((48, 1), (64, 2), (96, 1), (128, 2)):
      x = nn.Conv(width, (3, 3), stride, use_bias=False)(x)
      x = nn.relu(nn.GroupNorm(8)(x))
    # Where something is tells clothes apart: no mean over the places.
    features = nn.relu(nn.Dense(DIM)(x.reshape(len(x), -1)))
    return features, nn.Dense(CLASSES)(features)


def load_classifier(images: np.ndarray, labels: np.ndarray, path: Path) -> Any:
  """Weights of the classifier, read from `path` or trained on these images now.

  Each image is shifted by up to two pixels and mirrored or not.
  """
  network = Classifier()
  params = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))
  if path.is_file():
    return serialization.from_bytes(params, path.read_bytes())
  steps = EPOCHS * (len(images) // BATCH)
  tx = optax.adamw(optax.cosine_onecycle_schedule(steps, RATE), weight_decay=0.05)

  def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    _, logits = network.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @jax.jit
  def step(params: Any, opt: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
    updates, opt = tx.update(jax.grad(loss)(params, x, y), opt, params)
    return optax.apply_updates(params, updates), opt

  rng, opt = np.random.default_rng(0), tx.init(params)
  for epoch in range(EPOCHS):
    order = rng.permutation(len(images))[: len(images) // BATCH * BATCH]
    for rows in order.reshape(-1, BATCH):
      x = np.roll(images[rows], rng.integers(-2, 3, size=2), axis=(1, 2))
      mirrored = rng.random(BATCH) < 0.5
      x[mirrored] = x[mirrored, :, ::-1]
      params, opt = step(params, opt, x, labels[rows])
    print(f'classifier: epoch {epoch + 1} of {EPOCHS}', flush=True)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(path) as temporary:
    temporary.write_bytes(serialization.to_bytes(params))
  return params


def make_classify(params: Any, batch: int = 500) -> Any:
  """Images uint8 [n, 32, 32, 1] -> features [n, 128], classes [n]."""
  apply = jax.jit(lambda x: Classifier().apply(params, x))

  def classify(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [apply(images[i : i + batch]) for i in range(0, len(images), batch)]
    features, logits = (np.concatenate(x) for x in zip(*parts, strict=True))
    return features, logits.argmax(-1)

  return classify
