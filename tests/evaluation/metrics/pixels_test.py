"""The pixels of images, as rows."""

import numpy as np

from gan_jax.evaluation.metrics.pixels import PixelStatistics, reduce_images


def test_rows_are_the_first_images_of_the_stream(rng_seed):
  images = np.random.default_rng(rng_seed).integers(0, 256, (7, 4, 6, 3), np.uint8)
  a, b = PixelStatistics(5), PixelStatistics(9)
  labels = np.zeros(2, np.int32)
  a.update(images[:2], labels)
  b.update(images[2:4], labels)
  b.update(images[4:], labels)
  a.merge(PixelStatistics.restore(b.arrays()))
  np.testing.assert_array_equal(a.rows, images[:5].reshape(5, -1))
  restored = PixelStatistics.restore(PixelStatistics(0).arrays())
  assert len(restored.rows) == 0


def test_large_images_are_reduced_to_32_pixels():
  large = np.zeros((2, 64, 64, 1), np.uint8)
  large[1] = np.arange(64)[None, :, None]
  small = reduce_images(large)
  assert small.shape == (2, 32, 32, 1) and not small[0].any()
  np.testing.assert_allclose(small[1, 5, 1:-1, 0], 2 * np.arange(1, 31) + 0.5, atol=0.6)
  assert reduce_images(large[:, :20, :33]).shape == (2, 20, 32, 1)
