"""Optimizers as optax chains; the learning rate is the training step's (it moves)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from gan_jax.config.optimizers import AdamConfig
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import ShardAxis


def make_optimizer(config: AdamConfig) -> optax.GradientTransformation:
  """Gradients -> the direction, which the step multiplies by the learning rate."""
  if config.tf_eps:
    adam = tf_adam(config.beta1, config.beta2, config.eps)
  elif config.beta1:
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
  else:  # the first moment is the gradient itself: not kept
    adam = optax.scale_by_rms(
      config.beta2, config.eps, eps_in_sqrt=False, bias_correction=True
    )
  if not config.ortho:
    return adam
  return optax.chain(orthogonal_regularization(config.ortho), adam)


class TfAdamState(NamedTuple):
  t: Array  # int32
  mu: Any  # None where beta1 is 0: the first moment is the gradient itself
  nu: Any


def tf_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
  """Adam as TensorFlow has it: eps is added to the uncorrected root.

  sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps), so that early in training
  eps counts 1 / sqrt(1 - beta2^t) times as much as in the paper's main form.
  """

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    mu = jax.tree.map(jnp.zeros_like, params) if beta1 else None
    return TfAdamState(jnp.zeros((), jnp.int32), mu, zeros)

  def update(grads, state, params=None):
    del params
    steps = optax.safe_increment(state.t)
    mu, used = None, grads
    if beta1:
      mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, grads)
      used = mu
    nu = jax.tree.map(
      lambda v, g: beta2 * v + (1 - beta2) * jnp.square(g), state.nu, grads
    )
    t = steps.astype(jnp.float32)
    scale = jnp.sqrt(1 - beta2**t) / (1 - beta1**t)

    def direction(m, v):
      return scale.astype(m.dtype) * m / (jnp.sqrt(v) + eps)

    return jax.tree.map(direction, used, nu), TfAdamState(steps, mu, nu)

  return optax.GradientTransformation(init, update)


def orthogonal_regularization(
  strength: float, skip: tuple[str, ...] = ('shared',), relaxed: bool = True
) -> optax.GradientTransformation:
  """Adds the orthogonal term of BigGAN-PyTorch (utils.ortho) to the gradients.

  For every kernel as a matrix W [outputs, rest] and every embedding [classes, dim]:
  2 * strength * ((W W^T without its diagonal) W), which is half the gradient of the
  squared norm. Layers named in `skip` are left alone. With `relaxed=False` the
  identity is subtracted instead of the diagonal (equation 2 of the BigGAN paper).
  `update` takes a tree of `cuts`: devices that have a part of a weight each work on
  that part, and add up a product over all.
  """

  def term(path: Any, g: jax.Array, w: jax.Array, cut: ShardAxis) -> jax.Array:
    names = [entry.key for entry in path]
    if names[-1] not in ('kernel', 'embedding') or set(names) & set(skip):
      return g
    embedding = names[-1] == 'embedding'
    rows = w if embedding else w.reshape(-1, w.shape[-1]).T
    outputs, rest = rows.shape
    whole, by_output = cut.axis is None, cut.axis == (0 if embedding else w.ndim - 1)
    add = (lambda x: x) if whole else partial(lax.psum, axis_name=AXIS)
    everywhere = rest if whole else rest * lax.axis_size(AXIS)
    if by_output or outputs > everywhere:
      # W (W^T W), of which the diagonal's part is taken off: no outputs^2 matrix.
      # Cut along the rest, it takes all of W.
      dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
      here = whole or by_output
      every = rows if here else lax.all_gather(rows, AXIS, axis=1, tiled=True)
      diagonal = jnp.square(every).sum(1, keepdims=True) if relaxed else 1.0
      square = dot(every.T, rows)
      added = dot(every, add(square) if by_output else square) - diagonal * rows
    else:
      gram = add(rows @ rows.T)
      off = gram - (jnp.diag(jnp.diag(gram)) if relaxed else jnp.eye(len(gram)))
      added = off @ rows
    added = added if embedding else added.T.reshape(w.shape)
    return g + 2 * strength * added

  def update(grads, state, params, *, cuts=None, **_):
    cuts = jax.tree.map(lambda _: ShardAxis(None), params) if cuts is None else cuts
    return jax.tree_util.tree_map_with_path(term, grads, params, cuts), state

  init = lambda _: optax.EmptyState()
  return optax.GradientTransformationExtraArgs(init, update)
