"""Distances of images: LPIPS with its borders, alpha, pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import lpips
from gan_jax.project import comparison
from gan_jax.project.noise_maps import penalty_weight


@pytest.fixture
def tiny():
  """LPIPS with five stages of one 3 x 3 convolution, as VGG-16 has."""
  rng, channels, stages = np.random.default_rng(0), 3, []
  for width in (4, 4, 4, 4, 4):
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, width)), jnp.float32)
    stages.append(((kernel, jnp.zeros((1, 1, 1, width))),))
    channels = width
  return lpips.Lpips(tuple(stages), tuple(jnp.ones(4) for _ in range(5)))


def images(rng_seed, *shape):
  return np.random.default_rng(rng_seed).uniform(-1, 1, shape).astype(np.float32)


def compared(compare, a, b):
  distance = lambda a, b: compare.distance(compare.features(a), compare.features(b))
  return jax.jit(distance)(a, b)


def test_small_images_are_repeated_and_grey_ones_are_rgb(tiny, rng_seed):
  compare = comparison.lpips_comparison(tiny, 'lpips-tiny')
  a, b = images(rng_seed, 2, 2, 8, 8, 1)
  wide = lambda x: x.repeat(4, 1).repeat(4, 2).repeat(3, 3)
  expected = jax.jit(lpips.distance)(tiny, wide(a), wide(b))
  np.testing.assert_allclose(compared(compare, a, b), expected, rtol=1e-5)
  large = images(rng_seed, 1, 512, 512, 3)
  half = large.reshape(1, 256, 2, 256, 2, 3).mean((2, 4))
  shapes = [
    jax.eval_shape(compare.features, x)['lpips'][0].shape for x in (large, half)
  ]
  assert shapes[0] == shapes[1] == (1, 256, 256, 4)


def test_alpha_counts_besides_the_image_on_white(tiny, rng_seed):
  compare = comparison.lpips_comparison(tiny, 'lpips-tiny')
  a = images(rng_seed, 1, 32, 32, 4)
  a[..., :3] = 1
  clear, opaque = a.copy(), a.copy()  # the same on white
  clear[..., 3], opaque[..., 3] = -1, 1
  np.testing.assert_allclose(compared(compare, clear, opaque), 4, rtol=1e-5)


def test_the_gradient_of_equal_and_of_black_features_is_finite(tiny, rng_seed):
  dead = tiny._replace(
    stages=tuple(((k, b - 1e3),) for ((k, b),) in tiny.stages)  # ReLU gives 0
  )
  a = images(rng_seed, 1, 32, 32, 3)
  gradient = jax.jit(jax.grad(lambda x, w: lpips.distance(w, x, a).sum()))
  assert np.isfinite(gradient(a, tiny)).all()
  assert np.isfinite(gradient(a, dead)).all()


def test_without_weights_pixels_are_compared(monkeypatch):
  monkeypatch.setattr(lpips, 'PACKAGE', 'not_installed')
  monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
  compare, digest = comparison.make_comparison(None, None)
  assert (compare.name, digest) == ('pixels', '')
  with pytest.raises(UserError, match=r'^projecting with --loss=lpips needs .*\[lpips'):
    comparison.make_comparison('lpips', None)


def test_the_penalty_of_noise_is_that_of_the_original_at_1024_pixels():
  assert penalty_weight((1024, 1024)) == 1e5
  assert penalty_weight((32, 32)) == pytest.approx(1e5 / 1024)
