"""Trained and exported generators: options of a StyleGAN, `sample`, `load`."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import UserError, sample
from gan_jax.models.stylegan import StyleGAN
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.sampling.cropping import crop_batches
from gan_jax.sampling.exported import ExportedGenerator
from gan_jax.sampling.generator import TrainedGenerator, load
from gan_jax.sampling.options import SamplingOptions
from gan_jax.storage import checkpoint


@pytest.fixture(scope='module')
def stylegan(stylegan_run):
  return TrainedGenerator(stylegan_run)


@pytest.fixture(scope='module')
def biggan(digits_run):
  return load(digits_run)


@pytest.fixture(scope='module')
def exported(biggan, tmp_path_factory):
  out = tmp_path_factory.mktemp('export') / 'gen.stablehlo'
  biggan.export(out, SamplingOptions(standing=1))
  return load(out)


@pytest.fixture
def draw(stylegan):
  """A function of sampling options that returns int [n, 8, 8, 3]."""

  def images(**options):
    planned = stylegan.plan(SamplingOptions(**options))
    return np.concatenate(list(planned.images)).astype(int)

  return images


def command_images(out, *flags):
  """What the command writes with these flags."""
  sample.main([f'--out={out}', *flags])
  with np.load(out) as z:
    return z['images']


def test_noise_is_drawn_from_the_seed_or_stored_or_off(draw):
  own, again = draw(seeds='3,4'), draw(seeds='4')
  np.testing.assert_array_equal(own[1:], again)
  kinds = [own] + [
    draw(seeds='3,4', **option)
    for option in ({'noise': 'stored'}, {'noise': 'off'}, {'noise_seed': 9})
  ]
  for i, one in enumerate(kinds):
    for other in kinds[:i]:
      assert (one != other).any(axis=(1, 2, 3)).all()


def test_zero_strengths_remove_the_noise():
  gan = StyleGAN(
    res=8, dim_z=4, dim_w=4, g_widths=(4,) * 3, d_widths=(4,) * 3, mapping_layers=1
  )
  g = {
    'params': {
      'mapping': {},
      'synthesis': {
        'layer0': {'strength': np.ones(4), 'bias': np.ones(4)},
        'layer1': {'strength': np.ones(4)},
        'const': np.ones(3),
      },
    }
  }
  silent = gan.with_noise(g, 0.0)['params']['synthesis']
  np.testing.assert_array_equal(silent['layer0']['strength'], 0)
  np.testing.assert_array_equal(silent['layer0']['bias'], 1)
  np.testing.assert_array_equal(silent['const'], 1)
  partly = gan.with_noise(g, [0.5, 0, 1, 1])['params']['synthesis']
  np.testing.assert_array_equal(partly['layer0']['strength'], 0.5)
  np.testing.assert_array_equal(partly['layer1']['strength'], 0)


def test_noise_of_some_layers(draw):
  silent = draw(seeds='3', noise='off')
  whole = draw(seeds='3', noise_layers='coarse,middle')  # all that 8 pixels have
  np.testing.assert_array_equal(whole, draw(seeds='3'))
  coarse, other = (draw(seeds='3', noise_layers=x) for x in ('coarse', '2-3'))
  assert (coarse != silent).any() and (coarse != other).any()


def test_psi_zero_gives_the_image_of_the_mean_w(draw):
  same = draw(seeds='0-4', psi=0, noise='off', truncated_layers=4)
  np.testing.assert_array_equal(same, np.repeat(same[:1], 5, 0))
  partly = draw(seeds='0-4', psi=0, noise='off')  # in 2 of 4 layers
  assert (partly != partly[:1]).any()


def test_a_style_mixing_grid(stylegan_run, tmp_path, draw):
  flags = ['--seeds=0-1', '--mix=5-7', '--mix_layers=coarse,2-3']
  sample.main([f'--workdir={stylegan_run}', f'--out={tmp_path}/mix.png', *flags])
  with Image.open(tmp_path / 'mix.png') as image:
    pixels = np.asarray(image)
  assert pixels.shape == (5 * 10 + 2, 4 * 10 + 2, 3)  # 1 + 2 x 2 rows, 1 + 3 columns
  assert (pixels[:12, :12] == 255).all()
  row_sources = draw(seeds='0-1')
  np.testing.assert_array_equal(pixels[12:20, 2:10], row_sources[0])
  np.testing.assert_array_equal(pixels[22:30, 2:10], row_sources[1])
  np.testing.assert_array_equal(pixels[2:10, 12:20], draw(seeds='5')[0])


def test_interpolation_in_w_passes_each_seed_once(draw):
  ends = draw(seeds='1,2', noise_seed=1)
  frames = draw(interpolate='w', seeds='1,2', frames=5, noise_seed=1)
  assert len(frames) == 6
  for frame, end in ((0, 0), (5, 1)):
    assert np.abs(frames[frame] - ends[end]).max() <= 1
  loop = draw(interpolate='w', seeds='1,2', frames=5, noise_seed=1, loop=True)
  assert len(loop) == 10
  np.testing.assert_array_equal(loop[:6], frames)
  steps = [
    np.abs(a - b).mean() for a, b in zip(loop, np.roll(loop, -1, 0), strict=True)
  ]
  assert min(steps) > 0  # none stands still
  np.testing.assert_allclose(steps[5:], steps[4::-1], atol=1)  # the same way back
  np.testing.assert_array_equal(
    draw(interpolate='w', seeds='1,2,1', frames=5, noise_seed=1), loop
  )


def test_padding_of_the_training_images_is_cropped(digits_run, biggan, tmp_path):
  record = json.loads((digits_run / 'run.json').read_text())
  record['dataset']['content'] = [0, 0.25, 1, 0.8]
  (tmp_path / 'run.json').write_text(json.dumps(record))
  for name in ('config.json', 'checkpoints'):
    (tmp_path / name).symlink_to(digits_run / name)
  generator = gan_jax.load(tmp_path)
  whole = biggan.sample(seeds=[3, 4], standing=0)
  side = whole.shape[1]
  box = np.s_[:, :, round(0.25 * side) : round(0.8 * side)]
  np.testing.assert_array_equal(generator.sample(seeds=[3, 4], standing=0), whole[box])
  options = SamplingOptions(seeds='3,4', standing=0, padded=True)
  (images,) = generator.plan(options).images
  np.testing.assert_array_equal(images, whole)


def test_a_box_is_never_empty():
  images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
  crop = lambda *content: next(crop_batches(iter([images]), content))
  np.testing.assert_array_equal(crop(0, 0, 1, 1), images)
  np.testing.assert_array_equal(crop(0.5, 0, 0.55, 0.1), images[:, 2:3, :1])


def test_an_earlier_resolution(draw):
  assert draw(seeds='0-2', res=4).shape == (3, 4, 4, 3)


def test_an_exported_generator_takes_latents(exported, tmp_path):
  options = SamplingOptions(seeds='numpy:4,5', psi=0.6, classes='3')
  planned = exported.plan(options)
  again = exported.plan(SamplingOptions(), planned.latents)
  for a, b in zip(planned.images, again.images, strict=True):
    np.testing.assert_array_equal(a, b)
  assert again.psi == 0.6 and planned.truncation == again.truncation == 2
  with pytest.raises(UserError, match='z is 3 for each image'):
    exported.sample(latents=np.zeros((2, 3)))
  with pytest.raises(UserError, match='--direction needs the run'):
    exported.sample(direction='up')


def test_sample_gives_the_bits_of_the_command(digits_run, biggan, tmp_path):
  images = biggan.sample([3, 1, 2, 9], truncation=0.5, labels=[4, 7], standing=2)
  assert images.shape == (4, 16, 16, 1) and images.dtype == np.uint8
  flags = ['--seeds=3,1,2,9', '--truncation=0.5', '--classes=4,7', '--standing=2']
  want = command_images(tmp_path / 'a.npz', f'--workdir={digits_run}', *flags)
  np.testing.assert_array_equal(images, want)


def test_sample_of_a_stylegan_gives_the_bits_of_the_command(
  stylegan_run, stylegan, tmp_path
):
  images = stylegan.sample(range(5), psi=0.7, noise='stored')
  flags = ['--seeds=0-4', '--psi=0.7', '--noise=stored']
  want = command_images(tmp_path / 'a.npz', f'--workdir={stylegan_run}', *flags)
  np.testing.assert_array_equal(images, want)


def test_without_psi_a_stylegan_is_sampled_as_by_its_original(
  stylegan_run, stylegan, tmp_path
):
  default = stylegan.sample(range(5))
  np.testing.assert_array_equal(default, stylegan.sample(range(5), psi=0.7))
  assert (default != stylegan.sample(range(5), psi=1)).any()
  flags = [f'--workdir={stylegan_run}', '--seeds=0-4']
  np.testing.assert_array_equal(default, command_images(tmp_path / 'a.npz', *flags))
  with np.load(tmp_path / 'a.npz') as z:
    assert z['psi'] == 0.7


def test_sample_of_an_exported_generator(exported, biggan):
  assert isinstance(exported, ExportedGenerator)
  images = exported.sample(range(3), labels=3)
  assert images.shape == (3, 16, 16, 1)
  want = biggan.sample(range(3), labels=3, standing=1).astype(int)
  assert np.abs(images - want).max() <= 1


def test_classes_by_name(biggan, exported):
  names = tuple('0123456789')
  assert biggan.class_names == names and exported.class_names == ()
  images = biggan.sample(range(4), labels=['3', 7], standing=1)
  np.testing.assert_array_equal(
    images, biggan.sample(range(4), labels='3,7', standing=1)
  )
  np.testing.assert_array_equal(
    images, biggan.sample(range(4), labels=np.array([3, 7]), standing=1)
  )


def test_raw_weights(digits_run, biggan):
  raw = load(digits_run, ema=False)
  got = raw.sample(range(2), labels=1, standing=0)
  assert (got != biggan.sample(range(2), labels=1, standing=0)).any()
  gan, mesh = raw.gan, make_mesh()
  shapes, _ = jax.eval_shape(gan.init, jax.random.key(0))
  parts, _ = checkpoint.restore_subtrees(digits_run, {'g': shapes})
  seeds = np.arange(8, dtype=np.uint32)
  z, classes = samplers.latents(seeds, gan.dim_z), np.eye(10, dtype=np.float32)[[1] * 8]
  want = samplers.make_sampler(gan, mesh)(parts['g'], z, classes, 1.0, seeds, 1.0)
  assert np.abs(got.astype(int) - np.asarray(want)[:2]).max() <= 1


def test_a_mixing_grid_as_arrays(stylegan_run, tmp_path, draw):
  flags = [f'--workdir={stylegan_run}', '--num=2', '--mix=5-7', '--mix_layers=0-3']
  images = command_images(tmp_path / 'a.npz', *flags)
  assert len(images) == 2 + 3 + 6
  np.testing.assert_array_equal(images[:5], draw(seeds='0-1,5-7'))
  with np.load(tmp_path / 'a.npz') as z:
    assert len(z['labels']) == len(z['seeds']) == 11


def test_what_a_loaded_generator_says_of_itself(biggan, stylegan, exported):
  assert (biggan.n_classes, biggan.resolution) == (10, 16)
  assert (stylegan.n_classes, stylegan.resolution) == (0, 8)
  assert (exported.n_classes, exported.resolution) == (10, 16)
  assert exported.defaults == biggan.defaults == (1, np.inf, 2)
  assert biggan.gan.dim_z == exported.dim_z


def test_load_is_public():
  assert gan_jax.load is load


@pytest.mark.parametrize(
  'options, words',
  [
    ({'labels': 10}, 'classes are 0-9'),
    ({'truncation': 0}, '--truncation=0: it must be above 0'),
    ({'noise': 'off'}, '--noise is for a StyleGAN'),
    ({'seeds': [-1]}, 'give numbers such as'),
    ({'seeds': []}, 'give numbers such as'),
    ({'seeds': [1.5]}, 'seeds: 1.5 is not an integer'),
    ({'labels': []}, 'labels: there are none'),
    ({'labels': 'four'}, "no class is named 'four'"),
    ({'labels': [0.5]}, 'labels: 0.5 is not an integer'),
    ({'labels': -1}, '--classes=-1: '),
    ({'psi': float('nan')}, '--psi=nan: a finite number is needed'),
  ],
)
def test_mistakes_in_sample(biggan, options, words):
  with pytest.raises(UserError, match=words):
    biggan.sample(**options)


def test_labels_of_a_model_without_classes(stylegan):
  for labels in (0, 'cat', [1, 2]):
    with pytest.raises(UserError, match='labels: this model has no classes'):
      stylegan.sample(range(2), labels=labels)


def test_mistakes_in_load(digits_run, tmp_path):
  with pytest.raises(UserError, match='not the folder of a run'):
    load(tmp_path / 'missing')
  with pytest.raises(UserError, match=r'missing.stablehlo cannot be read: No such'):
    load(tmp_path / 'missing.stablehlo')
  with pytest.raises(UserError, match='no checkpoint 77: there are 2'):
    load(digits_run, checkpoint=77)
  (tmp_path / 'file').write_bytes(b'something else')
  with pytest.raises(UserError, match='file is no generator that'):
    load(tmp_path / 'file')
  with pytest.raises(UserError, match='file is an exported generator'):
    load(tmp_path / 'file', checkpoint=1)
  with pytest.raises(UserError, match='ema=False: .*file is an exported generator'):
    load(tmp_path / 'file', ema=False)
  shutil.copy(digits_run / 'config.json', tmp_path)
  with pytest.raises(UserError, match='no checkpoints'):
    load(tmp_path)


def test_the_showcase_draws_what_its_classes_say():
  showcase = load('showcase')
  names = ('clock', 'face', 'flag', 'heart', 'moon', 'person')
  assert (showcase.class_names, showcase.resolution) == (names, 32)
  images = showcase.sample(range(16), labels=['face', 'clock'], standing=0) / 255.0
  faces, clocks = images[::2], images[1::2]
  assert images[:, 0, 0].min() > 0.9, 'the background is white'
  red, green, blue = np.median(faces[:, 8:24, 8:24], axis=(0, 1, 2))
  assert red > 0.85 and green > 0.6 and blue < 0.4, 'faces are yellow'
  assert np.median(clocks[:, 8:24, 8:24]) > 0.9, 'dials are white'
