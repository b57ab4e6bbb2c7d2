"""The sampler: latents, truncation, statistics, and the files it writes."""

import importlib

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gan_jax import UserError, sample
from gan_jax.config import parse_config
from gan_jax.config.workdir import read_config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.storage import checkpoint
from gan_jax.training import trainer


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  trainer.Trainer(parse_config(config), folder).run()
  return folder


@pytest.fixture(scope='module')
def loaded(workdir):
  gan = read_config(workdir).gan
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  return gan, checkpoint.restore_ema(workdir, g)[0]


def test_truncated_latents_are_a_cut_normal():
  seeds = np.arange(2000, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, 8, 0.7)).ravel()
  assert np.abs(z).max() <= 0.7
  assert stats.kstest(z, stats.truncnorm(-0.7, 0.7).cdf).pvalue > 1e-3
  free = np.asarray(samplers.latents(seeds, 8)).ravel()
  assert stats.kstest(free, 'norm').pvalue > 1e-3
  again = samplers.latents(seeds[5:7], 8)
  np.testing.assert_array_equal(again, free.reshape(2000, 8)[5:7])


def test_a_truncation_sweep_compiles_once(loaded):
  gan, g = loaded
  draw_page = samplers.make_sampler(gan, make_mesh())
  seeds = np.arange(8, dtype=np.uint32)
  classes = np.eye(10, dtype=np.float32)[seeds]
  pages = [
    np.asarray(
      draw_page(g, samplers.latents(seeds, gan.dim_z, t), classes, psi, seeds, 1.0)
    )
    for t, psi in ((np.inf, 1.0), (1.0, 1.0), (0.5, 1.0), (np.inf, 0.3))
  ]
  assert draw_page._cache_size() == 1
  assert pages[0].dtype == np.uint8 and pages[0].shape == (8, 16, 16, 1)
  for page in pages[1:]:
    assert (page != pages[0]).any()


def test_devices_and_batches_change_nothing(loaded):
  gan, g = loaded
  seeds = np.arange(11, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, gan.dim_z))
  classes = np.eye(10, dtype=np.float32)[seeds % 10]
  pages = []
  for devices, batch in ((1, 11), (4, 4)):
    g_here = jax.device_get(g)
    draw_page = samplers.make_sampler(gan, make_mesh(jax.devices()[:devices]))
    draw = lambda z, c, s, f=draw_page, g=g_here: f(g, z, c, 1.0, s, 1.0)
    parts = samplers.run_in_batches(draw, (z, classes, seeds), batch)
    pages.append(np.concatenate(list(parts)).astype(int))
  assert np.abs(pages[0] - pages[1]).max() <= 1
  assert len(pages[0]) == 11


def test_standing_statistics_are_those_of_the_batches(loaded):
  gan, g = loaded
  g = jax.device_get(g)
  out = [
    samplers.standing_statistics(gan, make_mesh(jax.devices()[:n]), g, 2, 16)
    for n in (1, 4)
  ]
  for a, b in zip(*(jax.tree.leaves(o['batch_stats']) for o in out), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  # The first norm sees the first layer's output, which is easily had by hand.
  seeds = np.uint32(2**32 - 1) - np.arange(32, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, gan.dim_z))
  linear = g['params']['linear']
  kernel = np.asarray(linear['kernel'])
  row = np.asarray(g['spectral']['linear']['u'])[0]
  means = []
  for part in np.split(z, 2):
    v = kernel @ row
    v /= np.linalg.norm(v)
    row = v @ kernel
    sigma = np.linalg.norm(row)
    row = row / sigma
    x = part[:, : kernel.shape[0]] @ (kernel / sigma) + linear['bias']
    means.append(x.reshape(-1, x.shape[1] // 16).mean(0))
  got = np.asarray(out[0]['batch_stats']['block0']['bn1']['stats']['mean'])[0, 0, 0]
  np.testing.assert_allclose(got, np.mean(means, 0), atol=1e-5)


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def test_files(workdir, tmp_path, capsys):
  run = lambda *flags: sample.main([f'--workdir={workdir}', *flags])
  run(f'--out={tmp_path}/a.npz', '--num=20', '--truncation=0.5', '--standing=2')
  with np.load(tmp_path / 'a.npz') as z:
    assert z['images'].shape == (20, 16, 16, 1) and z['images'].dtype == np.uint8
    assert z['labels'].dtype == np.int32 and set(z['labels']) <= set(range(10))
    assert z['seeds'].tolist() == list(range(20))
    first = z['images'][3, :, :, 0]
  run(f'--out={tmp_path}/many', '--seeds=3', '--truncation=0.5', '--standing=2')
  np.testing.assert_array_equal(pixels(tmp_path / 'many' / '000000.png'), first)
  run(f'--out={tmp_path}/grid.png', '--grid', '--seeds=0-4', '--standing=0')
  assert pixels(tmp_path / 'grid.png').shape == (10 * 18 + 2, 5 * 18 + 2)
  run(
    f'--out={tmp_path}/z.png', '--interpolate=z', '--seeds=1,2,3', '--frames=6',
    '--classes=4', '--standing=0',
  )  # fmt: skip
  assert pixels(tmp_path / 'z.png').shape == (2 * 18 + 2, 6 * 18 + 2)
  written = {p.name for p in tmp_path.iterdir()}
  assert written == {'a.npz', 'grid.png', 'many', 'z.png'}


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--out=x.jpg'], 'x.jpg'),
    (['--out=x.png', '--seeds=a'], '--seeds=a'),
    (['--out=x.png', '--classes=10'], 'classes are 0-9'),
    (['--out=x.png', '--truncation=0'], 'above 0'),
    (['--out=x.png', '--checkpoint=77'], 'no checkpoint 77: there are 2'),
    (['--out=x.png', '--interpolate=z', '--seeds=1'], 'two seeds'),
  ],
)
def test_mistakes(workdir, flags, words):
  with pytest.raises(UserError, match=words):
    sample.main([f'--workdir={workdir}', *flags])


def test_a_folder_that_is_no_run(tmp_path):
  with pytest.raises(UserError, match='not the folder of a run'):
    sample.main([f'--workdir={tmp_path}', '--out=x.png'])
  with pytest.raises(UserError, match='no checkpoints'):
    checkpoint.restore_ema(tmp_path, {})
