"""The first weights of every family are those that `jax.jit` draws, bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
  assert compiled_wholes == ['_draw_rows', 'finish']
  assert_same_bits(ours, jax.jit(fresh)(key))


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
    }

  key = jax.random.key(rng_seed)
  assert_same_bits(draw_weights(draws, key), jax.jit(draws)(key))
  assert compiled_wholes[:2] == ['_draw_rows', 'finish']


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
