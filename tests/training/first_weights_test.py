"""The first weights of every family are those that `jax.jit` draws, bit by bit."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gan_jax.config import load_config
from gan_jax.training import first_weights
from gan_jax.training.first_weights import draw_weights
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state


def assert_same_bits(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def compiled_wholes(monkeypatch):
  """Counts calls of the whole function under `jax.jit`, which is the fallback."""
  calls = []
  jit = jax.jit
  monkeypatch.setattr(
    first_weights.jax,
    'jit',
    lambda f, **kwargs: calls.append(f.__name__) or jit(f, **kwargs),
  )
  return calls


@pytest.mark.parametrize(
  'name', ['biggan_digits', 'stylegan_lsun', 'progan_lsun', 'sngan_cifar10']
)
def test_a_familys_first_weights_are_the_bits_of_jit(name, compiled_wholes, rng_seed):
  config = load_config(f'{name}:tiny', [])
  g_tx, d_tx = make_optimizer(config.g_adam), make_optimizer(config.d_adam)

  def fresh(key):
    return init_state(config.gan, g_tx, d_tx, key, config.augment)

  key = jax.random.key(rng_seed)
  ours = draw_weights(fresh, key)
  assert compiled_wholes == ['draw_groups']
  assert_same_bits(ours, jax.jit(fresh)(key))
  # The training step overwrites them, so each has its own memory.
  leaves = jax.tree.leaves(ours)
  assert len({x.ctypes.data for x in leaves}) == len(leaves)


def test_draws_longer_than_a_row_and_of_other_kinds_are_the_bits_of_jax_random(
  compiled_wholes, rng_seed
):
  def draws(key):
    first, second = jax.random.split(key)
    return {
      'rows': jax.random.bits(first, (3, 2**16 - 1)),
      'scalar': jax.random.uniform(second),
      'ints': jax.random.randint(jax.random.fold_in(first, 7), (5,), 0, 100),
      'constant': jnp.ones(3),
      'largest': jnp.maximum(*jax.random.bits(first, (2, 7))),
      'wide': nn.initializers.orthogonal()(first, (3, 5)),
      'copies': (tall := jax.random.bits(second, (5, 2)), jnp.copy(tall), tall.T),
    }

  key = jax.random.key(rng_seed)
  ours = draw_weights(draws, key)
  assert compiled_wholes == ['draw_groups']
  assert_same_bits(ours, jax.jit(draws)(key))


def test_a_draw_scaled_by_another_one_is_compiled_as_a_whole(compiled_wholes):
  def draws(key):
    first, second = jax.random.split(key)
    scale = jax.random.normal(second, (1,))
    return jax.random.normal(first, (4,)) * scale.reshape(())

  key = jax.random.key(3)
  ours = draw_weights(draws, key)
  assert compiled_wholes == ['draw_groups', 'draws']
  assert_same_bits(ours, jax.jit(draws)(key))


@pytest.mark.parametrize(
  'draws',
  [
    lambda key: jax.random.normal(key, (4,), jnp.bfloat16),
    lambda key: jax.vmap(jax.random.normal)(jax.random.split(key, 3)),
    lambda key: jax.lax.fori_loop(
      0, 2, lambda i, x: x + jax.random.normal(jax.random.fold_in(key, i)), 0.0
    ),
    lambda key: jax.random.key_data(key),
    lambda key: jnp.zeros(2),
  ],
)
def test_other_uses_of_the_key_are_compiled_as_a_whole(draws, compiled_wholes):
  key = jax.random.key(3)
  ours = draw_weights(draws, key)
  assert compiled_wholes == ['<lambda>']
  assert_same_bits(ours, jax.jit(draws)(key))
  rbg = jax.random.key(3, impl='rbg')
  assert_same_bits(draw_weights(draws, rbg), jax.jit(draws)(rbg))


def test_weights_are_drawn_on_the_host_if_jax_has_it(monkeypatch):
  key, other = jax.random.key(3), jax.devices()[-1]
  draws = lambda key: jax.random.key_data(key)  # compiled as a whole: stays there

  def no_cpu(backend):
    raise RuntimeError(f'Unknown backend {backend}')

  with jax.default_device(other):
    assert draw_weights(draws, key).devices() == {jax.devices()[0]}
    monkeypatch.setattr(jax, 'local_devices', no_cpu)  # JAX_PLATFORMS=cuda
    assert draw_weights(draws, key).devices() == {other}


def test_large_kernels_are_orthogonalized_by_cholesky(monkeypatch, rng_seed):
  x = np.random.default_rng(rng_seed).normal(size=(96, 32)).astype(np.float32)
  qr = partial(first_weights._qr, full_matrices=False, pivoting=False)
  q, r = qr(x)
  monkeypatch.setattr(first_weights, '_LARGE', 96 * 32**2)
  found, triangle = qr(x)
  assert np.diagonal(triangle).min() > 0 and not np.tril(triangle, -1).any()
  np.testing.assert_allclose(found @ triangle, x, atol=1e-5)
  np.testing.assert_allclose(found.T @ found, np.eye(32), atol=2e-6)
  np.testing.assert_allclose(found, q * np.sign(np.diagonal(r)), atol=2e-6)
  # Not square ones, nor columns that depend on each other, nearly or exactly.
  close, equal = x.copy(), x.copy()
  close[:, 7] = x[:, 3] + 1e-3 * x[:, 7]
  equal[:, 7] = x[:, 3]
  for other in (x[:48], close, equal):
    expected = scipy.linalg.qr(other, mode='economic')
    for ours, theirs in zip(qr(other), expected, strict=True):
      np.testing.assert_array_equal(ours, theirs)
