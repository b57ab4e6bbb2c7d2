"""Frozen parameters: those that a config names, and training the others alone.

A frozen parameter keeps its bits. Nothing is computed for it: no gradient, no term of
the orthogonal regularization, no all-reduce, and it is not in the gradient norm. What
belongs to it stays as well: the state of its optimizer, from which training goes on
should it be freed, and its vectors and singular values of spectral normalization, so
that the layer computes what it did. Statistics of activations (batch statistics, the
moving average of w) and EMA weights go on; the EMA of a frozen weight is that weight
once it has come to it.

Trees of trainable parameters have None in place of frozen ones, which JAX and Optax
take for no array at all.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import UserError
from gan_jax.config import Config
from gan_jax.models.base import Blocks, Network, Variables, variable_shapes
from gan_jax.runtime.errors import closest
from gan_jax.storage.nested import flatten

Tree = TypeVar('Tree')
Frozen = frozenset[str]  # paths of parameters, such as 'block0/conv1/kernel'
NONE: Frozen = frozenset()
KEYS: dict[Network, str] = {'g': 'finetune.freeze_g', 'd': 'finetune.freeze_d'}
_LISTED = 12  # names in an error message


def frozen_parameters(config: Config) -> dict[Network, Frozen]:
  """The paths of the parameters that the section `finetune` freezes.

  Raises:
    UserError: it names parameters or blocks that the network does not have, or all.
  """
  section, gan = config.finetune, config.gan
  chosen: dict[Network, tuple[str, ...]] = {
    'g': section.freeze_g,
    'd': section.freeze_d,
  }
  if not any(chosen.values()):
    return dict.fromkeys(chosen, NONE)
  networks = variable_shapes(gan)
  frozen = {}
  for (network, patterns), variables in zip(chosen.items(), networks, strict=True):
    paths = list(flatten(variables['params'], '/'))
    frozen[network] = find_frozen(network, patterns, paths, gan.blocks_of(network))
  return frozen


def find_frozen(
  network: Network, patterns: Iterable[str], paths: list[str], blocks: Blocks
) -> Frozen:
  """The paths that one of the patterns names.

  A pattern is a number of blocks, or a glob of the names of parameters or of layers,
  of which it then means all parameters.

  Args:
    paths: of all parameters of the network.
    blocks: see `GAN.blocks_of`.

  Raises:
    UserError: a pattern names nothing, or all parameters are named.
  """
  key, name = KEYS[network], network.upper()
  frozen: set[str] = set()
  for pattern in patterns:
    globs: Iterable[str] = (pattern,)
    if re.fullmatch(r'\d+', pattern):
      if not 1 <= int(pattern) <= len(blocks):
        raise UserError(
          f'{key} is {pattern}, and {name} has {len(blocks)} blocks: take a number '
          f'from 1 to {len(blocks)}, or names such as {_outermost(paths)[0]}.'
        )
      globs = [glob for block in blocks[: int(pattern)] for glob in block]
    found = {path for path in paths if any(_is_named(path, glob) for glob in globs)}
    if not found:
      raise UserError(_no_such_parameters(key, name, pattern, paths, len(blocks)))
    frozen |= found
  if frozen and len(frozen) == len(paths):
    raise UserError(
      f'{key} is {",".join(patterns)}, and so freezes all of {name}: leave something '
      'to train.'
    )
  return frozenset(frozen)


def _is_named(path: str, glob: str) -> bool:
  """Whether the glob is of a parameter, or of a layer that it is in."""
  return any(fnmatchcase(name, glob) for name in (path, *_layers(path)))


def _layers(path: str) -> Iterator[str]:
  """'a/b/kernel' -> 'a', 'a/b'."""
  parts = path.split('/')
  for n in range(1, len(parts)):
    yield '/'.join(parts[:n])


def _outermost(paths: list[str]) -> list[str]:
  """The layers that are in no other, in the order of their numbers."""
  number = lambda name: [int(x) if x.isdigit() else x for x in re.split(r'(\d+)', name)]
  return sorted({path.split('/')[0] for path in paths}, key=number)


def _no_such_parameters(
  key: str, network: str, pattern: str, paths: list[str], n_blocks: int
) -> str:
  known = {*paths, *(layer for path in paths for layer in _layers(path))}
  close = closest(pattern, sorted(known), 3)
  meant = f' (did you mean {" or ".join(map(repr, close))}?)' if close else ''
  names = _outermost(paths)
  more = ', ...' if len(names) > _LISTED else ''
  return (
    f'{key} names {pattern!r}, which no parameter of {network} matches{meant}: take a '
    f'number of blocks from 1 to {n_blocks}, or names and globs of '
    f'{", ".join(names[:_LISTED])}{more}.'
  )


def path_of(key_path: Any) -> str:
  """A key path of `jax.tree_util` as text, 'block0/conv1/kernel'."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def trainable(tree: Tree, frozen: Frozen) -> Tree:
  """A tree of parameters with None in place of the frozen ones."""
  if not frozen:
    return tree
  return jax.tree_util.tree_map_with_path(
    lambda path, x: None if path_of(path) in frozen else x, tree
  )


def with_frozen(trained: Tree, whole: Tree) -> Tree:
  """`trained`, where frozen arrays are None, with those of `whole` in their place."""
  return jax.tree.map(
    lambda x, y: y if x is None else x, trained, whole, is_leaf=lambda x: x is None
  )


def trainable_state(
  state: optax.OptState, params: PyTree[Array], frozen: Frozen
) -> optax.OptState:
  """An optimizer state with None in place of what belongs to frozen parameters."""
  if not frozen:
    return state
  structure: Any = jax.tree.structure(params)

  def like_params(x: Any) -> bool:
    return bool(jax.tree.structure(x) == structure)

  return jax.tree.map(
    lambda x: trainable(x, frozen) if like_params(x) else x, state, is_leaf=like_params
  )


def spectral_layers(frozen: Frozen) -> set[str]:
  """The layers whose weight is frozen, and with it what normalizes the weight."""
  weights = ('kernel', 'embedding')
  return {path.rpartition('/')[0] for path in frozen if path.endswith(weights)}


def keep_spectral(after: Variables, before: Variables, frozen: Frozen) -> Variables:
  """`after` with the spectral collection of frozen weights as it was before."""
  if not frozen or 'spectral' not in after:
    return after
  layers = spectral_layers(frozen)

  def keep(path: Any, new: Array, old: Array) -> Array:
    return old if path_of(path).rpartition('/')[0] in layers else new

  kept = jax.tree_util.tree_map_with_path(keep, after['spectral'], before['spectral'])
  return {**after, 'spectral': kept}


def keep_ema(new: Tree, old: Tree, weights: Tree, frozen: Frozen) -> Tree:
  """EMA weights that equal frozen ones keep their bits, which an average may round."""
  if not frozen:
    return new

  def keep(path: Any, new: Array, old: Array, x: Array) -> Array:
    return jnp.where(old == x, x, new) if path_of(path) in frozen else new

  return jax.tree_util.tree_map_with_path(keep, new, old, weights)
