"""Compares two functions with each other: values, gradients, second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np


def scalar(f):
  """f with the sum of sines of all its outputs, which no gradient rule is linear in."""
  return lambda *args: sum(jnp.sin(y).sum() for y in jax.tree.leaves(f(*args)))


def penalty(f):
  """The squared gradient of `scalar(f)` by x, as in R1 and WGAN-GP."""
  return lambda x, *args: jnp.sum(jax.grad(scalar(f))(x, *args) ** 2)


def assert_equal_values(ours, plain, args, atol, rtol=1e-7):
  for a, b in zip(*(jax.tree.leaves(f(*args)) for f in (ours, plain)), strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_equal_gradients(ours, plain, args, atol, rtol=1e-7):
  """By all arguments."""
  by = tuple(range(len(args)))
  gradients = (jax.grad(f, by)(*args) for f in (ours, plain))
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
