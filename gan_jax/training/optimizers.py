"""Optimizers as Optax transformations that return directions, without learning rates.

The training step multiplies a direction by the learning rate, which changes over time.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int32, PyTree

from gan_jax.config.optimizers import AdamConfig
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import ShardAxis


def make_optimizer(config: AdamConfig) -> optax.GradientTransformation:
  """Adam as the config says, after orthogonal regularization if its strength is not 0.

  Its first moment is not stored where beta1 is 0, as it is the gradient itself.
  """
  if config.tf_eps:
    adam = tf_adam(config.beta1, config.beta2, config.eps)
  elif config.beta1:
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
  else:
    adam = optax.scale_by_rms(
      config.beta2, config.eps, eps_in_sqrt=False, bias_correction=True
    )
  if not config.ortho:
    return adam
  return optax.chain(orthogonal_regularization(config.ortho), adam)


class TfAdamState(NamedTuple):
  """State of `tf_adam`."""

  t: Int32[Array, '']  # number of updates
  mu: PyTree[Array] | None  # first moments; None where beta1 is 0
  nu: PyTree[Array]  # second moments


def tf_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
  """Adam as in TensorFlow, where eps is added before the bias correction.

  The direction is sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps). It is the
  second form in section 2 of the Adam paper (Kingma & Ba 2015, arXiv:1412.6980).
  Compared with its Algorithm 1, eps is 1 / sqrt(1 - beta2^t) times as large.
  """

  def init(params: PyTree[Array]) -> TfAdamState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    mu = jax.tree.map(jnp.zeros_like, params) if beta1 else None
    return TfAdamState(jnp.zeros((), jnp.int32), mu, zeros)

  def update(
    grads: PyTree[Array], state: TfAdamState, params: PyTree[Array] | None = None
  ) -> tuple[PyTree[Array], TfAdamState]:
    del params
    count = optax.safe_increment(state.t)
    mu, first_moment = None, grads
    if beta1:
      mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, grads)
      first_moment = mu
    nu = jax.tree.map(
      lambda v, g: beta2 * v + (1 - beta2) * jnp.square(g), state.nu, grads
    )
    t = count.astype(jnp.float32)
    scale = jnp.sqrt(1 - beta2**t) / (1 - beta1**t)

    def direction(m: Array, v: Array) -> Array:
      return scale.astype(m.dtype) * m / (jnp.sqrt(v) + eps)

    return jax.tree.map(direction, first_moment, nu), TfAdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)


def orthogonal_regularization(
  strength: float, skip: tuple[str, ...] = ('shared',), relaxed: bool = True
) -> optax.GradientTransformationExtraArgs:
  """Adds the orthogonal regularization of BigGAN-PyTorch (utils.ortho) to gradients.

  For every kernel as a matrix W [outputs, inputs], and every embedding W [classes,
  dim], the added term is 2 * strength * (W W^T - diag(W W^T)) W. This is half the
  gradient of the penalty, as in that code.

  The transformation's `update` takes the extra argument `shard_axes`, a tree of
  `ShardAxis`; None if all weights are replicated. Devices then compute the term of
  their shards.

  Args:
    skip: layers without regularization.
    relaxed: False subtracts the identity instead of the diagonal (equation 2 of the
      BigGAN paper).
  """

  def add_term(path: Any, grad: Array, w: Array, axis: ShardAxis) -> Array:
    names = [entry.key for entry in path]
    if names[-1] not in ('kernel', 'embedding') or set(names) & set(skip):
      return grad
    if names[-1] == 'embedding':
      term = _orthogonal_term(w, axis.axis, 0, relaxed)
    else:
      matrix = w.reshape(-1, w.shape[-1]).T
      term = _orthogonal_term(matrix, axis.axis, w.ndim - 1, relaxed).T.reshape(w.shape)
    return grad + 2 * strength * term

  def update(
    grads: PyTree[Array],
    state: optax.OptState,
    params: PyTree[Array] | None = None,
    *,
    shard_axes: PyTree[ShardAxis] | None = None,
    **_: Any,
  ) -> tuple[PyTree[Array], optax.OptState]:
    if shard_axes is None:
      shard_axes = jax.tree.map(lambda _: ShardAxis(None), params)
    added = jax.tree_util.tree_map_with_path(add_term, grads, params, shard_axes)
    return added, state

  init = lambda _: optax.EmptyState()
  return optax.GradientTransformationExtraArgs(init, update)


def _orthogonal_term(
  rows: Array, shard_axis: int | None, output_axis: int, relaxed: bool
) -> Array:
  """(W W^T - diag(W W^T)) W of a matrix W [outputs, inputs], or its shard.

  Args:
    rows: W, or this device's shard of it.
    shard_axis: the axis of the weight along which it is sharded; None: replicated.
    output_axis: the axis of the weight that holds the outputs.
    relaxed: see `orthogonal_regularization`.
  """
  outputs, inputs = rows.shape
  replicated, by_output = shard_axis is None, shard_axis == output_axis
  psum = (lambda x: x) if replicated else partial(lax.psum, axis_name=AXIS)
  all_inputs = inputs if replicated else inputs * lax.axis_size(AXIS)
  if by_output or outputs > all_inputs:
    # W (W^T W) - diag(W W^T) W avoids a matrix [outputs, outputs].
    dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    gather = not (replicated or by_output)  # sharded by input: needs all of W
    all_rows = lax.all_gather(rows, AXIS, axis=1, tiled=True) if gather else rows
    diagonal = jnp.square(all_rows).sum(1, keepdims=True) if relaxed else 1.0
    product = dot(all_rows.T, rows)
    return dot(all_rows, psum(product) if by_output else product) - diagonal * rows
  gram = psum(rows @ rows.T)
  off_diagonal = gram - (jnp.diag(jnp.diag(gram)) if relaxed else jnp.eye(len(gram)))
  return off_diagonal @ rows
