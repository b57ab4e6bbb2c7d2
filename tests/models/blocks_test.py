"""Growing networks in blocks of pixels against plain ones: losses and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.models.base import Batch
from gan_jax.ops import blocks
from gan_jax.runtime.mesh import AXIS
from tests.models.growing import PROGAN, STYLEGAN, phase
from tests.platforms import traced_for
from tests.training.program_test import equations

WIDTHS = (6, 6, 20, 9)  # at 1x1, 4x4, 8x8 in blocks of 2x2, 16x16 in blocks of 2x4
CHANGES = dict(res=16, g_widths=WIDTHS, d_widths=WIDTHS, mbstd_group=2, dtype='float64')


def gradients(gan, res, alpha, device):
  """Gradients of both losses, with the penalty's, in the form of a device."""
  rng = np.random.default_rng(0)
  at = phase(res, alpha)

  def losses(params, g, d, batch, inputs):
    g, d = ({**v, 'params': p} for v, p in zip((g, d), params, strict=True))
    return gan.d_loss(g, d, batch, inputs, at)[0] + gan.g_loss(g, d, inputs, at)[0]

  with traced_for(device), jax.enable_x64(True):
    g, d = jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape)),
      jax.eval_shape(gan.init, jax.random.key(0)),
    )
    inputs = jax.eval_shape(
      lambda key: gan.draw_inputs(key, jnp.arange(2), at), jax.random.key(0)
    )
    inputs = jax.tree.map(
      lambda x: (
        jnp.ones(x.shape, x.dtype)
        if jnp.issubdtype(x.dtype, jnp.integer)
        else jnp.asarray(rng.uniform(size=x.shape))
      ),
      inputs,
    )
    images = jnp.asarray(rng.uniform(-1, 1, size=(2, res, res, 3)))
    batch = Batch(images, jnp.zeros(2, jnp.int32))
    params = g['params'], d['params']
    mapped = jax.vmap(jax.grad(losses), (None, None, None, 0, 0), axis_name=AXIS)
    one = jax.tree.map(lambda x: x[None], (batch, inputs))
    return jax.jit(mapped)(params, g, d, *one)


@pytest.mark.parametrize(('gan', 'res'), [(PROGAN, 8), (STYLEGAN, 16)])
def test_gradients_are_those_of_the_plain_form(gan, res, monkeypatch):
  monkeypatch.setattr(blocks, 'SMALLEST', 8)
  gan = dataclasses.replace(gan, **CHANGES)
  ours, plain = (gradients(gan, res, 0.3, device) for device in ('tpu', ''))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize('gan', [PROGAN, STYLEGAN], ids=['progan', 'stylegan'])
def test_bfloat16_from_a_resolution_on(gan, strict_dtypes):
  gan = dataclasses.replace(gan, bfloat16_from=8)
  at, key = phase(16, 0.3), jax.random.key(0)
  types = set()

  def losses(g, d, batch):
    inputs = gan.draw_inputs(key, jnp.arange(4), at)
    fake = gan.d_loss(g, d, batch, inputs, at)[0]
    return fake + gan.g_loss(g, d, inputs, at)[0]

  g, d = jax.eval_shape(gan.init, key)
  batch = Batch(jnp.zeros((4, 16, 16, 3)), jnp.zeros(4, jnp.int32))
  with traced_for('tpu'):
    f = jax.vmap(jax.grad(losses, (0, 1)), (None, None, 0), axis_name=AXIS)
    one = jax.tree.map(lambda x: x[None], batch)
    traced = jax.make_jaxpr(f)(g, d, one)
  for eqn in equations(traced.jaxpr):
    if eqn.primitive.name == 'conv_general_dilated':
      width = max(x.aval.shape[-2] for x in (*eqn.invars[:1], *eqn.outvars))
      types.add((width >= 8, str(eqn.outvars[0].aval.dtype)))
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(traced.out_avals))
  assert types == {(False, 'float32'), (True, 'bfloat16')}
