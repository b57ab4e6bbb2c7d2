"""Images of latents from files and of NumPy's seeds: the images they came from."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.stats import truncnorm

from gan_jax import UserError, sample
from gan_jax.models.base import to_uint8
from gan_jax.sampling.generator import TrainedGenerator, load
from gan_jax.sampling.latents import Latents, load_latents
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.planning import interpolate


@pytest.fixture(scope='module')
def stylegan(stylegan_run):
  return TrainedGenerator(stylegan_run)


@pytest.fixture(scope='module')
def biggan(digits_run):
  return load(digits_run)


def draw(generator, **options):
  planned = generator.plan(SamplingOptions(batch=8, standing=0, **options))
  return np.concatenate(list(planned.images)), planned


STYLEGAN = [
  ({'seeds': '3,9'}, 'z'),
  ({'seeds': 'numpy:3,9', 'psi': 0.5}, 'z'),
  ({'seeds': '3,9', 'interpolate': 'z', 'frames': 2, 'noise_seed': 4}, 'z'),
  ({'seeds': '3,9', 'interpolate': 'w', 'frames': 2}, 'w_plus'),
  ({'seeds': '3,9', 'mix': 'numpy:5', 'mix_layers': '0-1'}, 'w_plus'),
  ({'seeds': '3-9', 'only': 2}, 'z'),
]


@pytest.mark.parametrize('options, space', STYLEGAN)
def test_saved_latents_of_a_stylegan_give_the_same_images(stylegan, options, space):
  images, planned = draw(stylegan, **options)
  assert planned.latents.space == space and len(planned.latents) == len(images)
  again = stylegan.plan(SamplingOptions(batch=8), planned.latents)
  np.testing.assert_array_equal(np.concatenate(list(again.images)), images)
  assert again.latents.space == space
  np.testing.assert_array_equal(again.latents.values, planned.latents.values)


@pytest.mark.parametrize(
  'options',
  [
    {'seeds': '3,9', 'truncation': 0.5},
    {'seeds': 'numpy:0-2', 'psi': 0.4, 'classes': '2,7'},
    {'seeds': '3', 'interpolate': 'class', 'classes': '1,2', 'frames': 2},
    {'seeds': '3,4', 'grid': True, 'classes': '1,2'},
  ],
)
def test_saved_latents_of_a_biggan_give_the_same_images(biggan, options):
  images, planned = draw(biggan, **options)
  again = biggan.plan(SamplingOptions(batch=8, standing=0), planned.latents)
  np.testing.assert_array_equal(np.concatenate(list(again.images)), images)
  assert (again.psi, again.truncation) == (planned.psi, planned.truncation)
  np.testing.assert_array_equal(again.classes, planned.classes)


def test_the_commands_write_and_read_latents(stylegan_run, tmp_path):
  run, file = f'--workdir={stylegan_run}', tmp_path / 'new' / 'latents.npz'
  flags = [run, '--seeds=numpy:639,4', '--psi=0.6', f'--save_latents={file}']
  sample.main([*flags, f'--out={tmp_path}/a.npz'])
  z = load_latents(file).values
  for row, seed in zip(z, (639, 4), strict=True):
    want = np.random.RandomState(seed).randn(1, z.shape[1])
    np.testing.assert_array_equal(row[None], want.astype(np.float32))
  sample.main([run, f'--latents={file}', f'--out={tmp_path}/b.npz'])
  with np.load(tmp_path / 'a.npz') as a, np.load(tmp_path / 'b.npz') as b:
    assert {*a.files} == {*b.files}
    for name in a.files:
      np.testing.assert_array_equal(a[name], b[name])


def test_numpy_seeds_of_a_biggan_are_those_of_the_original(biggan):
  images, planned = draw(biggan, seeds='numpy:5,7', psi=0.5)
  state = [np.random.RandomState(seed) for seed in (5, 7)]
  size = 1, biggan.gan.dim_z
  want = [truncnorm.rvs(-2, 2, size=size, random_state=s) for s in state]
  z = planned.latents.values
  np.testing.assert_array_equal(z, np.concatenate(want).astype(np.float32))
  assert (planned.psi, planned.truncation) == (0.5, 2)
  for options, threshold in (({}, 2), ({'truncation': 0.7}, 0.7)):
    _, planned = draw(biggan, seeds='numpy:5', **options)
    assert planned.truncation == threshold
  _, planned = draw(biggan, seeds='numpy:5', truncation=float('inf'))
  normal = np.random.RandomState(5).randn(1, biggan.gan.dim_z)
  np.testing.assert_array_equal(planned.latents.values, normal.astype(np.float32))


def test_python_takes_latents_and_numpy_seeds(stylegan, tmp_path):
  z = np.random.RandomState(8).randn(1, stylegan.gan.dim_z)
  images = stylegan.sample('numpy:8', noise='stored')
  for latents in (z, Latents('z', z.astype(np.float32))):
    same = stylegan.sample(latents=latents, noise='stored')
    np.testing.assert_array_equal(same, images)
  np.savez(tmp_path / 'z.npz', z=z)
  same = stylegan.sample(latents=tmp_path / 'z.npz', noise='stored')
  np.testing.assert_array_equal(same, images)
  with pytest.raises(UserError, match='seeds and latents exclude each other'):
    stylegan.sample([1], latents=z)
  with pytest.raises(UserError, match='latents: z has the shape'):
    stylegan.sample(latents=z[0])


def test_a_film_from_photograph_to_photograph_ends_at_their_projections(stylegan):
  """The noise maps of a projection hold detail: they pass into each other too."""
  gan, rng = stylegan.gan, np.random.default_rng(0)
  w = rng.normal(size=(3, gan.dim_w)).astype(np.float32)
  noise = tuple(
    rng.normal(size=(3, *size, 1)).astype(np.float32) for size in gan.sizes(gan.res)
  )
  given = Latents('w', w, noise=noise)
  photographs, _ = draw_given(stylegan, given)
  frames, planned = draw_given(stylegan, given, interpolate='w', frames=4)
  np.testing.assert_array_equal(frames[::4], photographs)
  for x, made in zip(noise, planned.latents.noise, strict=True):
    assert len(made) == 9
    rms = np.sqrt(np.square(made).mean((1, 2, 3)))
    own = np.sqrt(np.square(x).mean((1, 2, 3)))
    np.testing.assert_allclose(rms, interpolate(own, 4), rtol=1e-5)
    between, mean = made[2].ravel(), (x[0] + x[1]).ravel()
    lengths = np.linalg.norm(between) * np.linalg.norm(mean)
    np.testing.assert_allclose(between @ mean / lengths, 1, rtol=1e-5)


def draw_given(generator, latents, **options):
  planned = generator.plan(SamplingOptions(batch=8, **options), latents)
  return np.concatenate(list(planned.images)), planned


def test_w_is_taken_as_it_is_or_truncated(stylegan):
  gan, g = stylegan.gan, stylegan._restored.g
  rng = np.random.default_rng(0)
  w = rng.normal(size=(2, gan.dim_w)).astype(np.float32)
  n = gan.layers(gan.res)
  noise = tuple(
    rng.normal(size=(2, *size, 1)).astype(np.float32) for size in gan.sizes(gan.res)
  )
  synthesize = jax.jit(gan.synthesize)
  for psi in (1.0, 0.5):
    ws = gan.truncate(g, w, np.where(np.arange(n) < gan.truncated_layers, psi, 1))
    want = to_uint8(synthesize(g, ws, noise))
    given = Latents('w', w, noise=noise)
    option = {} if psi == 1 else {'psi': psi}
    images = np.concatenate(
      list(stylegan.plan(SamplingOptions(**option), given).images)
    )
    assert np.abs(images.astype(int) - want).max() <= 1
    plus = Latents('w_plus', np.asarray(ws), noise=noise)
    again = np.concatenate(list(stylegan.plan(SamplingOptions(), plus).images))
    np.testing.assert_array_equal(again, images)
  quiet = stylegan.plan(SamplingOptions(noise='off'), given)
  silent = dataclasses.replace(given, noise=tuple(np.zeros_like(x) for x in noise))
  silent = stylegan.plan(SamplingOptions(), silent)
  pairs = zip(quiet.images, silent.images, strict=True)
  assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in pairs)


def test_given_latents_are_mixed_with_seeds(stylegan):
  w = np.random.default_rng(1).normal(size=(1, stylegan.gan.dim_w)).astype(np.float32)
  options = SamplingOptions(mix='5,6', mix_layers='2-3', noise='stored')
  mixed = np.concatenate(list(stylegan.plan(options, Latents('w', w)).images))
  assert len(mixed) == 1 + 2 + 2
  own = stylegan.sample(latents=Latents('w', w), noise='stored')
  np.testing.assert_array_equal(mixed[:1], own)
  np.testing.assert_array_equal(mixed[1:3], stylegan.sample([5, 6], noise='stored'))
  assert (mixed[3:] != own).any()


@pytest.mark.parametrize(
  'options, space, words',
  [
    ({'interpolate': 'z'}, 'w', '--interpolate=z: the latents hold w; --interpolate=w'),
    ({'interpolate': 'w', 'only': 9}, 'w', '--only=9: images are 0-8'),
    ({'grid': True}, 'z', '--grid: this model has no classes'),
    ({'mix': '4', 'mix_layers': '9'}, 'w', '--mix_layers=9: layers are 0-3'),
  ],
)
def test_what_given_latents_cannot_do(stylegan, options, space, words):
  dim = {'z': stylegan.gan.dim_z, 'w': stylegan.gan.dim_w}[space]
  latents = Latents(space, np.eye(2, dim, dtype=np.float32))
  with pytest.raises(UserError, match=words):
    stylegan.plan(SamplingOptions(**options), latents)


def test_bad_latents_are_refused_before_anything_compiles(
  stylegan_run, digits_run, tmp_path, monkeypatch
):
  np.savez(tmp_path / 'w.npz', w=np.zeros((1, 3)))
  np.savez(tmp_path / 'other.npz', z=np.zeros((1, 3)), model='biggan-16-0123')
  (tmp_path / 'text.npz').write_text('no file of latents')
  monkeypatch.setattr(jax, 'jit', lambda *_, **__: pytest.fail('compiles'))
  for run, flags, words in (
    (stylegan_run, '--latents=w.npz', 'w is 3 for each image'),
    (digits_run, '--latents=w.npz', 'holds w, which is for a StyleGAN'),
    (digits_run, '--latents=other.npz', 'latents of another model, biggan-16-0123'),
    (digits_run, '--latents=text.npz', 'corrupted or no .npz file of latents'),
    (digits_run, '--latents=none.npz', 'cannot be read: No such file'),
    (digits_run, '--latents=w.npz --seeds=1', '--seeds and --latents exclude'),
    (digits_run, '--seeds=numpy:1-x', '--seeds=numpy:1-x: give numbers such as 0-63'),
    (digits_run, '--seeds=1 --save_latents=a.txt', 'a .npz file is written'),
    (digits_run, '--seeds=1 --direction=up', 'directions.npz does not exist'),
    (digits_run, '--seeds=1 --direction=up:x', '--direction=up:x: give names with'),
  ):
    inside = flags.replace('latents=', f'latents={tmp_path}/').split()
    with pytest.raises(UserError, match=words):
      sample.main([f'--workdir={run}', f'--out={tmp_path}/a.png', *inside])
  assert not (tmp_path / 'a.png').exists()
