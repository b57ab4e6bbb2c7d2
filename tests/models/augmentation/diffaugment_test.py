"""Draws of DiffAugment; its numbers are in tests/parity/augmentation_test.py."""

import jax
import numpy as np
import pytest

from gan_jax.models.augmentation import diffaugment


def test_the_policy_is_a_comma_list():
  assert diffaugment.parse_policy('') == ()
  assert diffaugment.parse_policy('color, cutout') == ('color', 'cutout')


@pytest.mark.parametrize(
  ('h', 'w', 'shifts', 'offsets'),
  [
    (12, 20, (2, 3), (12, 20)),  # sides of 6 and 10: offsets up to the size
    (9, 6, (1, 1), (8, 5)),  # sides of 5 and 3: up to the size less one
  ],
)
def test_the_ranges_are_inclusive(h, w, shifts, offsets):
  keys = jax.random.split(jax.random.key(0), 2000)
  draws = {k: np.asarray(v) for k, v in diffaugment.draw(keys, h, w).items()}
  for i in range(2):
    assert {*draws['translation'][:, i]} == {*range(-shifts[i], shifts[i] + 1)}
    assert {*draws['cutout'][:, i]} == {*range(offsets[i] + 1)}
  together = np.corrcoef([draws['translation'][:, 0], draws['translation'][:, 1]])
  assert abs(together[0, 1]) < 0.1
  for name in ('brightness', 'saturation', 'contrast'):
    assert abs(draws[name].mean() - 0.5) < 0.03
    assert 0 <= draws[name].min() < 0.01 and 0.99 < draws[name].max() < 1


def test_a_positive_shift_moves_content_up_and_left():
  x = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
  y = diffaugment.translate(x, {'translation': np.asarray([[1, 2]])})
  expected = np.zeros((4, 4))
  expected[:3, :2] = x[0, 1:, 2:, 0]
  np.testing.assert_array_equal(y[0, :, :, 0], expected)
