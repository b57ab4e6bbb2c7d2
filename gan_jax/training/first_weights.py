"""Draws the first weights of a run without compiling one generator for each array.

XLA compiles the generator of random bits anew for every array that is drawn, which is
most of what it compiles before the step. Here one small program draws the bits of all
arrays, and a second one turns them into the arrays. The bits are those of `jax.random`,
so the weights are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Jaxpr, Literal
from jax.extend.random import threefry2x32_p
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import PRNGKeyArray, UInt32

from gan_jax.runtime.environment import one_off_compiler_options

Tree = TypeVar('Tree')

_ROW = 2**16  # bits are drawn in rows of so many words


class _NotSplitError(Exception):
  """The function draws in a way that cannot be taken out of it."""


def draw_weights(init: Callable[[PRNGKeyArray], Tree], key: PRNGKeyArray) -> Tree:
  """`jax.jit(init)(key)`, compiled in less time; the same bits.

  A function that uses its key in other ways than `fold_in`, `split` and draws of 32-bit
  numbers is compiled as a whole.
  """
  options = one_off_compiler_options()
  traced, shapes = jax.make_jaxpr(init, return_shape=True)(key)
  jaxpr, _ = dce_jaxpr(
    traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True
  )
  try:
    draws = _list_draws(jaxpr, traced.consts, key)
  except _NotSplitError:
    return jax.jit(init, compiler_options=options)(key)

  def finish(words: UInt32[Array, 'rows words']) -> list[Array]:
    """Everything but the draws."""
    row, arrays = 0, []
    for _, shape in draws:
      rows = _n_rows(shape)
      flat = words[row : row + rows].reshape(-1)[: np.prod(shape, dtype=int)]
      arrays.append(flat.reshape(shape))
      row += rows
    left = iter(arrays)
    return _evaluate(jaxpr, traced.consts, [None], lambda *_: next(left), keys=False)

  words = jax.jit(_draw_rows, compiler_options=options)(*_rows(draws))
  leaves = jax.jit(finish, compiler_options=options)(words)
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


Draw = tuple[np.ndarray, tuple[int, ...]]  # the two words of a key, a shape


def _list_draws(jaxpr: Jaxpr, consts: Sequence[Any], key: PRNGKeyArray) -> list[Draw]:
  """The key and the shape of each array of random bits, in the order of the draws."""
  draws: list[Draw] = []
  threefry = jax.random.key_impl(key) == 'threefry2x32'
  # The bits of an array depend on its shape otherwise.
  partitionable: bool = getattr(jax.config, 'jax_threefry_partitionable')  # noqa: B009
  if not (threefry and partitionable):
    raise _NotSplitError

  def note(key: Any, shape: tuple[int, ...], bit_width: int) -> None:
    size = np.prod(shape, dtype=int)
    if key is None or key.shape or bit_width != 32 or not 0 < size < 2**32:
      raise _NotSplitError
    draws.append((np.asarray(jax.random.key_data(key)), shape))

  _evaluate(jaxpr, consts, [key], note, keys=True)
  if not draws:
    raise _NotSplitError
  return draws


def _evaluate(
  jaxpr: Jaxpr,
  consts: Sequence[Any],
  args: Sequence[Any],
  on_bits: Callable[[Any, tuple[int, ...], int], Any],
  *,
  keys: bool,
) -> list[Any]:
  """Evaluates the equations that yield keys, or else those that do not.

  The values of the others are None.

  Args:
    on_bits: is called with the key, the shape and the bit width of each draw, and
      returns the bits.

  Raises:
    _NotSplitError: an equation needs values of both kinds, and is no draw.
  """
  values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
  values |= zip(jaxpr.invars, args, strict=True)

  def value(atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]

  for eqn in jaxpr.eqns:
    inputs = [value(atom) for atom in eqn.invars]
    if eqn.primitive.name == 'jit':
      inner = eqn.params['jaxpr']
      outputs = _evaluate(inner.jaxpr, inner.consts, inputs, on_bits, keys=keys)
    elif eqn.primitive.name == 'random_bits':
      outputs = [on_bits(inputs[0], eqn.params['shape'], eqn.params['bit_width'])]
    elif any(map(_is_key, eqn.outvars)) == keys:
      if any(x is None for x in inputs):
        raise _NotSplitError
      outputs = eqn.primitive.bind(*inputs, **eqn.params)
      outputs = outputs if eqn.primitive.multiple_results else [outputs]
    elif not keys or not any(map(_is_key, eqn.invars)):
      outputs = [None] * len(eqn.outvars)
    else:
      raise _NotSplitError
    values |= zip(eqn.outvars, outputs, strict=True)
  return [value(atom) for atom in jaxpr.outvars]


def _is_key(atom: Any) -> bool:
  return jnp.issubdtype(atom.aval.dtype, jax.dtypes.prng_key)


def _n_rows(shape: tuple[int, ...]) -> int:
  return -(-int(np.prod(shape, dtype=int)) // _ROW)


def _rows(draws: Sequence[Draw]) -> tuple[np.ndarray, np.ndarray]:
  """The key [rows, 2] of each row of words, and the index [rows] of its first word."""
  counts = [_n_rows(shape) for _, shape in draws]
  keys = np.repeat(np.stack([key for key, _ in draws]), counts, axis=0)
  starts = np.concatenate([np.arange(n, dtype=np.uint32) * _ROW for n in counts])
  return keys, starts.astype(np.uint32)


def _draw_rows(
  keys: UInt32[Array, 'rows 2'], starts: UInt32[Array, ' rows']
) -> UInt32[Array, 'rows words']:
  """Random words as `jax.random.bits` draws them: word i is the hash of (key, i)."""

  def draw(row: tuple[Array, Array]) -> Array:
    key, start = row
    index = start + jnp.arange(_ROW, dtype=jnp.uint32)
    high, low = threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(index), index)
    return high ^ low

  return lax.map(draw, (keys, starts))
