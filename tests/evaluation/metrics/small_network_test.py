"""The small feature network: cached, reproducible, and sensitive to noise."""

import jax
import numpy as np
import pytest

from gan_jax.evaluation.metrics import small_network
from gan_jax.evaluation.metrics.frechet import frechet_distance
from gan_jax.runtime.mesh import make_mesh


@pytest.fixture(scope='module')
def labeled_images(digits):
  examples = [digits.examples[i] for i in range(600)]
  images = np.stack([image for image, _ in examples])
  return images, np.array([label for _, label in examples], np.int32)


def test_the_same_images_give_the_same_network(
  labeled_images, tmp_path, monkeypatch, statistics_of
):
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 20)
  images, _ = labeled_images
  calls = []

  def training_images():
    calls.append(1)
    return labeled_images

  load = lambda folder, mesh: small_network.load(
    training_images, 10, {'data': 'digits'}, folder, mesh
  )
  one, eight = make_mesh(jax.devices()[:1]), make_mesh()
  first = load(tmp_path, one)
  cached = load(tmp_path, eight)
  assert len(calls) == 1
  # A corrupted file is replaced.
  (path,) = tmp_path.glob('small-*.npz')
  path.write_bytes(path.read_bytes()[:1000])
  assert load(tmp_path, one).stamp == first.stamp == cached.stamp
  assert len(calls) == 2
  features, logits = first.extract(images[:300])
  assert features.shape == (300, small_network.DIM) and logits.shape == (300, 10)
  np.testing.assert_allclose(cached.extract(images[:300])[0], features, atol=1e-5)
  # Noisier images are further from the real ones.
  rng = np.random.default_rng(0)
  real = statistics_of(features)
  distances = []
  for level in (0, 30, 90):
    noisy = images[300:] + rng.normal(0, level, images[300:].shape)
    noisy_features, _ = first.extract(np.clip(noisy, 0, 255).astype(np.uint8))
    distances.append(frechet_distance(real, statistics_of(noisy_features)))
  assert distances[0] < distances[1] < distances[2]
