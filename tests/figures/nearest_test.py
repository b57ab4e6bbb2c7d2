"""The nearest images of a dataset, with and without mirror images."""

import numpy as np

from gan_jax.data import Dataset
from gan_jax.data.dataset import InMemoryExamples
from gan_jax.figures import nearest
from gan_jax.figures.nearest import find_neighbors


def flat(images):
  return images.reshape(len(images), -1).astype(np.float32)


def test_neighbors_are_those_of_all_distances(rng_seed, monkeypatch):
  monkeypatch.setattr(nearest, 'BATCH', 7)
  rng = np.random.default_rng(rng_seed)
  reals = rng.integers(0, 256, (23, 4, 4, 3), np.uint8)
  queries = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
  queries[1] = reals[20, :, ::-1]  # a mirror image
  dataset = Dataset('x', InMemoryExamples(reals, np.zeros(23, np.int32)))
  dark = lambda images: flat(images // 64)
  for flip in (False, True):
    found = find_neighbors(queries, dataset, [flat, dark], 3, flip)
    for neighbors, space in zip(found, (flat, dark), strict=True):
      squares = lambda x, space=space: np.square(
        space(queries)[:, None].astype(float) - space(x)[None]
      ).sum(-1)
      plain, mirrored = squares(reals), squares(reals[:, :, ::-1])
      want = np.minimum(plain, mirrored) if flip else plain
      order = np.argsort(want, 1, kind='stable')[:, :3]
      np.testing.assert_array_equal(neighbors.indices, order)
      np.testing.assert_allclose(neighbors.squares, np.take_along_axis(want, order, 1))
      is_flipped = np.take_along_axis(mirrored < plain, order, 1)
      np.testing.assert_array_equal(neighbors.flipped, is_flipped & flip)
  assert found[0].indices[1, 0] == 20 and found[0].flipped[1, 0]
  assert found[0].squares[1, 0] == 0
