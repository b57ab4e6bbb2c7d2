"""The jitted samplers: truncated latents, compiles, standing batch statistics."""

import jax
import numpy as np
import pytest
from scipy import stats

from gan_jax.config.workdir import read_config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.storage import checkpoint


@pytest.fixture(scope='module')
def restored(digits_run):
  gan = read_config(digits_run).gan
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  return gan, checkpoint.restore_subtrees(digits_run, {'ema': g})[0]['ema']


def test_truncated_latents_follow_a_truncated_normal():
  seeds = np.arange(2000, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, 8, 0.7)).ravel()
  assert np.abs(z).max() <= 0.7
  assert stats.kstest(z, stats.truncnorm(-0.7, 0.7).cdf).pvalue > 1e-3
  untruncated = np.asarray(samplers.latents(seeds, 8)).ravel()
  assert stats.kstest(untruncated, 'norm').pvalue > 1e-3
  again = samplers.latents(seeds[5:7], 8)
  np.testing.assert_array_equal(again, untruncated.reshape(2000, 8)[5:7])


def test_a_truncation_sweep_compiles_once(restored):
  gan, g = restored
  sample = samplers.make_sampler(gan, make_mesh())
  seeds = np.arange(8, dtype=np.uint32)
  classes = np.eye(10, dtype=np.float32)[seeds]
  sweep = [
    np.asarray(
      sample(g, samplers.latents(seeds, gan.dim_z, t), classes, psi, seeds, 1.0)
    )
    for t, psi in ((np.inf, 1.0), (1.0, 1.0), (0.5, 1.0), (np.inf, 0.3))
  ]
  assert sample._cache_size() == 1
  assert sweep[0].dtype == np.uint8 and sweep[0].shape == (8, 16, 16, 1)
  for images in sweep[1:]:
    assert (images != sweep[0]).any()


def test_images_do_not_depend_on_devices_and_batch_size(restored):
  gan, g = restored
  seeds = np.arange(11, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, gan.dim_z))
  classes = np.eye(10, dtype=np.float32)[seeds % 10]
  images = []
  for devices, batch in ((1, 11), (4, 4)):
    g_local = jax.device_get(g)
    sample = samplers.make_sampler(gan, make_mesh(jax.devices()[:devices]))
    draw = lambda z, c, s, f=sample, g=g_local: f(g, z, c, 1.0, s, 1.0)
    batches = samplers.run_in_batches(draw, (z, classes, seeds), batch)
    images.append(np.concatenate(list(batches)).astype(int))
  assert np.abs(images[0] - images[1]).max() <= 1
  assert len(images[0]) == 11


def test_standing_statistics_are_those_of_the_batches(restored):
  gan, g = restored
  g = jax.device_get(g)
  out = [
    samplers.standing_statistics(gan, make_mesh(jax.devices()[:n]), g, 2, 16)
    for n in (1, 4)
  ]
  for a, b in zip(*(jax.tree.leaves(o['batch_stats']) for o in out), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  # The first norm sees the output of the first layer, which is computed here in numpy.
  seeds = np.uint32(2**32 - 1) - np.arange(32, dtype=np.uint32)
  z = np.asarray(samplers.latents(seeds, gan.dim_z))
  linear = g['params']['linear']
  kernel = np.asarray(linear['kernel'])
  u = np.asarray(g['spectral']['linear']['u'])[0]
  means = []
  for batch in np.split(z, 2):
    v = kernel @ u
    v /= np.linalg.norm(v)
    u = v @ kernel
    sigma = np.linalg.norm(u)
    u = u / sigma
    x = batch[:, : kernel.shape[0]] @ (kernel / sigma) + linear['bias']
    means.append(x.reshape(-1, x.shape[1] // 16).mean(0))
  mean = np.asarray(out[0]['batch_stats']['block0']['bn1']['stats']['mean'])[0, 0, 0]
  np.testing.assert_allclose(mean, np.mean(means, 0), atol=1e-5)
