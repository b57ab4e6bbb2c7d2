"""The image grid of generated images beside their nearest training images."""

import numpy as np
import pytest

from gan_jax.evaluation import memorization_grid
from gan_jax.evaluation.memorization_grid import GAP, LINE, MARGIN, Group, Rows


@pytest.mark.parametrize(
  'side, shown', [(8, 64), (28, 84), (32, 64), (64, 64), (80, 80), (256, 128)]
)
def test_images_are_enlarged_by_whole_numbers_or_reduced(side, shown):
  assert memorization_grid.shown_side(side) == shown


def test_the_grid_shows_each_image_at_its_place():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 4, 64, 64, 1), np.uint8)
  groups = [Group('pixels', images[:, 1:3], np.array([0.5, 2]))]
  groups += [Group('features', images[:, 3:], np.array([1.0, 3]))]
  grid = memorization_grid.draw_grid(Rows(np.array([7, 9]), images[:, 0], groups))
  pixels = np.asarray(grid)[..., :1]
  lefts = 8 * LINE + np.array([0, 64 + GAP + MARGIN, 128 + 2 * GAP + MARGIN])
  lefts = [*lefts, lefts[2] + 64 + GAP + MARGIN]
  for y in range(2):
    top = 2 * LINE + y * (64 + GAP)
    for x, left in enumerate(lefts):
      shown = pixels[top : top + 64, left : left + 64]
      np.testing.assert_array_equal(shown, images[y, x])
  assert grid.size[0] == lefts[3] + 64 + GAP + MARGIN
