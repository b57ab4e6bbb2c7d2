"""Resizing as other tools do it."""

import numpy as np
import pytest
from PIL import Image

from gan_jax.evaluation.metrics.resize import PREPROCESSING, resize_images


@pytest.mark.parametrize('size', [20, 50])
def test_clean_resizing_is_that_of_pil(size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  image = rng.uniform(0, 255, (size, size)).astype(np.float32)
  expected = np.asarray(
    Image.fromarray(image).resize((31, 31), Image.Resampling.BICUBIC)
  )
  resized = resize_images(image[None, :, :, None], PREPROCESSING['clean'], 31)
  np.testing.assert_allclose(resized[0, :, :, 2], expected, atol=1e-3)


@pytest.mark.parametrize('size', [20, 50])
def test_constant_images_stay_constant(size):
  for how in PREPROCESSING.values():
    np.testing.assert_allclose(how.matrix(size, 31).sum(1), 1, rtol=1e-12)
