"""Draws the first weights of a run with one small compiled program.

Compiled as a whole, the initialization of a network has several kernels for each array
that is drawn. Here one program draws the random bits of all arrays and applies the
elementwise operations on them, with one kernel for all arrays that are treated alike.
NumPy and LAPACK do the rest on the host. The bits are those of `jax.random`, and
XLA:CPU calls the same LAPACK, so the weights are those of `jax.jit` on a CPU; only
large orthogonal kernels differ, by rounding. That program runs on the host too, beside
an accelerator that could compile and factorize for a minute.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# rows * columns^2 of the smallest matrix that is orthogonalized by Cholesky: its QR
# decomposition takes about 0.1 s.
_LARGE = 2**30


class _NotSplitError(Exception):
  """The function draws in a way that cannot be taken out of it."""


def draw_weights(init: Callable[[PRNGKeyArray], Tree], key: PRNGKeyArray) -> Tree:
  """`jax.jit(init)(key)` of the host's CPU in less time; up to `_LARGE` the same bits.

  A function that uses its key in other ways than `fold_in`, `split` and draws of 32-bit
  numbers is compiled as a whole. The last bit can differ where drawn arrays are
  multiplied with each other: XLA combines their constant factors.

  Returns:
    NumPy arrays on the host; of a function that is compiled as a whole, JAX arrays.
  """
  with _on_host():
    return _draw_weights(init, key)


@contextlib.contextmanager
def _on_host() -> Iterator[None]:
  """Programs run on the host's CPU, unless JAX_PLATFORMS leaves it out."""
  try:
    (host, *_) = jax.local_devices(backend='cpu')
  except RuntimeError:
    yield
    return
  with jax.default_device(host):
    yield


def _draw_weights(init: Callable[[PRNGKeyArray], Tree], key: PRNGKeyArray) -> Tree:
  """`draw_weights` on JAX's default device."""
  traced, shapes = jax.make_jaxpr(init, return_shape=True)(key)
  jaxpr, _ = dce_jaxpr(
    traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True
  )
  try:
    draws = _list_draws(jaxpr, traced.consts, key)
    plan = _HostEvaluation()
    plan.run(jaxpr, traced.consts)
    drawn = _draw(list(plan.missing.values()), draws)
    leaves = _HostEvaluation(drawn).run(jaxpr, traced.consts)
    if any(x is None for x in leaves):
      raise _NotSplitError
  except _NotSplitError:
    return jax.jit(init, compiler_options=one_off_compiler_options())(key)
  # No two leaves share memory: the training step overwrites them.
  return jax.tree.unflatten(jax.tree.structure(shapes), [np.array(x) for x in leaves])


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

  _evaluate_keys(jaxpr, consts, [key], note)
  if not draws:
    raise _NotSplitError
  return draws


def _evaluate_keys(
  jaxpr: Jaxpr,
  consts: Sequence[Any],
  args: Sequence[Any],
  on_bits: Callable[[Any, tuple[int, ...], int], None],
) -> list[Any]:
  """Evaluates the equations that yield keys; the values of the others are None.

  Args:
    on_bits: is called with the key, the shape and the bit width of each draw.

  Raises:
    _NotSplitError: an equation needs a key and is no draw, or yields a key from values
      that are no keys.
  """
  values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
  values |= zip(jaxpr.invars, args, strict=True)
  for eqn in jaxpr.eqns:
    inputs = [_value(atom, values) for atom in eqn.invars]
    outputs: Sequence[Any] = [None] * len(eqn.outvars)
    if eqn.primitive.name == 'jit':
      inner = eqn.params['jaxpr']
      outputs = _evaluate_keys(inner.jaxpr, inner.consts, inputs, on_bits)
    elif eqn.primitive.name == 'random_bits':
      on_bits(inputs[0], eqn.params['shape'], eqn.params['bit_width'])
    elif any(map(_is_key, eqn.outvars)):
      if any(x is None for x in inputs):
        raise _NotSplitError
      outputs = _bind(eqn, inputs)
    elif any(map(_is_key, eqn.invars)):
      raise _NotSplitError
    values |= zip(eqn.outvars, outputs, strict=True)
  return [_value(atom, values) for atom in jaxpr.outvars]


def _value(atom: Any, values: Mapping[Any, Any]) -> Any:
  return atom.val if isinstance(atom, Literal) else values[atom]


def _is_key(atom: Any) -> bool:
  return jnp.issubdtype(atom.aval.dtype, jax.dtypes.prng_key)


