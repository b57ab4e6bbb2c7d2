"""One optimizer update: gradients are averaged, and parameters stay finite."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32

from gan_jax.models.base import Variables
from gan_jax.runtime.sharding import (
  gather_shards,
  global_norm,
  local_shard,
  mean_shard,
  shard_axis,
)
from gan_jax.training.freezing import (
  NONE,
  Frozen,
  trainable,
  trainable_state,
  with_frozen,
)
from gan_jax.training.train_state import flatten_kernel

Tree = TypeVar('Tree')


class Gradients(NamedTuple):
  """Means over the images of this device."""

  loss: Float32[Array, '']
  grads: Variables


class Update(NamedTuple):
  """The result of an optimizer update."""

  params: Variables
  opt_state: optax.OptState
  grad_norm: Float[Array, '']  # of the gradient averaged over all devices
  is_finite: Bool[Array, '']  # False: the update was skipped


def apply_update(
  tx: optax.GradientTransformation,
  opt_state: optax.OptState,
  params: Variables,
  gradients: Gradients,
  lr: ArrayLike,
  n_shards: int,
  frozen: Frozen = NONE,
) -> Update:
  """Averages gradients over the devices and applies one optimizer update.

  Each device updates its shard of large arrays, then all gather the new parameters. If
  the loss or the gradient norm is non-finite, parameters and optimizer state stay.

  Args:
    opt_state: of flattened parameters (`flatten_kernels`); large arrays are shards.
    gradients: of the parameters that are not frozen.
    n_shards: see `StepConfig`.
    frozen: paths of parameters that stay, as their optimizer state does.
  """
  whole, whole_state = params, opt_state
  params = trainable(params, frozen)
  opt_state = trainable_state(opt_state, whole, frozen)
  grads = jax.tree.map(flatten_kernel, _encode_non_finite_loss(gradients))
  axes = jax.tree.map(lambda x: shard_axis(x.shape, n_shards), grads)
  with jax.named_scope('optimizer'):
    grads = jax.tree.map(mean_shard, grads, axes)
    norm = global_norm(grads, axes)
    shards = jax.tree.map(
      lambda p, axis: local_shard(flatten_kernel(p), axis), params, axes
    )
    directions, new_opt_state = optax.with_extra_args_support(tx).update(
      grads, opt_state, shards, shard_axes=axes
    )
    is_finite = jnp.isfinite(norm)
    shards = jax.tree.map(
      lambda p, u: jnp.where(is_finite, p - jnp.asarray(lr, p.dtype) * u, p),
      shards,
      directions,
    )
    # Without this barrier, XLA rounds the flattened kernels to bfloat16 instead of the
    # kernels where they are read.
    params = lax.optimization_barrier(
      jax.tree.map(
        lambda x, axis, old: gather_shards(x, axis).reshape(old.shape),
        shards,
        axes,
        params,
      )
    )
    new_opt_state = select(is_finite, new_opt_state, opt_state)
  if frozen:
    params = with_frozen(params, whole)
    new_opt_state = with_frozen(new_opt_state, whole_state)
  return Update(params, new_opt_state, norm, is_finite)


def _encode_non_finite_loss(gradients: Gradients) -> Variables:
  """The gradients, with NaN in the first array if the loss is non-finite.

  All devices learn of it by the all-reduce of the gradients. A separate collective
  could be ordered differently on each process and deadlock.
  """
  (first, *rest), treedef = jax.tree.flatten(gradients.grads)
  first += jnp.where(jnp.isfinite(gradients.loss), 0, jnp.nan).astype(first.dtype)
  return jax.tree.unflatten(treedef, [first, *rest])


def select(condition: Array, new: Tree, old: Tree) -> Tree:
  """All arrays of `new` if the condition holds, else those of `old`."""
  return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)
