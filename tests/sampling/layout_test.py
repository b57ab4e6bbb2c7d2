"""Figures are made of enlarged images with captions beside and above."""

import numpy as np
import pytest

from gan_jax.sampling.layout import GAP, LINE, enlargement, table, to_rgb


@pytest.mark.parametrize('side, factor', [(4, 24), (32, 3), (95, 2), (96, 1), (256, 1)])
def test_small_images_are_enlarged_by_a_whole_factor(side, factor):
  assert enlargement(side) == factor


def test_images_are_in_their_cells():
  images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones(
    (1, 96, 96, 3), np.uint8
  )
  figure = np.asarray(table(images, np.array([[0, -1], [2, 1]]), gaps=(1,)))
  assert figure.shape == (2 * (96 + GAP) + GAP, 2 * (96 + GAP) + 5 * GAP, 3)
  tile = lambda y, x: figure[y : y + 96, x : x + 96]
  second = GAP + 96 + GAP
  assert (tile(GAP, GAP) == 0).all()
  assert (tile(GAP, second + 4 * GAP) == 255).all()  # blank, after a wide gap
  assert (tile(second, GAP) == 2).all()
  assert (tile(second, second + 4 * GAP) == 1).all()


def test_captions_do_not_overlap_images():
  black = np.zeros((1, 96, 96, 3), np.uint8)
  figure = np.asarray(table(black, np.array([[0]]), ['above'], ['beside\nit']))
  bare = 96 + 2 * GAP
  assert figure.shape[0] == bare + LINE
  left = figure.shape[1] - bare
  assert (figure[GAP + LINE : -GAP, left + GAP : -GAP] == 0).all()
  assert (figure[:, : left + GAP] < 128).any()  # text beside
  assert (figure[: GAP + LINE, left:] < 128).any()  # text above
  assert (figure[-GAP:] == 255).all() and (figure[:, -GAP:] == 255).all()


def test_grey_and_transparent_images_become_rgb():
  grey = np.full((1, 2, 2, 1), 7, np.uint8)
  assert (to_rgb(grey) == 7).all() and to_rgb(grey).shape[-1] == 3
  clear = np.zeros((1, 2, 2, 4), np.uint8)
  assert (to_rgb(clear) == 255).all() and to_rgb(clear).shape[-1] == 3
