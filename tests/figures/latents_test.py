"""Figures that need no more than a generator show the images of `Generator.sample`."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.figures import latents
from gan_jax.figures.source import Source
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.layout import GAP, LINE, enlarge, enlargement, to_rgb
from gan_jax.sampling.options import SamplingOptions


def source_of(workdir, **options):
  return Source(
    TrainedGenerator(workdir),
    read_config(workdir),
    workdir,
    SamplingOptions(**options),
    first_seed=3,
    load_data=lambda: None,
  )


@pytest.fixture(scope='module')
def stylegan(stylegan_run):
  return source_of(stylegan_run)


@pytest.fixture(scope='module')
def biggan(digits_run):
  return source_of(digits_run, standing=0)


def tile(figure, row, column, side, captions=True, wide=0):
  """An image of a figure; with captions above, and so many wide gaps before."""
  pixels, factor = np.asarray(figure.image), enlargement(side)
  step = side * factor + GAP
  y = GAP + LINE * captions + row * step
  x = GAP + column * step + 4 * GAP * wide
  return pixels[y : y + step - GAP, x : x + step - GAP]


def enlarged(image):
  return enlarge(to_rgb(image[None]), enlargement(len(image)))[0]


def test_the_truncation_row_has_the_same_latents_at_each_psi(stylegan):
  figure = latents.truncation(stylegan)
  for column, psi in ((1, -0.5), (4, 0.7)):
    want = stylegan.generator.sample([3, 4, 5, 6], psi=psi, batch=1)
    for row in (0, 3):
      np.testing.assert_array_equal(tile(figure, row, column, 8), enlarged(want[row]))
  assert 'seeds=3-6 psi=-1,-0.5,0,0.5,0.7,1' in figure.description


def test_the_truncation_row_of_a_biggan_has_thresholds(biggan):
  figure = latents.truncation(biggan)
  want = biggan.generator.sample([3, 4], truncation=0.5, standing=0, batch=1)
  for row in (0, 1):
    np.testing.assert_array_equal(tile(figure, row, 1, 16), enlarged(want[row]))
  assert 'truncation=0.04,0.5,1,2,inf' in figure.description


def test_mixing_has_a_band_of_rows_for_each_range_of_layers(stylegan):
  figure = latents.mixing(stylegan)
  rows = 1 + 2 * latents.SOURCE_ROWS  # 8 pixels have coarse and middle styles
  step = 96 + GAP
  assert figure.image.height == rows * step + GAP
  sources = stylegan.generator.sample(range(3, 11), batch=1)
  pixels = np.asarray(figure.image)
  right = pixels[GAP : GAP + 96, -96 - GAP : -GAP]  # the last source, above
  np.testing.assert_array_equal(right, enlarged(sources[-1]))


def test_noise_of_all_no_and_some_layers(stylegan):
  figure = latents.noise(stylegan)
  seeds = [3, 4, 5]
  for column, how in ((0, 'own'), (1, 'off')):
    want = stylegan.generator.sample(seeds, noise=how, batch=1)
    np.testing.assert_array_equal(tile(figure, 2, column, 8), enlarged(want[2]))
  fine, coarse = tile(figure, 0, 2, 8), tile(figure, 0, 3, 8)
  want = stylegan.images(seeds=[3], noise_layers='2-3')
  np.testing.assert_array_equal(fine, enlarged(want[0]))
  assert (fine != coarse).any()
  assert 'noise_layers=all;none;2-3;0-1' in figure.description


def test_the_map_is_the_standard_deviation_of_the_images(stylegan, monkeypatch):
  monkeypatch.setattr(latents, 'REALIZATIONS', 5)
  figure = latents.noise_std(stylegan)
  drawn = np.concatenate(
    [stylegan.images(seeds=[4], noise_seed=i) for i in range(5)]
  ).astype(float)
  np.testing.assert_array_equal(
    tile(figure, 1, 3, 8), enlarged(drawn[3].astype(np.uint8))
  )
  deviation = np.floor(4 * drawn.mean(-1).std(0) + 0.5).clip(0, 255)
  assert deviation.max() > 0
  shown = tile(figure, 1, 4, 8, wide=1)[::12, ::12]
  np.testing.assert_array_equal(shown, deviation[..., None].repeat(3, -1))


def ends(figure, row, side):
  """The first and the last image of a row, whose caption has any width."""
  pixels, step = np.asarray(figure.image), side * enlargement(side) + GAP
  y, columns = GAP + row * step, latents.MIDPOINTS + 2
  line = pixels[y : y + step - GAP]
  return line[:, -columns * step : -(columns - 1) * step][:, : step - GAP], line[
    :, -step:-GAP
  ]


@pytest.mark.parametrize(
  'draw, first, last',
  [
    (latents.interpolation_zy, (5, 1), (6, 6)),  # seed and class of the second row
    (latents.interpolation_z, (5, 1), (6, 1)),
    (latents.interpolation_y, (4, 1), (4, 6)),
  ],
)
def test_paths_begin_and_end_at_seeds_and_classes(biggan, draw, first, last):
  figure = draw(biggan)
  for shown, (seed, label) in zip(ends(figure, 1, 16), (first, last), strict=True):
    want = biggan.generator.sample([seed], labels=[label], standing=0, batch=1)
    np.testing.assert_array_equal(shown, enlarged(want[0]))


def test_a_path_in_w_begins_and_ends_at_seeds(stylegan):
  first, last = ends(latents.interpolation_w(stylegan), 0, 8)
  want = [stylegan.images(seeds=[seed], noise_seed=3)[0] for seed in (3, 4)]
  np.testing.assert_allclose(first.astype(int), enlarged(want[0]), atol=1)
  np.testing.assert_allclose(last.astype(int), enlarged(want[1]), atol=1)


def test_the_uncurated_grid_halves_its_images(biggan):
  figure = latents.uncurated(biggan)
  pixels = np.asarray(figure.image)[GAP + LINE :, GAP:]
  images = biggan.images(seeds=list(range(3, 21)))
  np.testing.assert_array_equal(pixels[:96, :96], enlarged(images[0]))
  np.testing.assert_array_equal(pixels[96:192, 96:192], enlarged(images[4]))
  half = images[6].reshape(8, 2, 8, 2, 3).mean((1, 3)).round()
  np.testing.assert_array_equal(pixels[:48:6, 192:240:6], half)
  assert figure.description.startswith('seeds=3-20 ')


def test_noise_layers_that_the_model_does_not_have(stylegan):
  with pytest.raises(UserError, match='--noise_layers=9: layers are 0-3'):
    stylegan.images(seeds=[1], noise_layers='9')
  with pytest.raises(UserError, match='--noise=off and --noise_layers exclude'):
    SamplingOptions(noise='off', noise_layers='0')
