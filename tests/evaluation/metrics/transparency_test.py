"""Images with alpha, composited on white."""

import numpy as np
from PIL import Image

from gan_jax.evaluation.metrics.transparency import composite, composite_bytes


def test_bytes_are_those_of_pillow(rng_seed):
  rng = np.random.default_rng(rng_seed)
  images = rng.integers(0, 256, (3, 8, 8, 4), np.uint8)
  images[0, ..., 3], images[1, ..., 3] = 255, 0
  on_white = composite_bytes(images)
  assert on_white.dtype == np.uint8
  np.testing.assert_array_equal(on_white[0], images[0, ..., :3])
  assert (on_white[1] == 255).all()
  white = Image.new('RGBA', (8, 8), 'white')
  pillow = Image.alpha_composite(white, Image.fromarray(images[2])).convert('RGB')
  assert np.abs(on_white[2].astype(int) - np.asarray(pillow)).max() <= 1
  floats = np.asarray(composite(images / np.float32(127.5) - 1))
  assert np.abs((floats + 1) * 127.5 - on_white).max() <= 0.51


def test_images_without_alpha_stay(rng_seed):
  rng = np.random.default_rng(rng_seed)
  for channels in (1, 3):
    images = rng.integers(0, 256, (2, 4, 4, channels), np.uint8)
    assert composite_bytes(images) is images
    x = images.astype(np.float32)
    assert composite(x) is x
