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
EPOCHS, BATCH, RATE = 14, 100, 4e-3
SHIFT, SQUARE = 2, 8  # largest shift, and side of the erased square, in pixels


class Classifier(nn.Module):
  """Images uint8 [n, 32, 32, 1] -> features [n, 128], logits [n, 10]."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
    def conv(x: jax.Array, width: int, stride: int = 1) -> jax.Array:
      x = nn.Conv(width, (3, 3), stride, use_bias=False)(x)
      return nn.BatchNorm(not train, momentum=0.95)(x)

    x = x.astype(jnp.float32) / 127.5 - 1
    half = SIDE // 2
    x = x.reshape(-1, half, 2, half, 2).transpose(0, 1, 3, 2, 4)
    x = x.reshape(-1, half, half, 4)  # 2 x 2 pixels as channels
    for width, stride in ((48, 1), (96, 2)):
      x = nn.relu(conv(x, width, stride))
      x = nn.relu(x + conv(nn.relu(conv(x, width)), width))
    x = nn.relu(conv(x, 128, 2))
    # Where something is tells clothes apart: no mean over the places.
    x = nn.Dropout(0.3, deterministic=not train)(x.reshape(len(x), -1))
    features = nn.relu(nn.Dense(DIM)(x))
    dropped = nn.Dropout(0.3, deterministic=not train)(features)
    return features, nn.Dense(CLASSES)(dropped)


def load_classifier(images: np.ndarray, labels: np.ndarray, path: Path) -> Any:
  """Variables of the classifier, read from `path` or trained on these images now."""
  network = Classifier()
  variables = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))
  if path.is_file():
    return serialization.from_bytes(variables, path.read_bytes())
  steps = EPOCHS * (len(images) // BATCH)
  tx = optax.adamw(optax.cosine_onecycle_schedule(steps, RATE), weight_decay=0.05)

  def loss(params: Any, stats: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
    (_, logits), new = network.apply(
      {'params': params, 'batch_stats': stats},
      *(x, True),
      rngs={'dropout': key},
      mutable='batch_stats',
    )
    targets = optax.smooth_labels(jax.nn.one_hot(y, CLASSES), 0.05)
    return optax.softmax_cross_entropy(logits, targets).mean(), new['batch_stats']

  @jax.jit
  def step(variables: Any, opt: Any, x: jax.Array, y: jax.Array, i: int) -> Any:
    params, stats = variables['params'], variables['batch_stats']
    key = jax.random.fold_in(jax.random.key(1), i)
    grads, stats = jax.grad(loss, has_aux=True)(params, stats, x, y, key)
    updates, opt = tx.update(grads, opt, params)
    params = optax.apply_updates(params, updates)
    return {'params': params, 'batch_stats': stats}, opt

  rng, opt, i = np.random.default_rng(0), tx.init(variables['params']), 0
  for epoch in range(EPOCHS):
    order = rng.permutation(len(images))[: len(images) // BATCH * BATCH]
    for rows in order.reshape(-1, BATCH):
      x = disturb(images[rows], rng)
      variables, opt = step(variables, opt, x, labels[rows], i)
      i += 1
    print(f'classifier: epoch {epoch + 1} of {EPOCHS}', flush=True)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(path) as temporary:
    temporary.write_bytes(serialization.to_bytes(variables))
  return variables


def disturb(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Images, each shifted, mirrored or not, and half of them with a square erased."""
  size = SIDE + 2 * SHIFT
  wide = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
  result = np.empty_like(images)
  for i, image in enumerate(wide):
    y, x = rng.integers(0, size - SIDE + 1, 2)
    result[i] = image[y : y + SIDE, x : x + SIDE]
    if rng.random() < 0.5:
      result[i] = result[i, :, ::-1]
    if rng.random() < 0.5:
      y, x = rng.integers(0, SIDE - SQUARE + 1, 2)
      result[i, y : y + SQUARE, x : x + SQUARE] = 0
  return result


def make_classify(variables: Any, batch: int = 500) -> Any:
  """Images uint8 [n, 32, 32, 1] -> features [n, 128], classes [n]."""
  apply = jax.jit(lambda x: Classifier().apply(variables, x))

  def classify(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [apply(images[i : i + batch]) for i in range(0, len(images), batch)]
    features, logits = (np.concatenate(x) for x in zip(*parts, strict=True))
    return features, logits.argmax(-1)

  return classify
