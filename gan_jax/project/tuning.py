"""Pivotal tuning: the generator is fine-tuned around the projections.

Roich et al. 2021, arXiv:2106.05744, without their locality regularization: the latents
stay as they are, and all weights of the generator (of a StyleGAN: of the synthesis
network) follow LPIPS and the mean squared difference of pixels.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from gan_jax.models.base import Variables as Weights
from gan_jax.models.base import to_float
from gan_jax.project.optimization import Variables
from gan_jax.project.projection import Batch
from gan_jax.runtime.sharding import replicate

STEPS = 350
LEARNING_RATE = 3e-4
ADAM = optax.adam(LEARNING_RATE)


class Tuning(NamedTuple):
  """A fine-tuning between two steps."""

  step: int
  params: Any
  adam: Any


def tuned_params(batch: Batch, g: Weights) -> Any:
  """The part of the weights that is tuned."""
  return g['params']['synthesis'] if batch.render.gan.style_based else g['params']


def with_params(batch: Batch, g: Weights, params: Any) -> Weights:
  """g with this part replaced."""
  if batch.render.gan.style_based:
    params = {**g['params'], 'synthesis': params}
  return {**g, 'params': params}


def begin(batch: Batch) -> Tuning:
  """The tuning before its first step."""
  params = jax.tree.map(jnp.copy, tuned_params(batch, batch.g))  # steps donate them
  return Tuning(0, params, replicate(ADAM.init(params), batch.mesh))


def structure(batch: Batch) -> Tuning:
  """A tuning with shapes in place of its arrays, for `folder.load_tree`."""
  params = tuned_params(batch, batch.g)
  return Tuning(0, params, jax.eval_shape(ADAM.init, params))


def placed(batch: Batch, tuning: Tuning) -> Tuning:
  """A tuning that was loaded, on all devices."""
  params, adam = replicate((tuning.params, tuning.adam), batch.mesh)
  return Tuning(int(tuning.step), params, adam)


def run(
  batch: Batch, variables: Variables, tuning: Tuning, steps: int
) -> Iterator[tuple[Tuning, float]]:
  """Yields the tuning after each further step, and the mean loss before it.

  Args:
    variables: of the projections, on the devices.
  """
  step = _make_step(batch, variables)
  for i in range(tuning.step, steps):
    params, adam, loss = step(tuning.params, tuning.adam)
    tuning = Tuning(i + 1, params, adam)
    yield tuning, float(loss)


def _make_step(batch: Batch, variables: Variables) -> Callable[..., Any]:
  """A jitted step (params, adam) -> (params, adam, loss)."""
  counted = batch.place(np.arange(batch.size) < batch.n)  # not the copies

  def step(
    params: Any,
    adam: Any,
    g: Weights,
    variables: Variables,
    classes: Array,
    images: Array,
    targets: Any,
  ) -> tuple[Any, Any, Array]:
    def loss(params: Any) -> Array:
      drawn = batch.render(with_params(batch, g, params), variables, classes)
      each = jnp.square(drawn - to_float(images)).mean((1, 2, 3))
      if batch.compare.name != 'pixels':
        each += batch.compare.distance(batch.compare.features(drawn), targets)
      return jnp.where(counted, each, 0).sum() / batch.n

    value, gradients = jax.value_and_grad(loss)(params)
    steps, adam = ADAM.update(gradients, adam)
    return optax.apply_updates(params, steps), adam, value

  compiled = jax.jit(step, donate_argnums=(0, 1))
  return lambda params, adam: compiled(
    params, adam, batch.g, variables, batch.classes, batch.images, batch.targets
  )
