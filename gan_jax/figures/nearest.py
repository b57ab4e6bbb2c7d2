"""The training images that are nearest to generated ones."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from gan_jax.data import Dataset
from gan_jax.evaluation.metrics import small_network
from gan_jax.evaluation.metrics.transparency import composite_bytes
from gan_jax.evaluation.real_images import (
  dataset_stamp,
  read_batches,
  real_images_stamp,
  real_order,
)
from gan_jax.figures.layout import table, to_rgb
from gan_jax.figures.source import Figure, Source
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.files import cache_folder

ROWS, NEIGHBORS = 5, 4
BATCH = 256  # real images that are compared at once

Describe = Callable[[UInt8[np.ndarray, 'n h w c']], Float[np.ndarray, 'n d']]


class Neighbors(NamedTuple):
  """The nearest real images of each query, nearest first."""

  squares: Float[np.ndarray, 'n k']  # of the distances
  indices: Int[np.ndarray, 'n k']
  flipped: Bool[np.ndarray, 'n k']


def nearest(source: Source) -> Figure:
  """Generated images, each with the training images nearest in pixels and in features.

  All training images are compared; if the run was trained with flips, their mirror
  images too. Features are those of the small network that `fd_small` takes.
  """
  seeds = source.seeds(ROWS)
  planned = source.plan(seeds=seeds)
  queries = np.concatenate(list(planned.images))
  factor = source.generator.gan.res // source.generator.resolution
  dataset = source.load_data().downsampled(factor)
  images = [to_rgb(queries)]
  found = find_neighbors(
    queries,
    dataset,
    [_pixels, small_features(dataset, source.config.data.split)],
    NEIGHBORS,
    flip=source.config.data.flip,
  )
  for neighbors in found:
    for column in range(NEIGHBORS):
      chosen = neighbors.indices[:, column]
      reals = np.stack([dataset.examples[int(i)][0] for i in chosen])
      flip = neighbors.flipped[:, column, None, None, None]
      images.append(to_rgb(np.where(flip, reals[:, :, ::-1], reals)))
  numbers = [str(i + 1) for i in range(1, NEIGHBORS)]
  columns = ['generated', 'pixels: 1', *numbers, 'features: 1', *numbers]
  cells = np.arange(ROWS * len(columns)).reshape(len(columns), ROWS).T
  gaps = (1, 1 + NEIGHBORS)
  figure = table(np.concatenate(images), cells, columns, gaps=gaps)
  return Figure(figure, source.describe(seeds, data=dataset.name))


def find_neighbors(
  queries: UInt8[np.ndarray, 'n h w c'],
  dataset: Dataset,
  spaces: list[Describe],
  k: int,
  flip: bool = False,
) -> list[Neighbors]:
  """The k nearest images of a dataset in each of several spaces, in one pass.

  Args:
    spaces: functions from images to the points whose distances count.
    flip: an image counts as near as the nearer of itself and its mirror image.
  """
  points = [space(queries).astype(np.float64) for space in spaces]
  best = [
    Neighbors(
      np.zeros((len(queries), 0)),
      np.zeros((len(queries), 0), np.int64),
      np.zeros((len(queries), 0), bool),
    )
    for _ in spaces
  ]
  order, start = np.arange(len(dataset.examples)), 0
  for images, _ in read_batches(dataset, order, BATCH):
    index = order[start : start + len(images)]
    start += len(images)
    for i, space in enumerate(spaces):
      squares = _squares(points[i], space(images))
      mirrored = np.zeros_like(squares, bool)
      if flip:
        others = _squares(points[i], space(images[:, :, ::-1]))
        mirrored = others < squares
        squares = np.minimum(squares, others)
      best[i] = _merge(best[i], squares, index, mirrored, k)
  return best


def _merge(
  best: Neighbors,
  squares: Float[np.ndarray, 'n m'],
  index: Int[np.ndarray, ' m'],
  mirrored: Bool[np.ndarray, 'n m'],
  k: int,
) -> Neighbors:
  """The k nearest of those so far and of m others."""
  joined = (
    np.concatenate([best.squares, squares], 1),
    np.concatenate([best.indices, np.broadcast_to(index, squares.shape)], 1),
    np.concatenate([best.flipped, mirrored], 1),
  )
  chosen = np.argsort(joined[0], 1, kind='stable')[:, :k]
  return Neighbors(*(np.take_along_axis(x, chosen, 1) for x in joined))


def _squares(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']
) -> Float[np.ndarray, 'n m']:
  """Squared distances in float64, from few points to many."""
  y = y.astype(np.float64)
  return np.stack([np.square(y - point).sum(1) for point in x])


def _pixels(images: UInt8[np.ndarray, 'n h w c']) -> Float[np.ndarray, 'n d']:
  """Pixel values; transparent images on white."""
  return composite_bytes(images).reshape(len(images), -1).astype(np.float32)


def small_features(dataset: Dataset, split: str) -> Describe:
  """Features of the small network of a dataset: from the cache, or trained now."""

  def training_images() -> tuple[np.ndarray, np.ndarray]:
    order = real_order(len(dataset.examples), small_network.MAX_IMAGES)
    batches = list(read_batches(dataset, order, BATCH))
    images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    return composite_bytes(images), labels

  network = small_network.load(
    training_images,
    dataset.n_classes,
    real_images_stamp(dataset, dataset_stamp(dataset, split)),
    cache_folder(),
    make_mesh(),
  )
  return lambda images: network.extract(composite_bytes(images))[0]
