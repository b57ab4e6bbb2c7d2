"""The batch on devices: independence, starts in z, compiles."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import gan_jax
from gan_jax.project import projection
from gan_jax.project.comparison import PIXELS
from gan_jax.project.spaces import Renderer
from gan_jax.runtime.mesh import make_mesh


def make_batch(workdir, n, space='w', devices=1, labels=None, seed=0):
  generator = gan_jax.load(workdir)
  gan, res = generator.gan, generator.resolution
  shape = (n, res, res, gan.channels)
  targets = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  mesh = make_mesh(jax.devices()[:devices])
  render = Renderer(gan, space, res, generator.phase.alpha)
  return projection.Batch(
    render, generator.sampled_variables(), PIXELS, targets, labels, mesh
  )


def project(batch, steps=3):
  """What was optimized, after some steps."""
  start = projection.begin(batch, seed=1)
  *_, (now, _) = projection.run(batch, start, steps, 1, 10.0)
  return jax.tree.map(lambda x: np.asarray(x)[: batch.n], now.state.variables)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(projection.spaces, 'SAMPLES', 64)
  monkeypatch.setattr(projection, 'CANDIDATES', 4)


def test_images_do_not_depend_on_devices_nor_on_each_other(stylegan_run):
  three = project(make_batch(stylegan_run, 3, 'w+'))
  sharded = project(make_batch(stylegan_run, 3, 'w+', devices=4))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), three, sharded
  )
  assert three['latent'].std(1).max() > 1e-3  # layers differ
  one = make_batch(stylegan_run, 3, 'w+')
  alone = projection.Batch(
    one.render, one.g, PIXELS, np.asarray(one.images)[1:2], None, one.mesh
  )
  found = project(alone)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-4),
    three,
    found,
  )


def test_z_keeps_the_length_that_the_network_gives_it():
  z = np.array([[3.0, 4.0], [0.3, 0.4]], np.float32)
  for space, normalizes in (('z', True), ('z', False), ('w', True)):
    gan = SimpleNamespace(normalize_z=normalizes)
    render = Renderer(gan, space, 8, 1.0)
    found = render.constrained({'latent': z, 'classes': z})
    np.testing.assert_array_equal(found['classes'], z)
    length = np.sqrt(np.square(found['latent']).mean(-1))
    scaled = (space, normalizes) == ('z', True)
    own = np.sqrt(np.square(z).mean(-1))
    np.testing.assert_allclose(length, [1, 1] if scaled else own, rtol=1e-6)


def test_one_program_for_all_steps_and_no_step_at_first(stylegan_run):
  batch = make_batch(stylegan_run, 1)
  start = projection.begin(batch, 1)
  latent = np.asarray(start.state.variables['latent'])
  step = projection.make_step(batch, 1, 10.0, start.state)
  deviation = batch.place(start.deviation)
  values = lambda i, lr: (deviation, np.int32(i), np.float32(lr), np.float32(0))
  state, _ = step(start.state, *values(0, 0.0))
  np.testing.assert_array_equal(state.variables['latent'], latent)
  with jax.no_tracing():
    state, _ = step(state, *values(1, 0.1))
  assert not np.array_equal(state.variables['latent'], latent)


def test_z_starts_from_the_best_candidate_and_finds_the_class(digits_run):
  batch = make_batch(digits_run, 2, 'z')
  variables, deviation = projection.make_start(batch, 0)
  z = np.random.RandomState(123).randn(10, batch.render.gan.dim_z).astype(np.float32)
  assert batch.optimizes_classes
  each = []
  for i in range(10):  # as many as there are classes
    weights = np.full((2, 10), 0.1 / 9, np.float32)
    weights[:, i] = 0.9
    chosen = {'latent': np.tile(z[i], (2, 1)), 'classes': np.log(weights)}
    each.append(batch.distances(batch.place(chosen)))
  best = np.argmin(each, 0)
  np.testing.assert_array_equal(variables['latent'], z[best])
  np.testing.assert_array_equal(np.asarray(variables['classes']).argmax(-1), best)
  np.testing.assert_allclose(deviation, np.sqrt(batch.render.gan.dim_z))
  given = make_batch(digits_run, 2, 'z', labels=np.array([3, 7]))
  assert not given.optimizes_classes
  np.testing.assert_array_equal(np.asarray(given.classes).argmax(-1), [3, 7])
