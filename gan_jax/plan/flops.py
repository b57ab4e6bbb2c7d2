"""FLOPs of a training step as its networks are defined, before compilation."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from gan_jax.models.base import Batch, Phase
from gan_jax.runtime.mesh import AXIS
from gan_jax.training.step import StepConfig, train_step
from gan_jax.training.train_state import TrainState

# Named scopes of work on weights, done once per step for all images.
_WEIGHT_SCOPES = ('spectral_norm', 'optimizer')


class Flops(NamedTuple):
  """FLOPs of one iteration on one device.

  Only matrix products and convolutions count; a multiply-add is 2 FLOPs.
  """

  networks: float  # forward and backward passes; proportional to the batch
  weights: float  # spectral norm and orthogonal regularization


def step_flops(
  config: StepConfig, state: TrainState, batch: Batch, phase: Phase
) -> Flops:
  """Counts the FLOPs in the jaxpr of a training step, traced for abstract devices.

  Layers take their plain form there: nothing is folded and nothing rematerialized.

  Args:
    config: what is fixed in the step.
    state: shapes of the training state.
    batch: shapes of a batch, with a leading axis of devices.
    phase: the phase of a growing GAN.
  """
  if config.gan.remat:
    gan: Any = dataclasses.replace(config.gan, remat=False)
    config = dataclasses.replace(config, gan=gan)
  # Inputs are shapes without sharding, so the axis is not an explicit one.
  devices = batch.labels.shape[0]
  mesh = AbstractMesh((devices,), (AXIS,), axis_types=(AxisType.Auto,))

  def per_device(state: TrainState, batch: Batch, key: jax.Array, phase: Phase) -> Any:
    batch = jax.tree.map(lambda x: x[0], batch)
    return train_step(config, state, batch, key, phase)

  step = jax.shard_map(
    per_device,
    mesh=mesh,
    in_specs=(P(), P(AXIS), P(), P()),
    out_specs=P(),
    check_vma=False,
  )
  shapes = lambda tree: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  jaxpr = jax.make_jaxpr(step)(shapes(state), shapes(batch), key, shapes(phase))
  return count_flops(jaxpr.jaxpr)


def count_flops(jaxpr: Any, scope: str = '') -> Flops:
  """FLOPs of a jaxpr, with loops multiplied; `scope` is the name stack around it."""
  networks = weights = 0.0
  for eqn in jaxpr.eqns:
    path = f'{scope}/{eqn.source_info.name_stack}'
    if flops := _product_flops(eqn):
      if any(name in path for name in _WEIGHT_SCOPES):
        weights += flops
      else:
        networks += flops
      continue
    trips = eqn.params['length'] if eqn.primitive.name == 'scan' else 1
    inner = [count_flops(inner, path) for inner in _inner_jaxprs(eqn)]
    if eqn.primitive.name == 'cond':  # one branch is executed
      inner = [max(inner)]
    networks += trips * sum(flops.networks for flops in inner)
    weights += trips * sum(flops.weights for flops in inner)
  return Flops(networks, weights)


def _inner_jaxprs(eqn: Any) -> list[Any]:
  """The jaxprs among the parameters of an equation: branches, bodies, callees."""
  return [
    getattr(item, 'jaxpr', item)
    for value in eqn.params.values()
    for item in (value if isinstance(value, list | tuple) else (value,))
    if hasattr(item, 'eqns') or hasattr(item, 'jaxpr')
  ]


def _product_flops(eqn: Any) -> float:
  """FLOPs of a matrix product or convolution; 0 for other equations."""
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
  if eqn.primitive.name == 'conv_general_dilated':
    _, kernel_spec, _ = eqn.params['dimension_numbers']
    kernel = eqn.invars[1].aval.shape  # its input channels are those of one group
    depth = math.prod(kernel[i] for i in kernel_spec[1:])
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
  return 0.0
