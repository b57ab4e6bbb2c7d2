"""Spectral normalization as a function on the variables of a network, not on layers.

A network is normalized once per forward pass, however often its layers are applied.
Each weight that has a vector `u` gets a scale in the collection `scales`; a layer
multiplies either the weight or its input by it (gan_jax.nn.layers).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from gan_jax.ops.platform import platform
from gan_jax.runtime.mesh import AXIS

Tree = Mapping[str, Any]
Path = tuple[str, ...]
ByPath = dict[Path, Array]


def init_spectral(
  key: PRNGKeyArray, params: Tree, names: tuple[str, ...], vectors: int = 1
) -> dict[str, Any]:
  """The collection `spectral` of the weights called one of `names`.

  Returns:
    For each layer `u` [vectors, outputs] ~ N(0, 1) and `sigma` [vectors], the singular
    values of the last iteration.
  """
  spectral = {}
  for i, (name, sub) in enumerate(sorted(params.items())):
    if not isinstance(sub, Mapping):
      continue
    weights = [sub[n] for n in names if n in sub]
    if weights:
      rows = weights[0].shape[0] if 'embedding' in sub else weights[0].shape[-1]
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
  """1 / (largest singular value) of each weight that has a `u`, by power iteration.

  As in BigGAN-PyTorch (layers.py), the updated u enters sigma; u and v are constants
  to the gradient, sigma is not. Further rows of u follow the next singular values by
  Gram-Schmidt orthogonalization; they are for logging and have no gradient. Beyond the
  rank of a weight they become 0.

  Args:
    eps: lower bound of the vector norms.
    shared: divide the work of each weight over the devices of the mesh axis.

  Returns:
    The scales, named as the weights, and `spectral` after the iterations.
  """
  matrices: ByPath = {}
  weights: dict[Path, str] = {}
  u: ByPath = {}
  for path, entry in _layers(spectral):
    sub = params
    for name in path:
      sub = sub[name]
    weights[path] = 'kernel' if 'kernel' in sub else 'embedding'
    w = sub[weights[path]]
    u[path] = entry['u']
    matrices[path] = w.reshape(-1, w.shape[-1]) if 'kernel' in sub else w.T
  with jax.named_scope('spectral_norm'):
    constants = lax.stop_gradient(matrices)
    # On GPUs the many small kernels around one collective take longer than what they
    # spare: reading the weights.
    iterate = _iterate_shared if shared and platform() != 'gpu' else _iterate
    v = sigma = u
    for _ in range(iterations):
      u, v, sigma = iterate(constants, u, eps)
  scales: dict[str, Any] = {}
  after: dict[str, Any] = {}
  for path, name in weights.items():
    largest = _singular_value(matrices[path], u[path][0], v[path][0], sigma[path][0])
    _insert(scales, path, {name: 1 / largest})
    _insert(after, path, {'u': u[path], 'sigma': sigma[path]})
  return scales, after


def _layers(spectral: Tree, path: Path = ()) -> Iterator[tuple[Path, Tree]]:
  """Yields the path and the entry of each layer that has a `u`."""
  for name, entry in spectral.items():
    if 'u' in entry:
      yield (*path, name), entry
    else:
      yield from _layers(entry, (*path, name))


def _insert(tree: dict[str, Any], path: Path, value: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value


@jax.custom_vjp
def _singular_value(matrix: Array, u: Array, v: Array, sigma: Array) -> Array:
  """The known sigma = v W u, with the gradient v u^T by W, which does not read W."""
  del matrix, u, v
  return sigma


def _singular_value_forward(
  matrix: Array, u: Array, v: Array, sigma: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
  return sigma, (u, v, sigma)


def _singular_value_backward(
  residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, Array, Array]:
  u, v, sigma = residuals
  by_matrix = (g * v)[:, None] * u[None]
  return by_matrix, jnp.zeros_like(u), jnp.zeros_like(v), jnp.zeros_like(sigma)


_singular_value.defvjp(_singular_value_forward, _singular_value_backward)


def _iterate(matrices: ByPath, us: ByPath, eps: float) -> tuple[ByPath, ByPath, ByPath]:
  """One power iteration of matrices [rest, rows] and u [n, rows] -> u, v, sigma."""
  new_u: ByPath = {}
  new_v: ByPath = {}
  sigma: ByPath = {}
  joint = [p for p in matrices if platform() == 'gpu' and len(us[p]) == 1]
  if joint:
    v = {path: matrices[path] @ us[path][0] for path in joint}
    stretched = {path: v[path] @ matrices[path] for path in joint}
    new_u, new_v, sigma = _iterate_jointly(v, stretched, eps)
  for path, matrix in matrices.items():
    if path not in new_u:
      result = _power_iteration(matrix, us[path], eps)
      new_u[path], new_v[path], sigma[path] = result
  return new_u, new_v, sigma


def _iterate_shared(
  matrices: ByPath, us: ByPath, eps: float
) -> tuple[ByPath, ByPath, ByPath]:
  """`_iterate` with the rows of each matrix divided over the devices.

  One all-reduce adds up v = W u, to which each device contributes its rows, and W^T v,
  a sum over rows. The division by the length of v commutes with that sum. Weights with
  several vectors, which Gram-Schmidt combines, are computed on every device.
  """
  devices, device = lax.axis_size(AXIS), lax.axis_index(AXIS)
  single = {path: m for path, m in matrices.items() if len(us[path]) == 1}
  others = {path: m for path, m in matrices.items() if path not in single}
  partial = {}
  for path, matrix in single.items():
    rest = matrix.shape[0]
    count = -(-rest // devices)
    start = jnp.minimum(device * count, rest - count)
    rows = lax.dynamic_slice_in_dim(matrix, start, count)
    own = start + jnp.arange(count) >= device * count  # the last slices may overlap
    v = jnp.where(own, rows @ us[path][0], 0)
    padded = jnp.zeros(rest, v.dtype)
    padded = lax.dynamic_update_slice_in_dim(padded, v, start, 0)
    partial[path] = padded, v @ rows
  new_u, new_v, sigma = _iterate(others, us, eps)
  for path, (v, stretched) in lax.psum(partial, AXIS).items():
    length = jnp.maximum(jnp.linalg.norm(v), eps)
    stretched /= length
    u = _normalize(stretched, eps)
    new_u[path], new_v[path] = u[None], (v / length)[None]
    sigma[path] = (stretched @ u)[None]
  return new_u, new_v, sigma


def _power_iteration(matrix: Array, u: Array, eps: float) -> tuple[Array, Array, Array]:
  """One iteration of a matrix [rest, rows] and u [n, rows] -> u, v, sigma [n]."""
  us: list[Array] = []
  vs: list[Array] = []
  sigmas = []
  for row in u:
    v = _normalize(_orthogonalize(matrix @ row, vs, eps), eps)
    vs.append(v)
    stretched = v @ matrix
    us.append(_normalize(_orthogonalize(stretched, us, eps), eps))
    sigmas.append(stretched @ us[-1])
  return jnp.stack(us), jnp.stack(vs), jnp.stack(sigmas)


def _iterate_jointly(
  v: ByPath, stretched: ByPath, eps: float
) -> tuple[ByPath, ByPath, ByPath]:
  """One power iteration from v = W u and W^T v, neither of which is normalized yet.

  A GPU computes the lengths of all vectors in two kernels, not in two for each weight.
  """
  _, by_v = _lengths(v, eps)
  stretched = {path: x * by_v[path] for path, x in stretched.items()}
  length, by_u = _lengths(stretched, eps)
  new_u = {path: (x * by_u[path])[None] for path, x in stretched.items()}
  new_v = {path: (x * by_v[path])[None] for path, x in v.items()}
  return new_u, new_v, {path: (length[path] ** 2 * by_u[path])[None] for path in v}


def _lengths(vectors: ByPath, eps: float) -> tuple[ByPath, ByPath]:
  """Length of each vector, and 1 / max(length, eps)."""
  longest = max(map(len, vectors.values()))
  rows = [jnp.pad(x, (0, longest - len(x))) for x in vectors.values()]
  length = jnp.linalg.norm(jnp.stack(rows), axis=1)
  inverse = 1 / jnp.maximum(length, eps)
  by_path = lambda x: {path: x[i] for i, path in enumerate(vectors)}
  return by_path(length), by_path(inverse)


def _normalize(x: Array, eps: float) -> Array:
  return x / jnp.maximum(jnp.linalg.norm(x), eps)


def _orthogonalize(x: Array, others: list[Array], eps: float) -> Array:
  for y in others:
    x = x - (x @ y) / jnp.maximum(y @ y, eps) * y
  return x
