"""Adversarial losses on scores [b, 1]; each returns a scalar."""

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
