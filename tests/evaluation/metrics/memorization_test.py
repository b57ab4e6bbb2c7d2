"""Generated images that are nearly copies of training images."""

import numpy as np

from gan_jax.evaluation.metrics.memorization import (
  Memorization,
  measure_memorization,
  most_suspicious,
)


def test_copies_are_memorized_and_distant_images_are_not(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real = rng.normal(0, 1, (40, 8)).astype('f')
  fake = np.concatenate([real[:6], real[6:9] + 0.01, 100 + real[:11]]).astype('f')
  found = measure_memorization([real], [fake], block_size=16)
  assert found.share == 9 / 20
  np.testing.assert_array_equal(found.nearest[:9, 0], np.arange(9))
  assert (found.ratio[:6] == 0).all() and (found.ratio[9:] > 1).all()


def test_the_ratio_is_that_of_euclidean_distances(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real = rng.integers(0, 256, (30, 12)).astype(np.uint8)
  fake = rng.integers(0, 256, (9, 12)).astype(np.uint8)
  found = measure_memorization([real], [fake], block_size=8)
  distance = lambda a, b: np.linalg.norm(a[:, None] - b[None].astype('d'), axis=-1)
  to_real, within = distance(fake, real), distance(real, real)
  np.fill_diagonal(within, np.inf)
  nearest = to_real.argmin(1)
  np.testing.assert_array_equal(found.nearest, np.argsort(to_real, 1)[:, :3])
  ratio = to_real.min(1) / within.min(1)[nearest]
  np.testing.assert_allclose(found.ratio, ratio, rtol=1e-12)
  assert found.share == (ratio < 1).mean()
  a, b = real[::2], real[1::2]
  own = distance(a, a) + np.diag(np.full(15, np.inf))
  half = distance(b, a)
  share = (half.min(1) < own.min(1)[half.argmin(1)]).mean()
  assert found.real_share == share


def test_copies_within_the_training_data_do_not_hide_memorization(rng_seed):
  rng = np.random.default_rng(rng_seed)
  different = rng.normal(0, 1, (10, 4))
  real = np.repeat(different, 20, 0).astype('f')  # more copies than candidates
  found = measure_memorization([real], [real[::20] + np.float32(1e-3)])
  assert found.share == 1
  alike = measure_memorization([np.ones((8, 2), 'f')], [np.zeros((3, 2), 'f')])
  assert alike.share == 1  # no other training image is nearer


def test_copies_of_mirror_images_are_memorized_where_both_ways_are_searched(rng_seed):
  real = np.random.default_rng(rng_seed).normal(0, 1, (40, 5, 6)).astype('f')
  both = lambda x: [x.reshape(len(x), -1), x[..., ::-1].reshape(len(x), -1)]
  fake = np.concatenate([real[:4], real[4:12, :, ::-1]])
  found = measure_memorization(both(real), both(fake))
  assert found.share == 1
  np.testing.assert_array_equal(found.nearest[:, 0], np.arange(12))
  one = measure_memorization(both(real)[:1], both(fake)[:1])
  assert (one.ratio[:4] == 0).all() and (one.ratio[4:] > 0.5).all()
  assert found.real_share >= one.real_share


def test_the_most_suspicious_images_of_each_distance_come_in_turn():
  of = lambda *ratio: Memorization(np.zeros((4, 1)), np.array(ratio), 0)
  results = [of(0.1, 0.2, 0.3, 0.4), of(0.9, 0.1, 0.5, 0.3)]
  assert most_suspicious(results, 3).tolist() == [0, 1, 3]
  assert most_suspicious(results, 9).tolist() == [0, 1, 3, 2]
