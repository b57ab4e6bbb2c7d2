"""Precision, recall, density and coverage: exact for any block size and devices."""

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import neighbors
from gan_jax.runtime.mesh import make_mesh


def brute_force(real, fake, k, closed):
  """The scores from the full matrices of distances, in float64."""
  distances = lambda a, b: np.square(a[:, None].astype(float) - b[None]).sum(-1)
  inside = np.less_equal if closed else np.less
  radii = lambda x: np.sort(distances(x, x), 1)[:, k]
  d = distances(fake, real)
  in_real, in_fake = inside(d, radii(real)[None]), inside(d, radii(fake)[:, None])
  return (
    in_real.any(1).mean(),
    in_fake.any(0).mean(),
    in_real.sum(1).mean() / k,
    in_real.any(0).mean(),
  )


@pytest.mark.parametrize('kind', ['spread', 'ties', 'far'])
def test_scores_are_exact_for_blocks_and_devices(kind, rng_seed):
  rng = np.random.default_rng(rng_seed)
  if kind == 'ties':  # many equal distances and equal points
    real, fake = (rng.integers(0, 3, (n, 3)).astype(np.float32) for n in (90, 75))
  else:
    real, fake = (rng.normal(size=(n, 5)).astype(np.float32) for n in (90, 75))
  if kind == 'far':  # float32 distances cannot order these neighbors
    real, fake = real + 3e4, fake + 3e4
    real[0], fake[0] = 1e6, -1e6
  for closed in (True, False):
    expected = brute_force(real, fake, 3, closed)
    for devices in (1, 8):
      mesh = make_mesh(jax.devices()[:devices])
      scores = neighbors.neighbor_scores(
        real, fake, 3, closed=closed, mesh=mesh, block_size=32
      )
      assert scores == pytest.approx(expected, rel=1e-12)


def test_too_few_images_are_an_error():
  with pytest.raises(UserError, match='no 4-th nearest neighbor'):
    neighbors.neighbor_radii(np.ones((4, 3), np.float32), 4)


def test_the_nearest_rows_are_exact_and_equal_rows_can_be_left_out(rng_seed):
  rng = np.random.default_rng(rng_seed)
  rows = rng.integers(0, 3, (70, 3)).astype(np.uint8)  # many equal rows
  queries = rng.integers(0, 3, (20, 3)).astype(np.uint8)
  square = np.square(queries[:, None] - rows[None].astype(np.float64)).sum(-1)
  found = neighbors.nearest_neighbors(queries, rows, 2, block_size=16)
  np.testing.assert_array_equal(found.square, np.sort(square, 1)[:, :2])
  for i, chosen in enumerate(found.rows):
    np.testing.assert_array_equal(square[i, chosen], found.square[i])
  others = neighbors.nearest_neighbors(queries, rows, block_size=16, skip_equal=True)
  least = np.where(square > 0, square, np.inf).min(1)
  np.testing.assert_array_equal(others.square[:, 0], least)