def _bind(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any]:
  outputs = eqn.primitive.bind(*inputs, **eqn.params)
  return outputs if eqn.primitive.multiple_results else [outputs]


@dataclasses.dataclass(frozen=True)
class _Operation:
  """An elementwise operation on a draw; the other operands are scalars."""

  primitive: Any
  params: Mapping[str, Any]
  operands: tuple[np.ndarray | None, ...]  # None is the draw

  def __call__(self, x: Array) -> Array:
    operands = [x if y is None else y for y in self.operands]
    return self.primitive.bind(*operands, **self.params)

  def __str__(self) -> str:
    scalars = [y if y is None else (y.dtype.str, y.tobytes()) for y in self.operands]
    return f'{self.primitive.name} {sorted(self.params.items())} {scalars}'


@dataclasses.dataclass(frozen=True)
class _Chain:
  """An array of random bits and the elementwise operations on it."""

  draw: int  # its number
  shape: tuple[int, ...]
  operations: tuple[_Operation, ...] = ()

  @property
  def recipe(self) -> str:
    """Equal for arrays that are treated alike."""
    return '\n'.join(map(str, self.operations))

  @property
  def name(self) -> tuple[int, str]:
    return self.draw, self.recipe

  def apply(self, x: Array) -> Array:
    for operation in self.operations:
      x = operation(x)
    return x


_ELEMENTWISE = {
  *('add', 'sub', 'mul', 'div', 'max', 'min', 'erf_inv', 'log', 'sqrt', 'exp', 'neg'),
  *('shift_right_logical', 'or', 'bitcast_convert_type', 'convert_element_type'),
}


