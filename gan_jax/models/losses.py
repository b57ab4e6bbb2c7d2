"""Adversarial losses on scores [b, 1] and penalties on gradients; all are scalars."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scores = Float[Array, 'b 1']
Scalar = Float[Array, '']

# jax.nn.relu rather than jnp.maximum: its gradient at 0 is 0, as in torch.


def hinge_d(real: Scores, fake: Scores) -> tuple[Scalar, Scalar]:
  """Hinge loss of D: its terms for real and for fake images."""
  return jax.nn.relu(1 - real).mean(), jax.nn.relu(1 + fake).mean()


def hinge_g(fake: Scores) -> Scalar:
  """Hinge loss of G."""
  return -jnp.mean(fake)


def logistic_d(real: Scores, fake: Scores) -> tuple[Scalar, Scalar]:
  """Logistic loss of D: its terms for real and for fake images."""
  return jax.nn.softplus(-real).mean(), jax.nn.softplus(fake).mean()


def logistic_g(fake: Scores) -> Scalar:
  """Non-saturating logistic loss of G."""
  return jax.nn.softplus(-fake).mean()


def wasserstein_d(real: Scores, fake: Scores) -> tuple[Scalar, Scalar]:
  """Wasserstein loss of the critic: its terms for real and for fake images."""
  return -jnp.mean(real), jnp.mean(fake)


def wasserstein_g(fake: Scores) -> Scalar:
  """Wasserstein loss of G."""
  return -jnp.mean(fake)


def drift(real: Scores) -> Scalar:
  """Mean square of the critic's scores (ProGAN, appendix A.1)."""
  return jnp.square(real).mean()


# Penalties on the gradient of a critic by its input images. A growing GAN defines them
# at its final resolution, where one pixel of the current resolution is repeated
# `copies` times. Each copy receives 1 / copies of the gradient, so squared norms are
# `copies` times smaller than at the current resolution.

Critic = Callable[[Array], Array]  # images [b, h, w, c] -> scores [b, 1]


def squared_gradients(
  critic: Critic, images: Float[Array, 'b h w c'], copies: int = 1
) -> tuple[Scores, Float[Array, ' b']]:
  """Scores, and the squared norm of the gradient of each score by its image."""
  scores, back = jax.vjp(critic, images)
  (gradients,) = back(jnp.ones_like(scores))
  return scores, jnp.square(gradients).sum((1, 2, 3)) / copies


def r1(
  critic: Critic, real: Float[Array, 'b h w c'], copies: int = 1
) -> tuple[Scores, Scalar]:
  """Scores of real images and R1, the mean squared norm of the gradients at them.

  Source: Mescheder et al. 2018, arXiv:1801.04406.
  """
  scores, squares = squared_gradients(critic, real, copies)
  return scores, squares.mean()


def interpolate_images(
  real: Float[Array, 'b h w c'],
  fake: Float[Array, 'b h w c'],
  interpolation: Float[Array, ' b'],
) -> Float[Array, 'b h w c']:
  """Images between real (0) and fake (1)."""
  return real + (fake - real) * interpolation[:, None, None, None]


def gradient_penalty(
  critic: Critic,
  real: Float[Array, 'b h w c'],
  fake: Float[Array, 'b h w c'],
  interpolation: Float[Array, ' b'],
  copies: int = 1,
  target: float = 1.0,
) -> Scalar:
  """WGAN-GP: the mean of (norm / target - 1)^2 at images between real and fake.

  The norm is that of the gradient of a score by its image. Source: Gulrajani et al.
  2017, arXiv:1704.00028. As in the original code, nothing guards the square root: the
  penalty's own gradient is NaN where a norm is zero.
  """
  images = interpolate_images(real, fake, interpolation)
  norms = jnp.sqrt(squared_gradients(critic, images, copies)[1])
  return jnp.square(norms - target).mean() / target**2
