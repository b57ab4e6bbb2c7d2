"""Resizing as other tools do it."""

import numpy as np
import pytest
from PIL import Image

from gan_jax.evaluation.metrics.resize import PREPROCESSING, preprocess, resize_images


@pytest.mark.parametrize('size', [20, 50])
def test_clean_resizing_is_that_of_pil(size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  image = rng.uniform(0, 255, (size, size)).astype(np.float32)
  expected = np.asarray(
    Image.fromarray(image).resize((31, 31), Image.Resampling.BICUBIC)
  )
  resized = resize_images(image[None, :, :, None], PREPROCESSING['clean'], 31)
  np.testing.assert_allclose(resized[0, :, :, 2], expected, atol=1e-3)


def test_clean_fid_clips_and_scales_as_the_graph_of_tensorflow():
  image = np.zeros((20, 20), np.uint8)
  image[5:15, 5:15] = 255
  overshooting = np.asarray(
    Image.fromarray(image.astype(np.float32)).resize((31, 31), Image.Resampling.BICUBIC)
  )
  assert overshooting.min() < -1 and overshooting.max() > 256
  x = preprocess(image[None, :, :, None], PREPROCESSING['clean-fid'], 31)
  expected = (overshooting.clip(0, 255) - 128) / 128
  np.testing.assert_allclose(x[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize('size', [20, 50])
def test_constant_images_stay_constant(size):
  for how in PREPROCESSING.values():
    np.testing.assert_allclose(how.matrix(size, 31).sum(1), 1, rtol=1e-12)
