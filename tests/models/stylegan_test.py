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


def test_mixing_groups_have_cutoffs_of_their_own():
  gan = dataclasses.replace(STYLEGAN, mixing_groups=4, mbstd_group=2)
  draw = jax.jit(lambda key, index: gan.draw_inputs(key, index, phase(8)).cutoff)
  all_of_them = np.stack([draw(jax.random.key(i), jnp.arange(16)) for i in range(60)])
  turns = all_of_them.reshape(60, 2, 4, 2)  # two turns of four groups of two images
  np.testing.assert_array_equal(turns, turns[:, :1, :, :1] + np.zeros_like(turns))
  assert all(set(group) == {1, 2, 3, 4} for group in turns[:, 0, :, 0].T)
  assert (np.ptp(turns[:, 0, :, 0], axis=1) > 0).mean() > 0.5
  np.testing.assert_array_equal(  # as on the second of two devices
    draw(jax.random.key(7), jnp.arange(8, 16)), all_of_them[7, 8:]
  )


def test_style_mixing_with_a_cutoff_per_example():
  w, w2 = jnp.zeros((3, 7)), jnp.ones((3, 7))
  mixed = STYLEGAN.mix(w, w2, jnp.array([1, 4, 2]), res=8)
  for row, cutoff in zip(mixed, (1, 4, 2), strict=True):
    np.testing.assert_array_equal(row, STYLEGAN.mix(w, w2, cutoff, res=8)[0])
  assert mixed[:, :, 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_an_unknown_loss_is_an_error():
  with pytest.raises(UserError, match="loss is 'hinge': allowed are"):
    StyleGAN(res=16, loss='hinge')
