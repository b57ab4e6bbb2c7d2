"""Every form of resampling against the plain one, and which is taken where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax import layers, resampling, step


def scalar(f):
  return lambda *args: jnp.sum(jnp.sin(f(*args)))


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'name, form, plain',
  [
    ('up', 'phases', lambda x, k: resampling.conv(resampling.upsample(x), k)),
    ('down', 'phases', lambda x, k: resampling.downsample(resampling.conv(x, k))),
    ('down', 'strided', lambda x, k: resampling.downsample(resampling.conv(x, k))),
  ],
)
def test_every_form_of_resampling_is_exact(
  name, form, plain, device, size, monkeypatch, rng_seed
):
  monkeypatch.setattr(resampling, f'{name}_form', lambda *_: form)
  monkeypatch.setattr(resampling, 'platform', lambda: device)
  folded = getattr(resampling, f'{name}_conv')
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 6, 4, 3)))
    k = jnp.asarray(rng.normal(size=(size, size, 3, 5)))
    np.testing.assert_allclose(folded(x, k), plain(x, k), atol=1e-12)
    ours, theirs = (jax.grad(scalar(f), (0, 1))(x, k) for f in (folded, plain))
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-11)

    def penalty(f):  # what R1 and the gradient penalty do
      return lambda k: jnp.sum(jax.grad(scalar(f))(x, k) ** 2)

    np.testing.assert_allclose(
      jax.grad(penalty(folded))(k), jax.grad(penalty(plain))(k), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('c, o', [(3, 6), (6, 3), (6, 5)])
@pytest.mark.parametrize('at_once', [2, 100])
def test_a_cpu_s_convolutions_are_exact(c, o, size, at_once, monkeypatch, rng_seed):
  monkeypatch.setattr(resampling, '_IN_CACHE', at_once * 4 * 6 * c)
  rng = np.random.default_rng(rng_seed)

  def plain(x, k):
    return jax.lax.conv_general_dilated(
      x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def penalty(f):
    return lambda x, k: jnp.sum(jax.grad(scalar(f))(x, k) ** 2)

  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(5, 4, 6, c)))
    k = jnp.asarray(rng.normal(size=(size, size, c, o)))
    np.testing.assert_allclose(resampling.conv(x, k), plain(x, k), atol=1e-12)
    for made in (scalar, penalty):
      ours, theirs = (jax.grad(made(f), (0, 1))(x, k) for f in (resampling.conv, plain))
      for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_form_follows_the_device_of_the_mesh():
  seen = {}

  def f(x):
    seen['on'] = resampling.platform()
    return x

  mesh = step.make_mesh(jax.devices()[:1])
  run = jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P())
  jax.jit(run)(jnp.ones(1))
  assert seen['on'] == 'cpu' == resampling.platform()
  nowhere = jax.sharding.AbstractMesh((4,), (layers.AXIS,))
  jax.make_jaxpr(
    jax.shard_map(f, mesh=nowhere, in_specs=P(), out_specs=P(), check_vma=False)
  )(jnp.ones(1))
  assert seen['on'] == ''
  forms = resampling.up_form, resampling.down_form
  assert {form('', size) for form in forms for size in (4, 128)} == {'plain'}
  assert [resampling.up_form('tpu', size) for size in (8, 16, 64)] == [
    'plain',
    'phases',
    'phases',
  ]
