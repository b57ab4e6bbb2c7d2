"""Every form of a convolution against the plain one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import convolution
from gan_jax.ops.convolution import conv


def plain(x, k):
  return jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def scalar(f):
  return lambda *args: jnp.sum(jnp.sin(f(*args)))


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('c, o', [(3, 6), (6, 3), (6, 5)])
@pytest.mark.parametrize('at_once', [2, 100])
def test_a_cpu_s_convolutions_are_exact(c, o, size, at_once, monkeypatch, rng_seed):
  monkeypatch.setattr(convolution, '_IN_CACHE', at_once * 4 * 6 * c)
  rng = np.random.default_rng(rng_seed)

  def penalty(f):
    return lambda x, k: jnp.sum(jax.grad(scalar(f))(x, k) ** 2)

  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(5, 4, 6, c)))
    k = jnp.asarray(rng.normal(size=(size, size, c, o)))
    np.testing.assert_allclose(conv(x, k), plain(x, k), atol=1e-12)
    for made in (scalar, penalty):
      ours, theirs = (jax.grad(made(f), (0, 1))(x, k) for f in (conv, plain))
      for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('channels', [(3, 5), (5, 3), (2, 1)])
def test_few_channels_in_blocks_are_exact(channels, monkeypatch, rng_seed):
  monkeypatch.setattr(convolution, 'platform', lambda: 'tpu')
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 8, 4, channels[0])))
    k = jnp.asarray(rng.normal(size=(3, 3, *channels)))
    lowered = jax.jit(jax.grad(scalar(conv))).lower(x, k).as_text()
    assert 'stride = [4, 4]' in lowered  # in one of the two directions
    pairs = [(f(x, k), jax.grad(scalar(f), (0, 1))(x, k)) for f in (conv, plain)]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-11), *pairs)
    penalties = [
      jax.grad(lambda k, f=f: jnp.sum(jax.grad(scalar(f))(x, k) ** 2))(k)
      for f in (conv, plain)
    ]
    np.testing.assert_allclose(*penalties, rtol=1e-9, atol=1e-9)
