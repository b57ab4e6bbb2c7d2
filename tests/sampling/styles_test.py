"""The sampler on a StyleGAN: styles, noise, films, earlier resolutions."""

import importlib

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, sample
from gan_jax.config import parse_config
from gan_jax.models.stylegan import StyleGAN
from gan_jax.sampling import options
from gan_jax.storage import files
from gan_jax.training import trainer


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  config = importlib.import_module('configs.stylegan_lsun').get_config('tiny').to_dict()
  config['model']['truncated_layers'] = 2
  trainer.Trainer(parse_config(config), folder).run()
  return folder


@pytest.fixture
def draw(workdir, tmp_path):
  """Flags -> uint8 [n, 8, 8, 3]; numbered, so that one test may draw often."""

  def run(*flags):
    out = tmp_path / f'{len(list(tmp_path.iterdir()))}.npz'
    sample.main([f'--workdir={workdir}', f'--out={out}', *flags])
    with np.load(out) as z:
      return z['images'].astype(int)

  return run


def test_noise_is_each_seeds_own_or_stored_or_off(draw):
  own, again = draw('--seeds=3,4'), draw('--seeds=4')
  np.testing.assert_array_equal(own[1:], again)
  flags = ('--noise=stored', '--noise=off', '--noise_seed=9')
  ways = [own] + [draw('--seeds=3,4', flag) for flag in flags]
  for i, one in enumerate(ways):
    for other in ways[:i]:
      assert (one != other).any(axis=(1, 2, 3)).all()


def test_strengths_at_zero_silence_the_noise():
  gan = StyleGAN(
    res=8, dim_z=4, dim_w=4, g_widths=(4,) * 3, d_widths=(4,) * 3, mapping_layers=1
  )
  g = {
    'params': {
      'mapping': {},
      'synthesis': {
        'layer0': {'strength': np.ones(4), 'bias': np.ones(4)},
        'const': np.ones(3),
      },
    }
  }
  quiet = gan.with_noise(g, 0.0)['params']['synthesis']
  np.testing.assert_array_equal(quiet['layer0']['strength'], 0)
  np.testing.assert_array_equal(quiet['layer0']['bias'], 1)
  np.testing.assert_array_equal(quiet['const'], 1)


def test_psi_zero_draws_the_average_face(draw):
  same = draw('--seeds=0-4', '--psi=0', '--noise=off', '--truncated_layers=4')
  np.testing.assert_array_equal(same, np.repeat(same[:1], 5, 0))
  cut = draw('--seeds=0-4', '--psi=0', '--noise=off')  # only 2 layers of 4
  assert (cut != cut[:1]).any()


def test_mixing_takes_layers_of_the_columns():
  rows = np.zeros((2, 6, 1), np.float32)
  columns = np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1) * np.ones((3, 6, 1))
  mixed = options.mix_styles(rows, columns, [range(2), range(4, 6)])
  assert mixed.shape == (2 * 2 * 3, 6, 1)
  band = mixed.reshape(2, 2, 3, 6)
  np.testing.assert_array_equal(band[0, 1, 2], [3, 3, 0, 0, 0, 0])
  np.testing.assert_array_equal(band[1, 0, 1], [0, 0, 0, 0, 2, 2])


@pytest.mark.parametrize(
  'res, ends', [(1024, [4, 8, 18]), (256, [4, 8, 14]), (32, [2, 4, 8]), (8, [2, 4, 4])]
)
def test_ranges_of_styles(res, ends):
  ranges = options.style_ranges(StyleGAN(res=res))
  assert list(ranges) == ['coarse', 'middle', 'fine']
  assert [r.stop for r in ranges.values()] == ends


def test_a_sheet_of_mixed_styles(workdir, tmp_path, draw):
  flags = ['--seeds=0-1', '--mix=5-7', '--mix_layers=coarse,2-3']
  sample.main([f'--workdir={workdir}', f'--out={tmp_path}/mix.png', *flags])
  with Image.open(tmp_path / 'mix.png') as page:
    pixels = np.asarray(page)
  assert pixels.shape == (5 * 10 + 2, 4 * 10 + 2, 3)  # 1 + 2 x 2 rows, 1 + 3 columns
  assert (pixels[:12, :12] == 255).all()
  sources = draw('--seeds=0-1')
  np.testing.assert_array_equal(pixels[12:20, 2:10], sources[0])
  np.testing.assert_array_equal(pixels[22:30, 2:10], sources[1])
  np.testing.assert_array_equal(pixels[2:10, 12:20], draw('--seeds=5')[0])


def test_ways_in_w(draw):
  way = draw('--interpolate=w', '--seeds=1,2,1', '--frames=5', '--noise_seed=1')
  ends = draw('--seeds=1,2', '--noise_seed=1')
  for frame, end in ((0, 0), (4, 1), (5, 1), (9, 0)):
    assert np.abs(way[frame] - ends[end]).max() <= 1


@pytest.mark.parametrize('kind', ['gif', 'webp', 'mp4'])
def test_films(workdir, tmp_path, kind):
  out = tmp_path / f'morph.{kind}'
  flags = ['--interpolate=w', '--seeds=1,2', '--frames=4', '--fps=8']
  sample.main([f'--workdir={workdir}', f'--out={out}', *flags])
  if kind == 'mp4':
    import imageio.v3 as iio

    assert iio.imread(out, plugin='pyav').shape == (4, 256, 256, 3)
    return
  with Image.open(out) as film:
    film.load()
    assert (film.n_frames, film.size) == (4, (256, 256))
    assert film.info['duration'] in (120, 125)  # a .gif counts hundredths


def test_earlier_resolutions(draw):
  assert draw('--seeds=0-2', '--res=4').shape == (3, 4, 4, 3)


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--res=16'], '--res=16: this run has come to 8'),
    (['--res=6'], '--res=6: this run has come to 8'),
    (['--mix=0-3', '--mix_layers=rough'], '--mix_layers=rough: give numbers'),
    (['--mix=0-3', '--mix_layers=2-9'], 'layers are 0-3'),
    (['--mix=0-3', '--interpolate=w'], 'two kinds of sheet'),
    (['--grid'], 'knows no classes'),
    (['--out=x.avi'], 'end it in .png, .npz, .gif, .webp, .mp4'),
  ],
)
def test_mistakes(workdir, tmp_path, flags, words):
  with pytest.raises(UserError, match=words):
    sample.main([f'--workdir={workdir}', f'--out={tmp_path}/x.png', *flags])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flag', ['--mix=1', '--noise=off', '--interpolate=w'])
def test_what_only_a_stylegan_can_do(flag, tmp_path):
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  files.write_json(tmp_path / 'config.json', config)
  with pytest.raises(UserError, match='is for a StyleGAN'):
    sample.main([f'--workdir={tmp_path}', '--out=x.png', flag])
