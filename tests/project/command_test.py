"""The command on a tiny StyleGAN: results, resuming, fine-tuning, mistakes."""

import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import gan_jax
from gan_jax import UserError
from gan_jax.project import folder, spaces, tuning
from gan_jax.project.__main__ import main
from gan_jax.project.targets import read_targets
from gan_jax.sampling.latents import load_latents
from gan_jax.storage.lock import lock_workdir

FLAGS = ['--loss=pixels', '--steps=4', '--save_every=2', '--film=gif']


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Two images of other sizes than the model's, one of them transparent."""
  root = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8)).save(root / 'a.png')
  Image.fromarray(rng.integers(0, 256, (9, 9, 4), np.uint8)).save(root / 'b.png')
  return [str(root / 'a.png'), str(root / 'b.png')]


@pytest.fixture(scope='module', autouse=True)
def few_samples():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(spaces, 'SAMPLES', 64)
    yield


@pytest.fixture(scope='module')
def call(stylegan_run, photos):
  """Calls the command on the photos."""

  def run(out, *flags):
    main([*photos, f'--workdir={stylegan_run}', f'--out={out}', *FLAGS, *flags])

  return run


@pytest.fixture(scope='module')
def finished(call, tmp_path_factory):
  out = tmp_path_factory.mktemp('finished') / 'out'
  call(out)
  return out


def arrays(path):
  with np.load(path) as z:
    return {name: z[name] for name in z.files}


def test_what_is_written(finished, photos, stylegan_run):
  names = {path.name for path in finished.iterdir()}
  assert names == {
    *('film.gif', 'latents.npz', 'owner.json', 'project.json', 'results.json'),
    *('side_by_side.png', 'state.npz'),
  }
  rows = json.loads((finished / 'results.json').read_text())['images']
  assert [row['image'] for row in rows] == photos
  for row in rows:
    assert row['pixels'] < row['start'] and 4 < row['psnr'] < 30
    # Not more than that of images that are not clipped.
    assert row['psnr'] > 10 * np.log10(4 / row['pixels']) - 0.1
  latents = load_latents(finished / 'latents.npz')
  generator = gan_jax.load(stylegan_run)
  style = generator.gan.style_based
  assert latents.space == 'w' and latents.values.shape == (2, style.dim_w)
  sizes = style.sizes(generator.resolution)
  assert [x.shape for x in latents.noise] == [(2, *size, 1) for size in sizes]
  for x in latents.noise:
    np.testing.assert_allclose(x.mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(np.square(x).mean((1, 2, 3)), 1, rtol=1e-5)
  images = generator.sample(latents=finished / 'latents.npz')
  shape = (generator.gan.size(generator.resolution), 3, False, (255, 255, 255))
  square = np.square(
    images - np.float64(read_targets([*map(Path, photos)], *shape).images)
  )
  found = 10 * np.log10(255**2 / square.mean((1, 2, 3)))
  np.testing.assert_allclose(found, [row['psnr'] for row in rows], rtol=1e-3)
  with Image.open(finished / 'film.gif') as film:
    assert film.n_frames == 4  # the start, which the first step keeps, and each step


def test_a_call_again_changes_nothing(finished, call):
  before = {path: path.stat().st_mtime_ns for path in finished.glob('*.[pn]*')}
  call(finished)
  assert finished / 'latents.npz' in before
  for path, time in before.items():
    assert path.name == 'project.json' or path.stat().st_mtime_ns == time, path


def test_a_killed_projection_goes_on_bit_for_bit(finished, call, tmp_path, monkeypatch):
  save = folder.save_tree

  def killed(path, tree):
    save(path, tree)
    raise KeyboardInterrupt

  monkeypatch.setattr(folder, 'save_tree', killed)
  with pytest.raises(KeyboardInterrupt):
    call(tmp_path)
  monkeypatch.setattr(folder, 'save_tree', save)
  assert int(arrays(tmp_path / 'state.npz')['0000']) == 2
  assert not (tmp_path / 'latents.npz').exists()
  call(tmp_path)
  for name in ('state.npz', 'latents.npz'):
    expected, found = arrays(finished / name), arrays(tmp_path / name)
    assert expected.keys() == found.keys()
    for key in expected:
      np.testing.assert_array_equal(found[key], expected[key], f'{name} {key}')
  film = 'film.gif'
  assert (finished / film).read_bytes() == (tmp_path / film).read_bytes()


def test_a_tuned_generator_is_a_workdir(finished, call, stylegan_run, monkeypatch):
  # Features of this hardly trained network are almost constant: instance norm is steep.
  monkeypatch.setattr(tuning, 'ADAM', optax.adam(1e-6))
  call(finished, '--tune', '--tune_steps=3')
  rows = json.loads((finished / 'results.json').read_text())['images']
  total = lambda rows: sum(row['pixels'] for row in rows)
  assert total(row['tuned'] for row in rows) < total(rows)
  assert not (finished / 'tuning.npz').exists()
  before, after = (gan_jax.load(path) for path in (stylegan_run, finished / 'tuned'))
  changed = jax.tree.map(
    lambda a, b: not np.array_equal(a, b), before.variables, after.variables
  )
  assert any(jax.tree.leaves(changed['params']['synthesis']))
  assert not any(jax.tree.leaves(changed['params']['mapping']))
  assert after.step == before.step
  with pytest.raises(UserError, match='tune_steps 3, and this one has 350'):
    call(finished, '--tune')


@pytest.mark.parametrize(
  'flags, sentence',
  [
    (['--steps=5'], 'holds a projection with steps 4, and this one has 5: take ano'),
    (['--space=w+'], 'holds a projection with space w, and this one has w[+]'),
    (['--classes=0'], '^--classes: this model has no classes'),
    (['--tune_steps=3'], '^--tune_steps needs --tune'),
    (['--steps=0'], '^--steps=0: it must be at least 1'),
    (['--noise_weight=nan'], '^--noise_weight=nan: it must be at least 0'),
    (['--background=nosuch'], '^--background=nosuch: a color name'),
    (['--lpips=x'], '^--lpips is for --loss=lpips, and --loss=pixels is given'),
  ],
)
def test_mistakes(finished, call, flags, sentence):
  with pytest.raises(UserError, match=sentence):
    call(finished, *flags)


def test_a_folder_with_other_files_or_in_use_is_refused(call, tmp_path):
  (tmp_path / 'mine.txt').write_text('x')
  with pytest.raises(UserError, match='holds other files, such as mine.txt: take a n'):
    call(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']
  with lock_workdir(tmp_path / 'out'), pytest.raises(UserError, match='^--out=.*in us'):
    call(tmp_path / 'out')


def test_a_model_without_w_says_so(digits_run, photos, tmp_path):
  for space in ('w', 'w+'):
    flags = [f'--workdir={digits_run}', f'--space={space}', f'--out={tmp_path}/x']
    with pytest.raises(UserError, match='a BigGAN has --space=z'):
      main([*photos, *flags])
  assert not (tmp_path / 'x').exists()
