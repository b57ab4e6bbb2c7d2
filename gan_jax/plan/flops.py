"""FLOPs of a training step as it is defined, whatever form it is compiled in."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from gan_jax.models.base import Batch, Phase
from gan_jax.runtime.mesh import AXIS
from gan_jax.training.step import TrainState, train_step

# Scopes of what is done to weights, once for all images.
_ON_WEIGHTS = ('spectral_norm', 'optimizer', 'average')


class Flops(NamedTuple):
  """Of one iteration and one device: products and convolutions, a multiplication and
  an addition counting 2; nothing else is counted."""

  networks: float  # forward and backward passes; in proportion to the batch
  weights: float  # spectral norm, orthogonal regularisation


def of_step(
  gan: Any,
  txs: tuple[Any, Any],
  d_steps: int,
  g_batch: int,
  state: TrainState,
  batch: Batch,
  phase: Phase,
) -> Flops:
  """Counted in what is traced for a mesh of devices of no kind: the plain form.

  Nothing is folded there and nothing rematerialised. `state` and `phase` are shapes;
  `batch` as well, with the devices' axis in front.
  """
  if gan.remat:
    gan = dataclasses.replace(gan, remat=False)
  mesh = AbstractMesh((batch.labels.shape[0],), (AXIS,))

  def per_device(state, batch, key, phase):
    batch = jax.tree.map(lambda x: x[0], batch)
    return train_step(gan, *txs, d_steps, g_batch, 1, state, batch, key, phase)

  traced = jax.shard_map(
    per_device,
    mesh=mesh,
    in_specs=(P(), P(AXIS), P(), P()),
    out_specs=P(),
    check_vma=False,
  )
  bare = lambda tree: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  jaxpr = jax.make_jaxpr(traced)(bare(state), bare(batch), key, bare(phase))
  return Flops(*count(jaxpr.jaxpr))


def count(jaxpr: Any, scope: str = '') -> tuple[float, float]:
  """(FLOPs, those of them within a scope of weights) of a jaxpr, loops multiplied."""
  networks = weights = 0.0
  for eqn in jaxpr.eqns:
    path = f'{scope}/{eqn.source_info.name_stack}'
    found = _products(eqn)
    if found:
      if any(name in path for name in _ON_WEIGHTS):
        weights += found
      else:
        networks += found
      continue
    times = eqn.params['length'] if eqn.primitive.name == 'scan' else 1
    inner = [
      count(getattr(j, 'jaxpr', j), path)
      for value in eqn.params.values()
      for j in (value if isinstance(value, list | tuple) else (value,))
      if hasattr(j, 'eqns') or hasattr(j, 'jaxpr')
    ]
    if eqn.primitive.name == 'cond':  # one of the branches
      inner = [max(inner)]
    networks += times * sum(n for n, _ in inner)
    weights += times * sum(w for _, w in inner)
  return networks, weights


def _products(eqn: Any) -> float:
  if eqn.primitive.name == 'dot_general':
    (lhs, _), _ = eqn.params['dimension_numbers']
    depth = math.prod(eqn.invars[0].aval.shape[i] for i in lhs)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
  if eqn.primitive.name == 'conv_general_dilated':
    _, spec, _ = eqn.params['dimension_numbers']
    kernel = eqn.invars[1].aval.shape  # its inputs are those of one group
    depth = math.prod(kernel[i] for i in spec[1:])
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
  return 0.0
