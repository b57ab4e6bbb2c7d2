"""The training images that are nearest to generated ones."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from gan_jax.data import Dataset
from gan_jax.evaluation.metrics import small_network
from gan_jax.evaluation.metrics.neighbors import MirroredNeighbors, nearest_of_batches
from gan_jax.evaluation.metrics.transparency import composite_bytes
from gan_jax.evaluation.real_images import (
  dataset_stamp,
  read_batches,
  real_images_stamp,
  real_order,
)
from gan_jax.figures.source import Figure, Source
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling.layout import table, to_rgb
from gan_jax.storage.files import cache_folder

ROWS, NEIGHBORS = 5, 4
BATCH = 256  # real images that are compared at once

Describe = Callable[[UInt8[np.ndarray, 'n h w c']], Float[np.ndarray, 'n d']]


def nearest(source: Source) -> Figure:
  """Generated images, each with the training images nearest in pixels and in features.

  All training images are compared; if the run was trained with flips, their mirror
  images too. Features are those of the small network that `fd_small` takes.
  """
  seeds = source.seeds(ROWS)
  planned = source.plan(seeds=seeds, padded=True)  # as the training images are
  queries = np.concatenate(list(planned.images))
  factor = source.generator.gan.res // source.generator.resolution
  dataset = source.load_data().downsampled(factor)
  images = [to_rgb(queries)]
  for space in (_pixels, small_features(dataset, source.config.data.split)):
    neighbors = find_neighbors(
      queries, dataset, space, NEIGHBORS, source.config.data.flip
    )
    for column in range(NEIGHBORS):
      chosen = neighbors.rows[:, column]
      reals = np.stack([dataset.examples[int(i)][0] for i in chosen])
      flip = neighbors.mirrored[:, column, None, None, None]
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
  space: Describe,
  k: int,
  flip: bool = False,
) -> MirroredNeighbors:
  """The k nearest images of a dataset.

  Args:
    space: function from images to the points whose distances count.
    flip: an image counts as near as the nearer of itself and its mirror image.
  """
  batches = read_batches(dataset, np.arange(len(dataset.examples)), BATCH)
  points = (
    (space(images), space(images[:, :, ::-1]) if flip else None)
    for images, _ in batches
  )
  return nearest_of_batches(space(queries), points, k)


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
