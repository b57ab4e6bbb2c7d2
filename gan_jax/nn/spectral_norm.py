"""Spectral normalisation: a function on the variables, not on the layers.

So a network is normalised once per pass however often it is applied. Each weight that
has a `u` gets a scale; layers apply it to the weight or, where that is less work, to
what the weight is multiplied with (the collection `scales`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax.runtime.mesh import AXIS

Tree = Mapping[str, Any]


def init_spectral(
  key: Array, params: Tree, names: tuple[str, ...], vectors: int = 1
) -> dict[str, Any]:
  """A `u` [vectors, rows] ~ N(0, 1) and a log of sigma for every weight in `names`."""
  spectral = {}
  for i, (name, sub) in enumerate(sorted(params.items())):
    if not isinstance(sub, Mapping):
      continue
    found = [sub[n] for n in names if n in sub]
    if found:
      rows = found[0].shape[0] if 'embedding' in sub else found[0].shape[-1]
      u = jax.random.normal(jax.random.fold_in(key, i), (vectors, rows))
      spectral[name] = {'u': u, 'sigma': jnp.ones(vectors)}
    else:
      inner = init_spectral(jax.random.fold_in(key, i), sub, names, vectors)
      if inner:
        spectral[name] = inner
  return spectral


def spectral_scales(
  params: Tree,
  spectral: Tree,
  *,
  eps: float,
  iterations: int = 1,
  shared: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """1 / (the largest singular value) of each weight that has a `u`.

  Power iteration as in BigGAN-PyTorch layers.py: the refreshed u already enters
  sigma; u and v are constants to the gradient, sigma is not. Further rows of u
  follow the next singular values (Gram-Schmidt) and are only logged: no gradient
  passes them, and beyond the rank of a weight they become 0.

  Args:
    shared: under the mesh axis each device goes over its part of every weight only.

  Returns:
    The scales, named as the weights, and `spectral` one iteration later.
  """
  matrices: dict[tuple[str, ...], Array] = {}
  weights: dict[tuple[str, ...], str] = {}
  u: dict[tuple[str, ...], Array] = {}
  for path, entry in _entries(spectral):
    sub = params
    for name in path:
      sub = sub[name]
    weights[path] = 'kernel' if 'kernel' in sub else 'embedding'
    w = sub[weights[path]]
    u[path] = entry['u']
    matrices[path] = w.reshape(-1, w.shape[-1]) if 'kernel' in sub else w.T
  with jax.named_scope('spectral_norm'):
    fixed = lax.stop_gradient(matrices)
    iterate = _iterate_shared if shared else _iterate
    v = sigma = u
    for _ in range(iterations):
      u, v, sigma = iterate(fixed, u, eps)
  scales: dict[str, Any] = {}
  after: dict[str, Any] = {}
  for path, name in weights.items():
    first = _singular_value(matrices[path], u[path][0], v[path][0], sigma[path][0])
    _put(scales, path, {name: 1 / first})
    _put(after, path, {'u': u[path], 'sigma': sigma[path]})
  return scales, after


def _entries(spectral: Tree, path: tuple[str, ...] = ()) -> Iterator[Any]:
  for name, entry in spectral.items():
    if 'u' in entry:
      yield (*path, name), entry
    else:
      yield from _entries(entry, (*path, name))


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value


@jax.custom_vjp
def _singular_value(matrix: Array, u: Array, v: Array, sigma: Array) -> Array:
  """sigma = v W u, which is known; its gradient by W is v u^T and needs no W."""
  del matrix, u, v
  return sigma


def _singular_value_forward(matrix, u, v, sigma):
  return sigma, (u, v, sigma)


def _singular_value_backward(saved, g):
  u, v, sigma = saved
  by_matrix = (g * v)[:, None] * u[None]
  return by_matrix, jnp.zeros_like(u), jnp.zeros_like(v), jnp.zeros_like(sigma)


_singular_value.defvjp(_singular_value_forward, _singular_value_backward)


def _iterate(matrices, us, eps: float):
  """One power iteration of matrices [rest, rows], u [n, rows] -> u, v, sigma."""
  new_u, new_v, sigma = {}, {}, {}
  for path, matrix in matrices.items():
    found = _power_iteration(matrix, us[path], eps)
    new_u[path], new_v[path], sigma[path] = found
  return new_u, new_v, sigma


def _iterate_shared(matrices, us, eps: float):
  """As `_iterate`; each device reads some rows, and one all-reduce adds them up.

  v = W u needs all of u, and W^T v is a sum over rows; the length that v is divided by
  commutes with it. With several vectors, which Gram-Schmidt mixes, all read all.
  """
  devices, me = lax.axis_size(AXIS), lax.axis_index(AXIS)
  single = {path: m for path, m in matrices.items() if len(us[path]) == 1}
  others = {path: m for path, m in matrices.items() if path not in single}
  partial = {}
  for path, matrix in single.items():
    rest = matrix.shape[0]
    count = -(-rest // devices)
    start = jnp.minimum(me * count, rest - count)
    part = lax.dynamic_slice_in_dim(matrix, start, count)
    mine = start + jnp.arange(count) >= me * count  # the last parts may overlap
    v = jnp.where(mine, part @ us[path][0], 0)
    whole = jnp.zeros(rest, v.dtype)
    whole = lax.dynamic_update_slice_in_dim(whole, v, start, 0)
    partial[path] = whole, v @ part
  new_u, new_v, sigma = _iterate(others, us, eps)
  for path, (v, stretched) in lax.psum(partial, AXIS).items():
    length = jnp.maximum(jnp.linalg.norm(v), eps)
    stretched /= length
    u = _normalized(stretched, eps)
    new_u[path], new_v[path] = u[None], (v / length)[None]
    sigma[path] = (stretched @ u)[None]
  return new_u, new_v, sigma


def _power_iteration(matrix: Array, u: Array, eps: float) -> tuple[Array, Array, Array]:
  """One iteration for a matrix [rest, rows]; u [n, rows] -> u, v, sigma [n]."""
  us: list[Array] = []
  vs: list[Array] = []
  sigmas = []
  for row in u:
    v = _normalized(_orthogonalized(matrix @ row, vs, eps), eps)
    vs.append(v)
    stretched = v @ matrix
    us.append(_normalized(_orthogonalized(stretched, us, eps), eps))
    sigmas.append(stretched @ us[-1])
  return jnp.stack(us), jnp.stack(vs), jnp.stack(sigmas)


def _normalized(x: Array, eps: float) -> Array:
  return x / jnp.maximum(jnp.linalg.norm(x), eps)


def _orthogonalized(x: Array, others: list[Array], eps: float) -> Array:
  for y in others:
    x = x - (x @ y) / jnp.maximum(y @ y, eps) * y
  return x
