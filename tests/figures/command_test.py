"""The command: which figures it draws, their files, and what is left out."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.figures.__main__ import main
from gan_jax.figures.catalogue import FIGURES
from gan_jax.figures.film import read_grid
from gan_jax.sampling.image_io import image_grid
from gan_jax.sampling.layout import LINE


@pytest.fixture
def digits(digits_run, tmp_path):
  """A copy of the run, without its sample grids."""
  left_out = shutil.ignore_patterns('samples', 'tensorboard', 'report.html')
  return shutil.copytree(digits_run, tmp_path / 'run', ignore=left_out)


def write_samples(workdir, sides, rows=10, columns=12):
  """Sample grids of the digits config, of flat images."""
  (workdir / 'samples').mkdir()
  for i, side in enumerate(sides):
    flat = np.full((rows * columns, side, side, 1), 10 * i, np.uint8)
    image_grid(flat, columns).save(workdir / 'samples' / f'{8 * i:010d}.png')


def test_a_figure_has_its_settings_in_its_metadata(stylegan_run, tmp_path):
  flags = ['--figures=interpolation_z', '--seed=7', '--psi=0.5', f'--out={tmp_path}/f']
  main([f'--workdir={stylegan_run}', *flags])
  with Image.open(tmp_path / 'f' / 'interpolation_z.png') as image:
    assert image.text['Description'] == (
      'figure=interpolation_z seeds=7-18 psi=0.5 truncation=inf interpolate=z '
      'checkpoint=2 weights=ema'
    )


def test_a_film_shows_each_sample_grid_at_one_size(digits, tmp_path, capsys):
  write_samples(digits, (8, 8, 16))
  main([f'--workdir={digits}', '--figures=film', f'--out={tmp_path}/f', '--fps=10'])
  assert capsys.readouterr().out == f'{tmp_path}/f/film.webp\n'
  with Image.open(tmp_path / 'f' / 'film.webp') as film:
    assert film.n_frames == 3
    assert film.size == (12 * 82 + 2, 10 * 82 + 2 + LINE)  # images enlarged to 80
    for i in range(3):
      film.seek(i)
      assert abs(film.convert('RGB').getpixel((40, 40))[0] - 10 * i) < 4


def test_a_sample_grid_is_read_back(rng_seed, tmp_path):
  images = np.random.default_rng(rng_seed).integers(0, 256, (6, 8, 8, 3), np.uint8)
  image_grid(images, 3).save(tmp_path / 'grid.png')
  tiles = read_grid(tmp_path / 'grid.png', 2, 3)
  np.testing.assert_array_equal(tiles.reshape(6, 8, 8, 3), images)
  assert read_grid(tmp_path / 'grid.png', 2, 4) is None


def test_what_cannot_be_drawn_is_left_out_unless_it_is_asked_for(
  digits, monkeypatch, capsys
):
  for name in set(FIGURES) - {'film', 'nearest', 'mixing'}:
    monkeypatch.delitem(FIGURES, name)
  flags = [f'--workdir={digits}', '--data=./moved']
  main(flags)
  printed = capsys.readouterr()
  assert not printed.out and not (digits / 'figures').exists()
  assert 'left out: nearest: moved: there is no such folder' in printed.err
  assert 'left out: film: a film takes two sample grids' in printed.err
  with pytest.raises(UserError, match='^a film takes two sample grids'):
    main([*flags, '--figures=film'])
  with pytest.raises(UserError, match='moved: there is no such'):
    main([*flags, '--figures=nearest'])


@pytest.mark.parametrize(
  'flags, sentence',
  [
    ('--figures=film,mixin', "there is no figure 'mixin' .did you mean 'mixing'"),
    ('--figures=noise', 'noise is for a StyleGAN, which this model is not; --list'),
    ('--fps=0', '--fps=0.0: it must be above 0'),
    ('--seed=-1', '--seed=-1: allowed are 0 to 4294967095'),
    ('--psi=nan', '--psi=nan: a finite number'),
    ('--checkpoint=9', '9'),
  ],
)
def test_mistakes_are_one_sentence(digits, flags, sentence):
  with pytest.raises(UserError, match=sentence):
    main([f'--workdir={digits}', *flags.split()])
  assert not (digits / 'figures').exists()


def test_the_list_has_what_the_model_has(digits_run, stylegan_run, capsys):
  main(['--list'])
  names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
  assert names == list(FIGURES)
  lacking = {
    digits_run: {'mixing', 'noise', 'noise_std', 'interpolation_w'},
    stylegan_run: {'interpolation_zy', 'interpolation_y'},
  }
  for run, missing in lacking.items():
    main(['--list', f'--workdir={run}'])
    has = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert has == set(names) - missing


def test_the_nearest_images_are_of_the_data(digits, monkeypatch, tmp_path):
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr('gan_jax.evaluation.metrics.small_network.TRAINING_STEPS', 2)
  main([f'--workdir={digits}', '--figures=nearest'])
  with Image.open(digits / 'figures' / 'nearest.png') as image:
    assert 'data=digits' in image.text['Description']
    assert image.width == 9 * 100 + 2 * 16 + 4
