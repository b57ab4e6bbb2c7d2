"""The built-in datasets: emoji, digits and synthetic."""

import numpy as np
import pytest

from gan_jax import data
from tests.data.images import read_examples


def test_emoji():
  emoji = data.load_dataset('emoji', res=64, channels=3)
  assert emoji.class_names == ('clock', 'face', 'flag', 'heart', 'moon', 'person')
  images, labels = read_examples(emoji.examples)
  assert images.shape == (875, 64, 64, 3) and images.dtype == np.uint8
  # 24 clocks, 25 hearts and 14 moons are repeated five and nine times.
  assert np.bincount(labels).tolist() == [120, 102, 262, 125, 126, 140]
  distinct = [len({x.tobytes() for x in images[labels == k]}) for k in range(6)]
  assert distinct == [24, 102, 262, 25, 14, 140]
  np.testing.assert_array_equal(images[:24], images[24:48])
  assert images[120, 32, 32].tolist() == [251, 226, 46], 'a smiling face is yellow'
  assert images[:, 0, 0].min(axis=1).mean() > 250, 'the background is white'
  # Half the side is the mean of 2 x 2 pixels, and grey the ITU-R 601 mix.
  half, _ = data.load_dataset('emoji', res=32, channels=3).examples[5]
  mean = images[5].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
  assert np.abs(half - mean).max() <= 1, 'PIL rounds after each of the two axes'
  grey, _ = data.load_dataset('emoji', res=64, channels=1).examples[5]
  assert np.abs(grey[..., 0] - images[5] @ [0.299, 0.587, 0.114]).max() < 1


def test_digits():
  digits = data.load_dataset('digits', res=8, channels=1)
  images = np.stack([digits.examples[i][0] for i in range(1797)])
  assert len(digits.examples) == 1797 and digits.n_classes == 10
  assert images.shape[1:] == (8, 8, 1) and images.dtype == np.uint8
  assert (images.min(), images.max()) == (0, 255)
  assert images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
  assert [digits.examples[i][1] for i in range(5)] == [0, 1, 2, 3, 4]
  large, _ = data.load_dataset('digits', res=16, channels=1).examples[0]
  assert large.shape == (16, 16, 1)
  back = large[..., 0].reshape(8, 2, 8, 2).mean(axis=(1, 3))
  assert np.abs(back - images[0, ..., 0]).mean() < 15, 'upsampled, not moved'
  assert len(np.unique(large)) > 40, 'upsampled smoothly, not by repeating pixels'


@pytest.mark.parametrize(('res', 'channels'), [(4, 1), (33, 3)])
def test_synthetic(res, channels):
  a, b = (data.load_dataset('synthetic', res=res, channels=channels) for _ in range(2))
  assert (len(a.examples), a.n_classes) == (10_000, 10)
  for i in (0, 17, 9999):
    image, label = a.examples[i]
    assert image.shape == (res, res, channels) and image.dtype == np.uint8
    assert label == i % 10
    np.testing.assert_array_equal(image, b.examples[i][0])
  distinct = {a.examples[i][0].tobytes() for i in range(200)}
  assert len(distinct) >= min(60, 10 * (res // 2 + 1))


def test_images_that_are_not_square():
  square, wide = (
    data.load_dataset('emoji', res=res, channels=3).examples[5][0]
    for res in (32, (24, 32))
  )
  np.testing.assert_array_equal(wide, square[4:28])
  blobs = data.load_dataset('synthetic', res=(6, 8), channels=1).examples
  assert {blobs[i][0].shape for i in range(20)} == {(6, 8, 1)}
  assert len({blobs[i][0].tobytes() for i in range(20)}) > 15
