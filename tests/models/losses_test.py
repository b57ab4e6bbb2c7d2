"""Gradient penalties against finite differences, and their scale while growing."""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.models import losses, progressive
from gan_jax.models.base import Phase
from gan_jax.ops import resampling


def test_penalties_equal_finite_differences(rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    real, fake = (jnp.asarray(rng.normal(size=(3, 4, 4, 2))) for _ in range(2))
    interpolation = jnp.asarray(rng.uniform(size=3))
    a = jnp.asarray(rng.normal(size=(4, 4, 2, 1)))
    critic = lambda x: (
      jnp.tensordot(jnp.tanh(x), a, 3) + jnp.square(x).sum((1, 2, 3))[:, None]
    )

    def squares(images):
      """Squared gradients of the scores, by central differences in every pixel."""
      total, h = np.zeros(len(images)), 1e-5
      for i in np.ndindex(*images.shape[1:]):
        up, down = (images.at[(slice(None), *i)].add(s * h) for s in (1, -1))
        total += np.square((critic(up) - critic(down))[:, 0] / (2 * h))
      return total

    between = real + (fake - real) * interpolation[:, None, None, None]
    at_real, at_between = squares(real), squares(between)
    for copies in (1, 4):
      scores, ours = losses.r1(critic, real, copies)
      np.testing.assert_allclose(ours, at_real.mean() / copies, rtol=1e-8)
      np.testing.assert_array_equal(scores, critic(real))
      args = critic, real, fake, interpolation, copies
      for target in (1.0, 750.0):
        want = np.square(np.sqrt(at_between / copies) / target - 1).mean()
        ours = losses.gradient_penalty(*args, target)
        np.testing.assert_allclose(ours, want, rtol=1e-8)
      np.testing.assert_array_equal(
        losses.gradient_penalty(*args), losses.gradient_penalty(*args, 1.0)
      )


def test_a_penalty_at_low_resolution_is_that_of_repeated_pixels(rng_seed):
  rng = np.random.default_rng(rng_seed)
  images = jnp.asarray(rng.normal(size=(2, 4, 4, 1)), jnp.float32)
  native = lambda x: jnp.sum(jnp.sin(x), (1, 2, 3))[:, None]
  full = lambda x: native(resampling.downsample(resampling.downsample(x)))
  copies = progressive.pixel_copies(16, Phase(1.0, 0.0, 0.0, 0.0, res=4))
  np.testing.assert_allclose(
    losses.r1(native, images, copies)[1],
    losses.r1(full, resampling.upsample(resampling.upsample(images)))[1],
    rtol=1e-5,
  )
