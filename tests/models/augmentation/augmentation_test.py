"""Settings, draws, the adjustment of p, and penalties through the augmentation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.models import losses
from gan_jax.models.augmentation import OFF, UNAUGMENTED, Augmentation
from gan_jax.models.augmentation.augmentation import ROLES
from gan_jax.models.base import example_keys

BOTH = Augmentation(policy='color,translation,cutout', pipe='bgcfnc', fixed_p=0.8)


def keys_of(index, seed=0):
  return example_keys(jax.random.key(seed), jnp.asarray(index))


def images_of(seed, shape=(6, 24, 24, 3)):
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    (
      dict(policy='color,translate'),
      "augment.policy is 'color,translate', with the unknown entry 'translate' (did "
      "you mean 'translation'?): take a comma list of color, translation and cutout, "
      'or nothing.',
    ),
    (dict(policy='color,'), "augment.policy is 'color,', with the unknown entry ''"),
    (
      dict(pipe='bgcx'),
      "augment.pipe is 'bgcx' (did you mean 'bgc'?): take one of blit, geom, color, "
      'filter, noise, cutout, bg, bgc, bgcf, bgcfn and bgcfnc, or nothing.',
    ),
    (dict(pipe='bgc', fixed_p=1.5), 'augment.fixed_p is 1.5: it must be at most 1.'),
    (dict(pipe='bgc', target=-2.0), 'augment.target is -2.0: it must be at least -1.'),
    (dict(interval=0), 'augment.interval is 0: it must be at least 1.'),
    (dict(fixed_p=0.5), 'augment.fixed_p is 0.5, but augment.pipe is empty'),
  ],
)
def test_mistakes_are_one_sentence(settings, sentence):
  with pytest.raises(UserError) as error:
    Augmentation(**settings)
  assert sentence in str(error.value)


@pytest.mark.parametrize(
  ('settings', 'of', 'sentence'),
  [
    (
      dict(pipe='bgc'),
      dict(channels=4),
      "augment.pipe is 'bgc', whose colour transforms are for 1 or 3 channels, and "
      'model.channels is 4: take bg, which has none.',
    ),
    (
      dict(pipe='bgcf'),
      dict(res=8),
      "augment.pipe is 'bgcf', whose image filter needs 22 pixels, and training is at "
      '8 pixels at first: take bgc, or resolutions from 32 up.',
    ),
    (
      dict(pipe='bgc'),
      dict(signs=3),
      'augment.interval=4 iterations of 3 real images are 12 scores for each '
      'adjustment of p, and at least 16 are needed: set augment.interval to 6, raise '
      'schedule.batch, or fix p by augment.fixed_p.',
    ),
  ],
)
def test_what_other_sections_do_not_allow(settings, of, sentence):
  fits = dict(channels=3, res=32, signs=4)
  Augmentation(**settings).check(**fits)
  with pytest.raises(UserError) as error:
    Augmentation(**settings).check(**fits | of)
  assert str(error.value) == sentence
  Augmentation(policy='color,cutout').check(**fits | of)
  Augmentation(pipe='bg', fixed_p=0.5).check(**fits | of)


def test_off_leaves_everything_as_it_is():
  x = images_of(0)
  assert not OFF.is_on and OFF.init_state() == {}
  assert OFF.augment(keys_of(range(6)), {}) is UNAUGMENTED
  assert UNAUGMENTED(x, 'real') is x
  assert UNAUGMENTED.metrics(x) == {}


def test_an_image_depends_on_its_index_only(rng_seed):
  x = images_of(rng_seed)
  f = jax.jit(lambda x, k: BOTH.augment(k, {})(x, 'fake'))
  keys = keys_of(range(6), rng_seed)
  whole = f(x, keys)
  for part in (slice(0, 3), slice(3, 6)):
    np.testing.assert_allclose(f(x[part], keys[part]), whole[part], atol=1e-5)
  assert np.abs(whole - x).max((1, 2, 3)).min() > 0.01


def test_each_role_and_update_has_its_own_draws():
  x = images_of(0)
  augment = jax.jit(lambda x, k: [BOTH.augment(k, {})(x, role) for role in ROLES])
  seen = [*augment(x, keys_of(range(6))), *augment(x, keys_of(range(6), seed=1))]
  for i, a in enumerate(seen):
    for b in seen[i + 1 :]:
      assert np.abs(np.asarray(a) - b).max((1, 2, 3)).min() > 0.01


def test_at_p_0_a_pipe_changes_nothing():
  x = images_of(1)
  adjusted = Augmentation(pipe='bgcfnc')
  f = lambda x, k: adjusted.augment(k, adjusted.init_state())(x, 'real')
  y = jax.jit(f)(x, keys_of(range(6)))
  np.testing.assert_allclose(y, x, atol=2e-5)


def test_the_dtype_stays():
  x = jnp.asarray(images_of(0), jnp.bfloat16)
  f = lambda x: BOTH.augment(keys_of(range(6)), {})(x, 'real')
  assert jax.eval_shape(f, x).dtype == jnp.bfloat16


# The adjustment of p.


def run(augmentation, means, scores=8):
  state, ps = augmentation.init_state(), []
  for i, mean in enumerate(means):
    state = augmentation.next_state(state, jnp.float32(mean), scores, i + 1)
    ps.append(float(state['p']))
  return state, ps


def test_p_moves_every_interval_and_stays_above_0():
  augmentation = Augmentation(pipe='bgc', interval=2, ramp=160)
  _, ps = run(augmentation, [1, 0.5, -1, 0, 1, 1, 0, 0, 0, 0])
  # 16 images of 160: means 0.75, -0.5 (p stays at least 0), 1, 0, 0.
  np.testing.assert_allclose(ps, [0, 0.1, 0.1, 0, 0, 0.1, 0.1, 0, 0, 0], atol=1e-7)


def test_p_has_no_upper_limit_and_a_mean_at_the_target_moves_nothing():
  quick = Augmentation(pipe='bgc', interval=1, ramp=5)
  assert run(quick, [1] * 3)[1] == pytest.approx([1.6, 3.2, 4.8])
  exact = Augmentation(pipe='bgc', interval=1, ramp=100)
  assert run(exact, [1, 0.6], scores=10)[1] == pytest.approx([0.1, 0.1])


def test_an_iteration_with_non_finite_scores_does_not_count():
  augmentation = Augmentation(pipe='bgc', interval=2, ramp=160)
  state, ps = run(augmentation, [1, np.nan, np.nan, np.nan, 1])
  np.testing.assert_allclose(ps, [0, 0.05, 0.05, 0.05, 0.05], atol=1e-7)
  assert (int(state['signs']), int(state['scores'])) == (8, 8)


def test_the_metrics():
  scores = jnp.asarray([[1.5], [-0.2], [0.0], [3.0]])
  assert float(BOTH.augment(keys_of([0]), {}).metrics(scores)['d_sign']) == 0.25
  assert float(BOTH.metrics({})['augment_p']) == pytest.approx(0.8)
  assert Augmentation(policy='cutout').metrics({}) == {}


# Second derivatives.


@pytest.mark.parametrize('penalty', ['r1', 'gradient_penalty'])
def test_penalties_through_the_augmentation(penalty, rng_seed):
  """The gradient of a penalty by D's weights, against finite differences."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(rng_seed)
    real, fake = rng.uniform(-1, 1, (2, 2, 24, 24, 3))
    weights, direction = rng.normal(size=(2, 24 * 24 * 3, 2)) / 20
    keys = keys_of([0, 1], rng_seed)
    augment = dataclasses.replace(BOTH, fixed_p=0.9).augment(keys, {})

    def loss(weights):
      def critic(x):
        h = jnp.tanh(augment(x, 'between').reshape(2, -1) @ weights)
        return (h**2).sum(-1, keepdims=True)

      if penalty == 'r1':
        return losses.r1(critic, real)[1]
      return losses.gradient_penalty(critic, real, fake, jnp.asarray([0.3, 0.8]))

    loss = jax.jit(loss)
    found = (jax.grad(loss)(weights) * direction).sum()
    step = 1e-5
    slope = loss(weights + step * direction) - loss(weights - step * direction)
    np.testing.assert_allclose(found, slope / (2 * step), rtol=1e-6)
    assert abs(found) > 1e-3
