"""Which real images are scored, in which order, and which process reads them."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Int

from gan_jax import data


def real_order(total: int, n: int) -> Int[np.ndarray, ' n']:
  """Indices of the n real images that are used; the same in every call.

  Shuffled, because datasets are often sorted by class.
  """
  return np.random.Generator(np.random.Philox(0)).permutation(total)[:n]


def read_batches(
  dataset: data.Dataset, order: Int[np.ndarray, ' n'], batch: int, threads: int = 8
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields images uint8 [n, h, w, c] and labels int32 [n] with n <= batch."""
  with ThreadPoolExecutor(threads) as pool:
    for start in range(0, len(order), batch):
      indices = [int(i) for i in order[start : start + batch]]
      examples = pool.map(dataset.examples.__getitem__, indices)
      images, labels = zip(*examples, strict=True)
      yield np.stack(images), np.array(labels, np.int32)


def process_share(items: np.ndarray, batch: int) -> np.ndarray:
  """The consecutive batches of `items` that this process handles.

  The shares of all processes, in order, are `items`. All but the last batch are full.
  """
  processes = jax.process_count()
  batches = -(-len(items) // batch)
  start, end = (
    batch * (batches * (jax.process_index() + i) // processes) for i in (0, 1)
  )
  return items[start:end]


def dataset_fingerprint(dataset: data.Dataset) -> str:
  """Hash of a dataset's size, number of classes, and 64 of its labeled images."""
  total = len(dataset.examples)
  digest = hashlib.sha256(f'{total} {dataset.n_classes}'.encode())
  for i in np.linspace(0, total - 1, min(64, total)).astype(int):
    image, label = dataset.examples[int(i)]
    digest.update(np.ascontiguousarray(image).tobytes() + str(int(label)).encode())
  return digest.hexdigest()[:16]
