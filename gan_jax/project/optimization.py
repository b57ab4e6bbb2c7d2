"""One step of a projection: Adam on latents and noise maps together."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax.project import noise_maps

Variables = dict[str, Any]  # 'latent', 'noise', 'classes': what is optimized
Render = Callable[[Variables], Float[Array, 'b h w c']]
Features = Any  # a tree of arrays, what two images are compared by
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


class Comparison(NamedTuple):
  """How images are compared: a distance between their features.

  Attributes:
    name: for the results, such as 'lpips-vgg16'.
    features: images in [-1, 1] [b, h, w, c] -> features.
    distance: two features -> [b]; one of them may be of a single image.
  """

  name: str
  features: Callable[[Float[Array, 'b h w c']], Features]
  distance: Callable[[Features, Features], Float[Array, ' b']]


class State(NamedTuple):
  """What a step changes; the first axis of all arrays but a count is the images'."""

  variables: Variables
  adam: Any


class Schedule(NamedTuple):
  """The values of one step."""

  learning_rate: ArrayLike
  noise_scale: Float[Array, ' b'] | np.ndarray  # standard deviation, per image
  noise: Float[Array, '1 ...'] | np.ndarray  # N(0, 1), shaped as one latent


def start(variables: Variables) -> State:
  """The state before the first step."""
  return State(variables, ADAM.init(variables))


def update(
  render: Render,
  compare: Comparison,
  state: State,
  targets: Features,
  values: Schedule,
  penalty_weight: float,
) -> tuple[State, Float[Array, ' b']]:
  """One step of all images; an image does not depend on the others.

  Args:
    targets: features of the target images.
    penalty_weight: of `noise_maps.penalty`.

  Returns:
    The next state, and the distances of the images before the step.
  """
  latent = state.variables['latent']
  scale = jnp.asarray(values.noise_scale).reshape(-1, *[1] * (latent.ndim - 1))
  offset = scale * values.noise

  def loss(variables: Variables) -> tuple[Array, Array]:
    noisy = {**variables, 'latent': variables['latent'] + offset}
    distances = compare.distance(compare.features(render(noisy)), targets)
    penalty = noise_maps.penalty(variables.get('noise', ()))
    return (distances + penalty_weight * penalty).sum(), distances

  gradients, distances = jax.grad(loss, has_aux=True)(state.variables)
  steps, adam = ADAM.update(gradients, state.adam)
  variables = jax.tree.map(
    lambda x, step: x - values.learning_rate * step, state.variables, steps
  )
  if 'noise' in variables:
    variables['noise'] = jax.tree.map(noise_maps.normalize, variables['noise'])
  return State(variables, adam), distances
