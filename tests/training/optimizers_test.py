"""Adam's direction and the orthogonal term against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax.config.optimizers import AdamConfig
from gan_jax.models.progan import ProGAN
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import AXIS, make_mesh
from gan_jax.training import optimizers
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state, make_reset


@pytest.mark.parametrize('beta1', [0.0, 0.5])
def test_adam_is_optax_adam(beta1, rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {'a': {'kernel': jnp.ones((3, 4)), 'bias': jnp.ones((1, 4))}}
  ours = make_optimizer(AdamConfig(beta1=beta1, beta2=0.99, eps=1e-3))
  theirs = optax.scale_by_adam(beta1, 0.99, 1e-3)
  states = [ours.init(params), theirs.init(params)]
  for _ in range(3):
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    a, states[0] = ours.update(grads, states[0], params)
    b, states[1] = theirs.update(grads, states[1], params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), a, b)
  if not beta1:  # no first moment is kept
    assert len(jax.tree.leaves(states[0])) == len(jax.tree.leaves(params)) + 1


def test_orthogonal_term_is_half_the_penalty_gradient(rng_seed):
  rng = np.random.default_rng(rng_seed)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32)
  embedding = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
  tall = jnp.asarray(rng.normal(size=(3, 8)), jnp.float32)  # more outputs than inputs
  params = {
    'conv': {'kernel': kernel, 'bias': jnp.ones((1, 1, 1, 5))},
    'embed': {'embedding': embedding},
    'linear': {'kernel': tall},
    'shared': {'embedding': embedding},
  }
  tx = optimizers.orthogonal_regularization(0.1)
  zeros = jax.tree.map(jnp.zeros_like, params)
  added, _ = tx.update(zeros, tx.init(params), params)

  def penalty(rows):
    gram = rows @ rows.T
    return 0.1 * jnp.sum((gram - jnp.diag(jnp.diag(gram))) ** 2)

  by_rows = jax.grad(lambda k: penalty(k.reshape(-1, 5).T))(kernel)
  np.testing.assert_allclose(added['conv']['kernel'], by_rows / 2, rtol=1e-4, atol=1e-4)
  by_rows = jax.grad(lambda k: penalty(k.T))(tall)
  np.testing.assert_allclose(
    added['linear']['kernel'], by_rows / 2, rtol=1e-4, atol=1e-4
  )
  by_rows = jax.grad(penalty)(embedding)
  np.testing.assert_allclose(
    added['embed']['embedding'], by_rows / 2, rtol=1e-4, atol=1e-4
  )
  assert not np.any(added['conv']['bias']) and not np.any(added['shared']['embedding'])


@pytest.mark.parametrize('shape', [(32, 8), (8, 32), (32, 128), (16, 16)])
@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('relaxed', [True, False])
def test_orthogonal_term_in_parts(shape, axis, relaxed, rng_seed):
  """Whichever axis is cut; many outputs of few inputs without a square of outputs."""
  rng = np.random.default_rng(rng_seed)
  kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
  tx = optimizers.orthogonal_regularization(0.1, relaxed=relaxed)

  def term(kernel, cut):
    tree = {'linear': {'kernel': kernel}}
    zeros = jax.tree.map(jnp.zeros_like, tree)
    axes = {'linear': {'kernel': sharding.ShardAxis(cut)}}
    added, _ = tx.update(zeros, tx.init(tree), tree, shard_axes=axes)
    return added['linear']['kernel']

  spec = P(*(AXIS if i == axis else None for i in range(2)))
  mesh = make_mesh(jax.devices()[:8])
  parts = jax.jit(
    jax.shard_map(
      lambda k: term(k, axis), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
  )
  expected = term(kernel, None)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(parts(kernel), expected, atol=1e-5 * scale, rtol=0)
  if axis == 0 and shape[1] > shape[0]:
    assert f'<{shape[1]}x{shape[1]}x' not in parts.lower(kernel).as_text()


@pytest.mark.parametrize('beta1', [0.0, 0.5])
def test_adam_of_tensorflow_is_its_formula(beta1, rng_seed):
  rng = np.random.default_rng(rng_seed)
  tx = make_optimizer(AdamConfig(beta1=beta1, beta2=0.9, eps=0.1, tf_eps=True))
  state, m, v = tx.init(jnp.zeros(4)), 0.0, 0.0
  for t in range(1, 4):
    g = rng.normal(size=4)
    m, v = beta1 * m + (1 - beta1) * g, 0.9 * v + 0.1 * g**2
    want = np.sqrt(1 - 0.9**t) / (1 - beta1**t) * m / (np.sqrt(v) + 0.1)
    direction, state = tx.update(jnp.asarray(g, jnp.float32), state)
    np.testing.assert_allclose(direction, want, rtol=1e-5, atol=1e-6)  # m may cancel


def test_a_reset_sets_optimizer_states_to_their_start():
  gan = ProGAN(res=8, dim_z=6, g_widths=(6, 6, 5), d_widths=(6, 6, 5))
  tx = make_optimizer(AdamConfig(beta2=0.99, tf_eps=True))
  mesh = make_mesh(jax.devices()[:2])
  state = init_state(gan, tx, tx, jax.random.key(1))
  used = jax.tree.map(jnp.ones_like, (state.g_opt, state.d_opt))
  state = state.replace(g_opt=used[0], d_opt=used[1], step=jnp.ones_like(state.step))
  params = jax.device_get(state.g['params'])
  state = make_reset(tx, tx, mesh)(sharding.replicate(state, mesh))
  assert not any(np.any(x) for x in jax.tree.leaves((state.g_opt, state.d_opt)))
  jax.tree.map(np.testing.assert_array_equal, params, state.g['params'])
  assert int(state.step) == 1
