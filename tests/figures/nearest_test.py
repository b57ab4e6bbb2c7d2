"""The nearest images of a dataset, with and without mirror images."""

import itertools

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
  for flip, space in itertools.product((False, True), (dark, flat)):
    found = find_neighbors(queries, dataset, space, 3, flip)
    squares = lambda x, space=space: np.square(
      space(queries)[:, None].astype(float) - space(x)[None]
    ).sum(-1)
    plain, mirrored = squares(reals), squares(reals[:, :, ::-1])
    want = np.minimum(plain, mirrored) if flip else plain
    order = np.argsort(want, 1, kind='stable')[:, :3]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.square, np.take_along_axis(want, order, 1))
    is_flipped = np.take_along_axis(mirrored < plain, order, 1)
    np.testing.assert_array_equal(found.mirrored, is_flipped & flip)
  assert found.rows[1, 0] == 20 and found.mirrored[1, 0]
  assert found.square[1, 0] == 0
