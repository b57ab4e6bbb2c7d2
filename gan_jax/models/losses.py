"""Adversarial losses on scores [b, 1] and gradient penalties; all return scalars."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# jax.nn.relu rather than jnp.maximum: on the corner its gradient is 0, as in torch.


def hinge_d(real: Array, fake: Array) -> tuple[Array, Array]:
  """Hinge loss of the discriminator: its part on reals and its part on fakes."""
  return jax.nn.relu(1 - real).mean(), jax.nn.relu(1 + fake).mean()


def hinge_g(fake: Array) -> Array:
  """Hinge loss of the generator."""
  return -jnp.mean(fake)


def logistic_d(real: Array, fake: Array) -> tuple[Array, Array]:
  """Logistic loss of the discriminator: its part on reals and its part on fakes."""
  return jax.nn.softplus(-real).mean(), jax.nn.softplus(fake).mean()


def logistic_g(fake: Array) -> Array:
  """Non-saturating logistic loss of the generator."""
  return jax.nn.softplus(-fake).mean()


def wasserstein_d(real: Array, fake: Array) -> tuple[Array, Array]:
  """Wasserstein loss of the critic: its part on reals and its part on fakes."""
  return -jnp.mean(real), jnp.mean(fake)


def wasserstein_g(fake: Array) -> Array:
  """Wasserstein loss of the generator."""
  return -jnp.mean(fake)


def drift(real: Array) -> Array:
  """Keeps a critic's scores near 0 (ProGAN, appendix A.1)."""
  return jnp.square(real).mean()


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Of class weights labels [b, n] under logits [b, n]: the AC-GAN term."""
  return -(labels * jax.nn.log_softmax(logits)).sum(-1).mean()


# Penalties on the gradient of a critic with respect to images. A growing GAN defines
# them at its final resolution, where a pixel of a smaller picture is `copies` pixels:
# each receives 1 / copies of the gradient, so squared lengths are `copies` times
# smaller than at the picture's own resolution.

Critic = Callable[[Array], Array]  # images [b, h, w, c] -> scores [b, 1]


def squared_gradients(
  critic: Critic, images: Array, copies: int = 1
) -> tuple[Array, Array]:
  """Scores [b, 1], and the squared length [b] of each one's gradient by its image."""
  scores, back = jax.vjp(critic, images)
  (gradients,) = back(jnp.ones_like(scores))
  return scores, jnp.square(gradients).sum((1, 2, 3)) / copies


def r1(critic: Critic, real: Array, copies: int = 1) -> tuple[Array, Array]:
  """Scores of reals, and the mean squared gradient on them (Mescheder et al. 2018,
  arXiv:1801.04406)."""
  scores, squares = squared_gradients(critic, real, copies)
  return scores, squares.mean()


def gradient_penalty(
  critic: Critic, real: Array, fake: Array, mix: Array, copies: int = 1
) -> Array:
  """WGAN-GP's mean (|gradient| - 1)^2 (Gulrajani et al. 2017, arXiv:1704.00028).

  Taken between real (mix 0) and fake (mix 1), mix [b]. As in the original, nothing
  guards the root: a gradient of exactly zero gives no number.
  """
  mixed = real + (fake - real) * mix[:, None, None, None]
  lengths = jnp.sqrt(squared_gradients(critic, mixed, copies)[1])
  return jnp.square(lengths - 1).mean()
