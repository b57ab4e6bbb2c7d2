"""Winograd's convolution and its gradients against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import convolution, winograd


def plain(x, k):
  return jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.mark.parametrize('size', [(4, 4), (8, 12)])
def test_values_and_gradients_are_the_convolution_s(size, rng_seed):
  rng = np.random.default_rng(rng_seed)

  def scalar(f):
    return lambda *args: jnp.sum(jnp.sin(f(*args)))

  def penalty(f):  # what R1 and the gradient penalty do
    return lambda x, k: jnp.sum(jax.grad(scalar(f))(x, k) ** 2)

  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, *size, 3)))
    k = jnp.asarray(rng.normal(size=(3, 3, 3, 5)))
    np.testing.assert_allclose(winograd.conv(x, k), plain(x, k), atol=1e-12)
    for made in (scalar, penalty):
      ours, theirs = (jax.grad(made(f), (0, 1))(x, k) for f in (winograd.conv, plain))
      for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_rounding_is_a_few_times_that_of_the_sum(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = rng.normal(size=(1, 16, 16, 256))
  k = rng.normal(size=(3, 3, 256, 16)) / 48
  with jax.enable_x64(True):
    exact = np.asarray(plain(jnp.asarray(x), jnp.asarray(k)))
  y = winograd.conv(jnp.float32(x), jnp.float32(k))
  assert np.sqrt(np.mean((y - exact) ** 2)) < 3e-6 * np.sqrt(np.mean(exact**2))


def test_it_is_taken_for_many_pixels_and_channels(monkeypatch):
  shaped = lambda b, size, c, dtype=jnp.float32: jax.ShapeDtypeStruct(
    (b, size, size, c), dtype
  )
  kernel = lambda c, o, size=3: jax.ShapeDtypeStruct((size, size, c, o), jnp.float32)
  pays = convolution.winograd_pays
  assert pays(shaped(32, 16, 256), kernel(256, 256))
  assert pays(shaped(32, 16, 256), kernel(256, 64))
  assert pays(shaped(8, 32, 64), kernel(64, 64))
  assert not pays(shaped(7, 32, 64), kernel(64, 64))
  assert not pays(shaped(32, 16, 256), kernel(256, 60))
  assert not pays(shaped(32, 18, 256), kernel(256, 256))
  assert not pays(shaped(32, 16, 256), kernel(256, 256, 1))
  assert not pays(shaped(32, 16, 256, jnp.bfloat16), kernel(256, 256))
  taken = []
  monkeypatch.setattr(winograd, 'conv', lambda x, k: taken.append(1) or plain(x, k))
  for device in ('cpu', 'tpu', 'gpu', ''):
    monkeypatch.setattr(convolution, 'platform', lambda device=device: device)
    jax.eval_shape(convolution.conv, shaped(32, 16, 256), kernel(256, 256))
  assert len(taken) == 1
