"""Truncation in w and the random inputs of StyleGAN."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.models.stylegan import StyleGAN
from tests.models.growing import STYLEGAN, phase


def test_psi_moves_w_to_its_average_in_the_truncated_layers():
  g, _ = jax.jit(STYLEGAN.init)(jax.random.key(0))
  g['moving'] = {'w_avg': jnp.full((1, 7), 2.0)}
  gan = dataclasses.replace(STYLEGAN, truncated_layers=2)
  w = gan.w(g, jnp.ones((3, 6)), jnp.zeros(3, jnp.int32))
  ws = gan.truncate(g, w, 0.0)
  np.testing.assert_array_equal(ws[:, :2], 2.0)
  np.testing.assert_array_equal(ws[:, 2:], np.repeat(w[:, None], 4, 1))
  untruncated = gan.truncate(g, w, 1.0)
  np.testing.assert_array_equal(untruncated, np.repeat(w[:, None], 6, 1))


def test_inputs_depend_on_the_example_not_on_the_device():
  key = jax.random.key(0)
  draw = jax.jit(lambda key, index: STYLEGAN.draw_inputs(key, index, phase(8)))
  all_of_them, last = draw(key, jnp.arange(8)), draw(key, jnp.arange(4, 8))
  assert int(all_of_them.cutoff) == int(last.cutoff) and len(all_of_them.noise) == 4
  ends = jax.tree.map(lambda x: x if x.ndim == 0 else x[4:], all_of_them)
  jax.tree.map(np.testing.assert_array_equal, last, ends)
  cutoffs = {int(draw(jax.random.key(i), jnp.arange(1)).cutoff) for i in range(60)}
  assert cutoffs == {1, 2, 3, 4}  # 4: not mixed


def test_an_unknown_loss_is_an_error():
  with pytest.raises(UserError, match="loss is 'hinge': allowed are"):
    StyleGAN(res=16, loss='hinge')