class _HostEvaluation:
  """Evaluates a function without its draws, of which the results are given.

  Attributes:
    missing: chains whose results were needed, but not given. What depends on them is
      None.
  """

  def __init__(self, drawn: Mapping[tuple[int, str], np.ndarray] | None = None) -> None:
    self._drawn, self.missing = drawn, dict[tuple[int, str], _Chain]()
    self._number = itertools.count()

  def run(self, jaxpr: Jaxpr, consts: Sequence[Any]) -> list[Any]:
    """The results of a function whose only argument is a key."""
    outputs = self._evaluate(jaxpr, consts, [None])
    return [self._array(x) for x in outputs]

  def _evaluate(
    self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]
  ) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, args, strict=True)
    for eqn in jaxpr.eqns:
      inputs = [_value(atom, values) for atom in eqn.invars]
      if eqn.primitive.name == 'jit':
        inner = eqn.params['jaxpr']
        outputs = self._evaluate(inner.jaxpr, inner.consts, inputs)
      elif eqn.primitive.name == 'random_bits':
        outputs = [_Chain(next(self._number), eqn.params['shape'])]
      elif any(map(_is_key, eqn.outvars)):
        outputs = [None] * len(eqn.outvars)
      else:
        outputs = self._apply(eqn, inputs)
      values |= zip(eqn.outvars, outputs, strict=True)
    return [_value(atom, values) for atom in jaxpr.outvars]

  def _apply(self, eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    chains = [x for x in inputs if isinstance(x, _Chain)]
    others = [x for x in inputs if not isinstance(x, _Chain)]
    if len(chains) == 1 and eqn.primitive.name in _ELEMENTWISE:
      (chain,), (out,) = chains, eqn.outvars
      scalars = all(x is not None and np.size(x) == 1 for x in others)
      if scalars and out.aval.shape == chain.shape:
        operands = tuple(
          None if isinstance(x, _Chain) else np.asarray(x).reshape(()) for x in inputs
        )
        operation = _Operation(eqn.primitive, eqn.params, operands)
        operations = (*chain.operations, operation)
        return [dataclasses.replace(chain, operations=operations)]
    arrays = [self._array(x) for x in inputs]
    if any(x is None for x in arrays):
      return [None] * len(eqn.outvars)
    rule = _RULES.get(eqn.primitive.name, lambda *_, **__: None)
    outputs = rule(*arrays, **eqn.params)
    outputs = _bind(eqn, arrays) if outputs is None else outputs
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [
      np.asarray(x, out.aval.dtype) for x, out in zip(outputs, eqn.outvars, strict=True)
    ]

  def _array(self, value: Any) -> Any:
    if not isinstance(value, _Chain):
      return None if value is None else np.asarray(value)
    if self._drawn is None:
      self.missing[value.name] = value
      return None
    if value.name not in self._drawn:  # a scalar operand depends on another draw
      raise _NotSplitError
    return self._drawn[value.name]


def _broadcast(
  x: np.ndarray, *, shape: tuple[int, ...], broadcast_dimensions: Any, **_: Any
) -> np.ndarray:
  aligned = [1] * len(shape)
  for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
    aligned[axis] = size
  return np.broadcast_to(x.reshape(aligned), shape)


def _iota(*, dtype: Any, shape: tuple[int, ...], dimension: int, **_: Any) -> Any:
  aligned = [-1 if axis == dimension else 1 for axis in range(len(shape))]
  return np.broadcast_to(np.arange(shape[dimension]).reshape(aligned), shape)


def _multiply(x: np.ndarray, y: np.ndarray, **_: Any) -> np.ndarray:
  """x * y, without work where y is one row of ones, as signs of columns often are."""
  row = y[:1] if y.ndim == 2 and not y.strides[0] else None
  return x if row is not None and (row == 1).all() else np.multiply(x, y)


def _qr(x: np.ndarray, *, full_matrices: bool, pivoting: bool, **_: Any) -> Any:
  if full_matrices or pivoting or x.ndim != 2 or x.dtype != np.float32:
    return None
  import scipy.linalg  # the LAPACK that XLA:CPU calls

  rows, columns = x.shape
  large = rows >= 2 * columns and rows * columns**2 >= _LARGE
  by_cholesky = _qr_by_cholesky(x) if large else None
  return by_cholesky or scipy.linalg.qr(x, mode='economic', check_finite=False)


def _qr_by_cholesky(x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
  """x = q r by the Cholesky factor r of x^T x, in a third of the time of LAPACK's QR.

  q is as orthogonal if columns are far from linearly dependent, as random ones are with
  twice as many rows. None if they are not.
  """
  from scipy.linalg import blas, lapack

  r, failed = lapack.spotrf(blas.ssyrk(1.0, x.T), overwrite_a=True)
  diagonal = np.diagonal(r)
  if failed or diagonal.min() < 0.5 * diagonal.max():
    return None
  return blas.strsm(1.0, r, x.T, trans_a=True).T, r


# Operations that NumPy rounds as XLA does; None: a case that is left to XLA.
_RULES: dict[str, Callable[..., Any]] = {
  'add': lambda x, y, **_: np.add(x, y),
  'sub': lambda x, y, **_: np.subtract(x, y),
  'mul': _multiply,
  'max': lambda x, y, **_: np.maximum(x, y),
  'eq': lambda x, y, **_: np.equal(x, y),
  'sign': lambda x, **_: np.sign(x),
  'copy': lambda x, **_: x,
  'reshape': lambda x, *, new_sizes, **_: x.reshape(new_sizes),
  'transpose': lambda x, *, permutation: x.transpose(permutation),
  'broadcast_in_dim': _broadcast,
  'convert_element_type': lambda x, *, new_dtype, **_: x.astype(new_dtype),
  'iota': _iota,
  'select_n': lambda i, *x, **_: np.where(i, x[1], x[0]) if i.dtype == bool else None,
  'reduce_max': lambda x, *, axes, **_: x.max(tuple(axes)),
  'qr': _qr,
}


def _draw(
  chains: Sequence[_Chain], draws: Sequence[Draw]
) -> dict[tuple[int, str], np.ndarray]:
  """The results of all chains, by name, from one compiled program."""
  groups: dict[str, list[_Chain]] = {}
  for chain in chains:
    groups.setdefault(chain.recipe, []).append(chain)
  sizes = [sum(_n_rows(c.shape) for c in group) for group in groups.values()]
  ends = list(itertools.accumulate(sizes))

  def draw_groups(
    keys: UInt32[Array, 'rows 2'], starts: UInt32[Array, ' rows']
  ) -> list[Array]:
    words = _draw_rows(keys, starts)
    return [
      group[0].apply(words[end - size : end])
      for group, size, end in zip(groups.values(), sizes, ends, strict=True)
    ]

  rows = _rows([draws[c.draw] for group in groups.values() for c in group])
  options = one_off_compiler_options()
  results = jax.jit(draw_groups, compiler_options=options)(*rows)
  return dict(_split(groups.values(), results))


def _split(
  groups: Any, results: Sequence[Array]
) -> Iterator[tuple[tuple[int, str], np.ndarray]]:
  """Yields the name and the array of each chain; `results` are rows of a group."""
  for group, result in zip(groups, results, strict=True):
    row, host = 0, np.asarray(result)
    for chain in group:
      n = _n_rows(chain.shape)
      flat = host[row : row + n].reshape(-1)[: np.prod(chain.shape, dtype=int)]
      yield chain.name, flat.reshape(chain.shape)
      row += n


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
