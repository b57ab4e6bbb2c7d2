"""Perceptual path length of generators whose path length is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import perceptual_path_length as ppl
from gan_jax.models.stylegan import StyleGAN
from gan_jax.runtime.mesh import make_mesh


class Sphere:
  """A generator whose image is z, one pixel per entry."""

  dim_z, n_classes, style_based = 6, 0, None

  def generate(self, g, z, labels):
    del labels
    return g['size'] * z[:, None, :, None]


def squared_distance(a, b):
  return jnp.square(a - b).sum((1, 2)).mean(-1)


def test_path_length_on_a_sphere():
  seeds = np.arange(203, dtype=np.uint32)
  path = ppl.Path('z', 'full')
  ((ends, _),) = ppl.sample_endpoints(Sphere(), path, seeds, 203)
  z0, z1 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (ends.z0, ends.z1))
  angles = np.arccos((z0 * z1).sum(1))
  expected = ppl.trimmed_mean(6 * 4 * angles**2)
  for devices, batch in ((1, 203), (8, 64)):
    mesh = make_mesh(jax.devices()[:devices])
    length = ppl.path_length(
      Sphere(), {'size': 2.0}, path, squared_distance, seeds, mesh, batch
    )
    # Differences in float32 over a step of 1e-4.
    assert length == pytest.approx(expected, rel=2e-2)


def test_families_without_w_and_non_finite_lengths_are_errors():
  mesh = make_mesh()
  with pytest.raises(UserError, match='this is a Sphere'):
    ppl.make_path_length(Sphere(), ppl.Path('w', 'end'), squared_distance, mesh)
  seeds = np.arange(16, dtype=np.uint32)
  with pytest.raises(UserError, match='seed 0 is non-finite'):
    ppl.path_length(
      Sphere(), {'size': np.nan}, ppl.Path('z', 'full'), squared_distance, seeds, mesh
    )


def test_outliers_do_not_count():
  assert ppl.trimmed_mean(np.array([1e9, *np.ones(300), -1e9])) == 1


def test_path_length_in_w_is_that_of_the_synthesis_network():
  gan = StyleGAN(
    res=8, dim_z=8, dim_w=8, mapping_layers=2, mapping_width=8, g_widths=(8, 8, 8),
    d_widths=(8, 8, 8),
  )  # fmt: skip
  g, _ = jax.jit(gan.init)(jax.random.key(0))
  path, mesh = ppl.Path('w', 'end'), make_mesh()
  distance = lambda a, b: jnp.square(a - b).mean((1, 2, 3))
  ((ends, _),) = ppl.sample_endpoints(gan, path, np.arange(8, dtype=np.uint32), 8)
  assert not ends.t.any()
  compiled = ppl.make_path_length(gan, path, distance, mesh, epsilon=1e-2)

  @jax.jit
  def images(g, z0, z1, labels, t):
    w0, w1 = gan.w(g, z0, labels), gan.w(g, z1, labels)
    w = w0 + t * (w1 - w0)
    return gan.synthesize(g, jnp.repeat(w[:, None], gan.layers(8), 1))

  a, b = (
    np.asarray(images(g, ends.z0, ends.z1, ends.labels, np.float32(t)))
    for t in (0, 0.01)
  )
  expected = np.square(a - b).mean((1, 2, 3)) / 1e-4
  np.testing.assert_allclose(compiled(g, *ends), expected, rtol=1e-3)


def test_only_the_crop_is_compared(rng_seed):
  class Board(Sphere):
    def generate(self, g, z, labels):
      moving = jnp.arange(64)[None, :, None, None] * z[:, :1, None, None]
      return g['where'] * moving * jnp.ones((1, 1, 64, 1))

  rng = np.random.default_rng(rng_seed)
  seeds = rng.integers(0, 2**31, 16).astype(np.uint32)
  ((ends, _),) = ppl.sample_endpoints(Board(), ppl.Path('z', 'full'), seeds, 16)

  def length(where, crop):
    path = ppl.Path('z', 'full')
    compiled = ppl.make_path_length(
      Board(), path, squared_distance, make_mesh(), crop=crop
    )
    return np.asarray(compiled({'where': where}, *ends))

  inside = np.zeros((1, 64, 64, 1), np.float32)
  inside[:, 24:56, 16:48] = 1
  assert (length(inside, False) > 0).all()
  np.testing.assert_allclose(
    length(inside, True), length(np.ones_like(inside), True), rtol=1e-6
  )
  assert not length(1 - inside, True).any() and length(1 - inside, False).any()


def test_fresh_noise_is_shared_by_a_batch_and_by_both_ends_of_a_step():
  gan = StyleGAN(
    res=8, dim_z=8, dim_w=8, mapping_layers=1, mapping_width=8, g_widths=(8, 8, 8),
    d_widths=(8, 8, 8),
  )  # fmt: skip
  g, _ = jax.jit(gan.init)(jax.random.key(0))
  g = gan.with_noise(jax.tree.map(np.asarray, g), 1.0)
  for layer in g['params']['synthesis'].values():
    if 'strength' in layer:
      layer['strength'] = np.ones_like(layer['strength'])
  mesh = make_mesh(jax.devices()[:1])
  seen = lambda a, b: a[:, 1, 2].mean(-1)
  path = ppl.Path('w', 'end')
  ((ends, _),) = ppl.sample_endpoints(gan, path, np.arange(4, dtype=np.uint32), 4)
  same = ends._replace(z0=ends.z0[[0] * 4], z1=ends.z1[[0] * 4])  # one path, four times
  compiled = ppl.make_path_length(gan, path, seen, mesh, 1.0, fresh_noise=True)
  first = np.asarray(compiled(g, *same))
  np.testing.assert_allclose(first, first[0], rtol=1e-5)
  other = np.asarray(compiled(g, *same._replace(seeds=ends.seeds + 1)))
  assert np.abs(other - first).min() > 1e-4
  step = ppl.make_path_length(
    gan, path, lambda a, b: jnp.abs(a - b).max((1, 2, 3)), mesh, 1e-6, fresh_noise=True
  )
  assert np.asarray(step(g, *same)).max() * 1e-12 < 1e-3  # no noise between both ends
