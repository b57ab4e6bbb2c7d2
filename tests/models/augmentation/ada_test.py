"""Draws of ADA; its numbers are in tests/parity/augmentation_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.models.augmentation import ada

KEYS = jax.random.split(jax.random.key(0), 4000)
ALL = ada.PIPES['bgcfnc']


@pytest.fixture(scope='module')
def draws():
  return jax.jit(lambda k: ada.draw(k, (), (24, 24, 3)))(KEYS)


def test_every_pipe_has_the_same_draws(draws):
  other = ada.draw(KEYS[:2], ALL, (24, 24, 3))
  assert other.noise.shape == (2, 24, 24, 3) and draws.noise is None
  for ours, theirs in zip(draws[:2], other[:2], strict=True):
    for name in ours:
      np.testing.assert_allclose(ours[name][:2], theirs[name], rtol=1e-6)


def test_the_distributions(draws):
  for name, x in draws.values.items():
    mean, std = (0.5, 12**-0.5) if name in ada.UNIFORM else (0, 1)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.08)
    np.testing.assert_allclose(x.std(0), std, atol=0.08)
  gates = np.concatenate([np.reshape(x, (4000, -1)) for x in draws.gates.values()], 1)
  assert gates.shape[1] == len({*ada.GATES}) + 3  # the filter has four bands
  off_diagonal = np.corrcoef(gates.T) - np.eye(gates.shape[1])
  assert np.abs(off_diagonal).max() < 0.1


@pytest.mark.parametrize('p', [0.0, 0.3, 1.0, 2.0])
def test_a_rotation_before_or_after_has_probability_p(draws, p):
  matrix = ada.inverse_matrix(('rotate',), draws, p, 24, 24, ada.DEFAULT_RANGES)
  turned = np.abs(np.asarray(matrix)[:, 0, 1]) > 0
  assert turned.mean() == pytest.approx(min(p, 1), abs=0.03)


def test_gates_open_with_probability_p(draws):
  matrix = ada.inverse_matrix(('xflip',), draws, 0.6, 24, 24, ada.DEFAULT_RANGES)
  flipped = np.asarray(matrix)[:, 0, 0] < 0
  assert flipped.mean() == pytest.approx(0.3, abs=0.03)


def test_gray_images_take_no_hue_and_no_saturation(draws):
  few = jax.tree.map(lambda x: x[:8], draws)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 24, 24, 1)), jnp.float32)
  np.testing.assert_array_equal(ada.apply(('hue', 'saturation'), x, few, 1.0), x)
