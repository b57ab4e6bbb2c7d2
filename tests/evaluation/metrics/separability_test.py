"""Linear separability of latents."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import separability
from gan_jax.evaluation.metrics.separability import AttributeStatistics


def test_an_attribute_along_a_direction_costs_no_bits_and_a_random_one_costs_one(
  rng_seed,
):
  rng = np.random.default_rng(rng_seed)
  z = rng.normal(0, 1, (2000, 4)).astype('f')
  linear, unrelated = z[:, 1], rng.normal(0, 1, 2000)
  spaces = {'z': z, 'constant': np.zeros_like(z)}
  both = np.stack([linear, unrelated], 1)
  scores = separability.separability(spaces, both)
  assert scores['z'] == pytest.approx(2, rel=0.02)
  assert scores['constant'] == pytest.approx(4, rel=0.02)
  assert separability.separability({'z': z}, linear[:, None])['z'] < 1.05


def test_an_attribute_of_one_class_costs_nothing():
  z = np.arange(60, dtype='f').reshape(30, 2)
  assert separability.separability({'z': z}, np.full((30, 1), 5.0)) == {'z': 1.0}


def test_the_most_confident_images_are_kept_in_order():
  logits = np.array([0.1, -3, 40, 50, -40], 'f')  # the last three saturate
  kept, classes = separability.most_confident(separability.predictions(logits), 4)
  assert kept.tolist() == [2, 3, 4, 1] and classes.tolist() == [0, 0, 1, 1]


def test_half_of_a_rare_class_is_kept():
  logits = np.array([9, 1, -8, -2, -7, -3, -6, -4, -5, 5], 'f')
  kept, classes = separability.most_confident_of_both(separability.predictions(logits))
  assert kept.tolist() == [0, 9, 2, 4, 6, 8] and classes.tolist() == [0] * 2 + [1] * 4


def test_rare_classes_that_latents_do_not_tell_cost_their_entropy(rng_seed):
  rng = np.random.default_rng(rng_seed)
  z, which = rng.normal(0, 1, (4000, 4)).astype('f'), rng.integers(0, 4, 4000)
  logits = 9.0 * (which[:, None] == np.arange(4)) + rng.normal(0, 1, (4000, 4))
  attributes = separability.one_vs_rest(logits)
  choose = separability.most_confident_of_both
  score = separability.separability({'z': z}, attributes, choose)['z']
  bits = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))  # of each of four classes
  assert np.log2(score) == pytest.approx(4 * bits, rel=0.05)


def test_logits_of_classes_become_attributes():
  logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
  odds = np.log([[1, 3 / 7, 1 / 4], [1 / 9, 1 / 9, 4]])
  np.testing.assert_allclose(separability.one_vs_rest(logits), odds, atol=1e-6)
  assert separability.one_vs_rest(logits[:, :2]).shape == (2, 1)


def test_entropy_of_independent_and_of_equal_variables():
  entropy = separability.conditional_entropy
  assert entropy(np.full((2, 2), 0.25)) == 1
  assert entropy(np.diag([0.5, 0.5])) == 0
  assert entropy(np.array([[0.9, 0.0], [0.1, 0.0]])) == 0


def test_statistics_are_merged_and_restored(rng_seed):
  images = np.random.default_rng(rng_seed).integers(0, 256, (5, 2, 2, 1), np.uint8)
  classify = lambda x: x.reshape(len(x), -1)[:, :2].astype('f')
  parts = [AttributeStatistics(classify) for _ in range(3)]
  for part, chosen in zip(parts, (images[:3], images[3:]), strict=False):
    part.update(chosen, np.zeros(len(chosen), np.int32))
  for part in parts[1:]:  # the last one is empty
    parts[0].merge(AttributeStatistics.restore(part.arrays()))
  np.testing.assert_array_equal(parts[0].logits, classify(images))
  broken = AttributeStatistics(lambda x: np.full((len(x), 1), np.nan))
  with pytest.raises(UserError, match='a classifier returned NaN'):
    broken.update(images, np.zeros(5, np.int32))
