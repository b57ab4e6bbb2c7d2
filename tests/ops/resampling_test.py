"""Every form of resampling against the plain one, and which is taken where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax.ops import convolution, resampling
from gan_jax.ops.convolution import conv
from gan_jax.runtime.mesh import AXIS, make_mesh

FORMS = (  # images, width of the doubled map and half that of the halved one
  (8, 8, 'plain', 'plain'),
  (8, 16, 'phases', 'strided'),
  (32, 4, 'plain', 'plain'),
  (32, 8, 'dilated', 'strided'),
)


def scalar(f):
  return lambda *args: jnp.sum(jnp.sin(f(*args)))


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'name, form, plain',
  [
    ('up', 'phases', lambda x, k: conv(resampling.upsample(x), k)),
    ('up', 'products', lambda x, k: conv(resampling.upsample(x), k)),
    ('up', 'dilated', lambda x, k: conv(resampling.upsample(x), k)),
    ('down', 'products', lambda x, k: resampling.downsample(conv(x, k))),
    ('down', 'strided', lambda x, k: resampling.downsample(conv(x, k))),
  ],
)
def test_every_form_of_resampling_is_exact(
  name, form, plain, device, size, monkeypatch, rng_seed
):
  monkeypatch.setattr(resampling, f'{name}_form', lambda *_: form)
  for module in (convolution, resampling):
    monkeypatch.setattr(module, 'platform', lambda: device)
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


def test_the_form_follows_the_device_of_the_mesh():
  seen = {}

  def f(x):
    seen['on'] = convolution.platform()
    return x

  mesh = make_mesh(jax.devices()[:1])
  run = jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P())
  jax.jit(run)(jnp.ones(1))
  assert seen['on'] == 'cpu' == convolution.platform()
  nowhere = jax.sharding.AbstractMesh((4,), (AXIS,))
  jax.make_jaxpr(
    jax.shard_map(f, mesh=nowhere, in_specs=P(), out_specs=P(), check_vma=False)
  )(jnp.ones(1))
  assert seen['on'] == ''
  forms = resampling.up_form, resampling.down_form
  assert {form('', 8, width) for form in forms for width in (4, 128)} == {'plain'}
  assert {form('cpu', 8, width) for form in forms for width in (4, 128)} == {'products'}


@pytest.mark.parametrize('images, width, up, down', FORMS)
def test_a_tpu_folds_where_pictures_outweigh_kernels(images, width, up, down):
  assert resampling.up_form('tpu', images, width) == up
  assert resampling.down_form('tpu', images, 2 * width) == down
