"""ReLU and leaky ReLU, with gradients that read what is kept on each device."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.ops.platform import platform

LEAKY_SLOPE = 0.2


def relu(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """max(x, 0); its gradient at 0 is 0."""
  return _rectify(x, 0.0) if platform() == 'gpu' else jax.nn.relu(x)


def leaky_relu(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """Leaky ReLU of slope 0.2; its gradient at 0 is 1, as in the original code."""
  if platform() == 'gpu':
    return _rectify(x, LEAKY_SLOPE)
  return jnp.where(x >= 0, x, LEAKY_SLOPE * x)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rectify(x: Array, slope: float) -> Array:
  """(Leaky) ReLU whose gradient reads the result, which the next layer keeps anyway.

  Nothing else needs x then, and cuDNN's convolutions apply the ReLU themselves.
  """
  return jnp.where(x >= 0, x, slope * x) if slope else jnp.maximum(x, 0)


def _rectify_backward(slope: float, y: Array, g: Array) -> tuple[Array]:
  if slope:
    return (jnp.where(y >= 0, g, slope * g),)
  # XLA would see through y > 0, which is x > 0, and keep x for it.
  return (jnp.where(y != 0, g, 0),)


def _rectify_forward(x: Array, slope: float) -> tuple[Array, Array]:
  y = _rectify(x, slope)
  return y, y


_rectify.defvjp(_rectify_forward, _rectify_backward)
