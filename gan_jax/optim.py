"""Optimizers as optax chains; the learning rate is the training step's (it moves)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Adam:
  """Adam's direction after orthogonal regularisation; a section of a config.

  `ortho` is the strength of the orthogonal term (0: none), `eps` stands outside the
  root, after the bias correction.
  """

  beta1: float = 0.0
  beta2: float = 0.999
  eps: float = 1e-8
  ortho: float = 0.0

  def transform(self) -> optax.GradientTransformation:
    """Gradients -> the direction that is multiplied by the learning rate."""
    if self.beta1:
      adam = optax.scale_by_adam(self.beta1, self.beta2, self.eps)
    else:  # the first moment is the gradient itself: not kept
      adam = optax.scale_by_rms(
        self.beta2, self.eps, eps_in_sqrt=False, bias_correction=True
      )
    if not self.ortho:
      return adam
    return optax.chain(orthogonal(self.ortho), adam)


def orthogonal(
  strength: float, skip: tuple[str, ...] = ('shared',), relaxed: bool = True
) -> optax.GradientTransformation:
  """Adds the orthogonal term of BigGAN-PyTorch (utils.ortho) to the gradients.

  For every kernel as a matrix W [outputs, rest] and every embedding [classes, dim]:
  2 * strength * ((W W^T without its diagonal) W), which is half the gradient of the
  squared norm. Layers named in `skip` are left alone. With `relaxed=False` the
  identity is subtracted instead of the diagonal (equation 2 of the BigGAN paper).
  """

  def term(path: Any, g: jax.Array, w: jax.Array) -> jax.Array:
    names = [entry.key for entry in path]
    if names[-1] not in ('kernel', 'embedding') or set(names) & set(skip):
      return g
    rows = w if names[-1] == 'embedding' else w.reshape(-1, w.shape[-1]).T
    gram = rows @ rows.T
    off = gram - (jnp.diag(jnp.diag(gram)) if relaxed else jnp.eye(len(gram)))
    added = off @ rows
    added = added if names[-1] == 'embedding' else added.T.reshape(w.shape)
    return g + 2 * strength * added

  def update(grads, state, params=None):
    return jax.tree_util.tree_map_with_path(term, grads, params), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
