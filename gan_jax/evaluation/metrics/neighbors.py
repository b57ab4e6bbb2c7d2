"""Exact nearest neighbors; precision, recall, density and coverage of features.

Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.

Distances are computed blockwise in float32 on the devices. Where the rounding error of
float32 leaves a decision open, the distance is recomputed in float64 on the host, so
results depend neither on the block size nor on the number of devices.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float, Int, Num

from gan_jax import UserError
from gan_jax.runtime.mesh import AXIS, make_mesh

BLOCK_SIZE = 2048  # points per block; a block of distances is [BLOCK_SIZE, BLOCK_SIZE]
_EXTRA_CANDIDATES = 8  # beyond k, so that float32 rarely misses the k-th neighbor
_PAIRS_PER_CHUNK = 4096  # pairs whose features are gathered at once in float64


class NeighborScores(NamedTuple):
  """Shares of images in [0, 1], except density, which may exceed 1."""

  precision: float  # share of generated images within the ball of a real image
  recall: float  # share of real images within the ball of a generated image
  density: float  # number of real balls that hold a generated image, mean, over k
  coverage: float  # share of real images whose ball holds a generated image


class Neighbors(NamedTuple):
  """The nearest rows of each query, nearest first."""

  rows: Int[np.ndarray, 'n k']  # their indices
  square: Float[np.ndarray, 'n k']  # squared distances, float64; inf: there is no row


class _Points:
  """Points [n, d] with their norms; blocks are centered on an origin, in float32.

  A squared distance computed in float32 is within `slack * (|x| + |y|)^2` of the exact
  one. The slack is four times the rounding bound of a dot product of d terms (Higham,
  Accuracy and Stability of Numerical Algorithms, section 3.1).
  """

  def __init__(self, rows: np.ndarray, origin: np.ndarray):
    self.rows, self._origin = rows, origin.astype(np.float32)
    squares = [
      np.square(self._centered(rows[i : i + BLOCK_SIZE]), dtype=np.float64).sum(1)
      for i in range(0, len(rows), BLOCK_SIZE)
    ]
    self.norms = np.sqrt(np.concatenate([np.zeros(0), *squares]))

  def _centered(self, rows: np.ndarray) -> np.ndarray:
    return (rows - self._origin).astype(np.float32)

  def block(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, norms, and which of them are valid: the last block is padded."""
    n = len(self.rows[start : start + size])
    index = np.minimum(np.arange(start, start + size), start + n - 1)
    norms = self.norms[index].astype(np.float32)
    return self._centered(self.rows[index]), norms, np.arange(size) < n


class _Balls(_Points):
  """Points with the squared radius around each of them."""

  def __init__(self, rows: np.ndarray, origin: np.ndarray, radii: np.ndarray):
    super().__init__(rows, origin)
    self.radii = radii

  def ball_block(self, start: int, size: int) -> tuple[np.ndarray, ...]:
    """`block`, with the radii in float32 before the valid mask."""
    points, norms, valid = self.block(start, size)
    radii = self.radii[start : start + size]
    padded = np.pad(radii, (0, size - len(radii))).astype(np.float32)
    return points, norms, padded, valid


def _distances(x: Array, x_norm: Array, y: Array, y_norm: Array) -> tuple[Array, Array]:
  """Squared distances [n, m] and a bound of their rounding errors."""
  dots = jnp.dot(x, y.T, precision=jax.lax.Precision.HIGHEST)
  square = x_norm[:, None] ** 2 + y_norm[None] ** 2 - 2 * dots
  slack = 4 * (x.shape[1] + 16) * 2.0**-24
  return square, slack * (x_norm[:, None] + y_norm[None]) ** 2


def _nearest(
  m: int, x: Array, x_norm: Array, y: Array, y_norm: Array, y_valid: Array
) -> tuple[Array, Array]:
  """The m smallest lower bounds of each x's distances to y, with their columns."""
  square, error = _distances(x, x_norm, y, y_norm)
  low = jnp.where(y_valid[None], square - error, jnp.inf)
  negated, column = jax.lax.top_k(-low, m)
  return -negated, column


def _membership(
  x: Array,
  x_norm: Array,
  x_radius: Array,
  x_valid: Array,
  y: Array,
  y_norm: Array,
  y_radius: Array,
  y_valid: Array,
) -> tuple[Array, ...]:
  """Which points x lie in the balls of y, and which points y in the balls of x.

  Returns:
    The number of y balls around each x; whether each ball of y holds an x; whether
    each y lies in a ball of x; the pairs [n, m] that are undecided for the balls of y,
    and for the balls of x; and whether any pair is undecided.
  """
  square, error = _distances(x, x_norm, y, y_norm)
  valid = x_valid[:, None] & y_valid[None]
  in_y = valid & (square + error < y_radius[None])
  in_x = valid & (square + error < x_radius[:, None])
  undecided_y = valid & ~in_y & (square - error <= y_radius[None])
  undecided_x = valid & ~in_x & (square - error <= x_radius[:, None])
  return (
    in_y.sum(1, dtype=jnp.int32),
    in_y.any(0),
    in_x.any(0),
    undecided_y,
    undecided_x,
    (undecided_y | undecided_x).any(),
  )


@lru_cache
def _jit_nearest(mesh: Mesh, m: int) -> Callable[..., tuple[Array, Array]]:
  """Compiles `_nearest` with x sharded and y replicated."""
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  shardings = (sharded,) * 2 + (replicated,) * 3
  return jax.jit(partial(_nearest, m), in_shardings=shardings)


@lru_cache
def _jit_membership(mesh: Mesh) -> Callable[..., tuple[Array, ...]]:
  """Compiles `_membership` with x sharded and y replicated."""
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  return jax.jit(_membership, in_shardings=(sharded,) * 4 + (replicated,) * 4)


def _exact_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Squared distances between corresponding rows, in float64."""
  return np.square(x.astype(np.float64) - y.astype(np.float64)).sum(-1)


def _blocks(n: int, mesh: Mesh, block_size: int) -> tuple[int, range]:
  """A block size that is divisible by the mesh, and the starts of the blocks."""
  size = -(-min(n, block_size) // mesh.size) * mesh.size
  return size, range(0, n, size)


def neighbor_radii(
  rows: Float[np.ndarray, 'n d'],
  k: int,
  mesh: Mesh | None = None,
  origin: Float[np.ndarray, ' d'] | None = None,
  block_size: int = BLOCK_SIZE,
) -> Float[np.ndarray, ' n']:
  """Squared distance from each point to its k-th nearest neighbor, in float64.

  A point is not its own neighbor; another point at the same place is. Float32
  distances select candidates, whose exact distances decide. Where rounding could have
  hidden a nearer point, the distances to all points are computed in float64.

  Args:
    origin: point near the data, for the accuracy of float32; None takes the mean.

  Raises:
    UserError: at most k points.
  """
  n = len(rows)
  if n <= k:
    raise UserError(f'{n} images have no {k}-th nearest neighbor: take more than {k}.')
  nearest = nearest_neighbors(rows, rows, k + 1, mesh, origin, block_size)
  return nearest.square[:, k]


def nearest_neighbors(
  queries: Num[np.ndarray, 'n d'],
  rows: Num[np.ndarray, 'm d'],
  k: int = 1,
  mesh: Mesh | None = None,
  origin: Float[np.ndarray, ' d'] | None = None,
  block_size: int = BLOCK_SIZE,
  *,
  skip_equal: bool = False,
) -> Neighbors:
  """The k rows nearest to each query, exactly.

  Float32 distances select candidates, whose exact distances decide. Where rounding
  could have hidden a nearer row, the distances to all rows are computed in float64.
  Memory beyond the arguments depends on `block_size` only.

  Args:
    origin: point near the data, for the accuracy of float32; None takes the mean.
    skip_equal: leave out rows that equal the query, for example the query itself.
  """
  mesh = mesh or make_mesh(jax.local_devices())
  origin = rows.mean(0, dtype=np.float64) if origin is None else origin
  points, asked = _Points(rows, origin), _Points(queries, origin)
  row_size, _ = _blocks(len(rows), mesh, block_size)
  size, starts = _blocks(len(queries), mesh, block_size)
  m = min(k + 1 + _EXTRA_CANDIDATES, row_size)
  index = np.zeros((len(queries), k), np.int64)
  square = np.full((len(queries), k), np.inf)

  def among(query: int, candidates: np.ndarray) -> int:
    """Puts the nearest of the candidates down; returns how many there are, up to k."""
    found = _distances_to(queries[query], rows, candidates)
    candidates = candidates[found > 0] if skip_equal else candidates
    found = found[found > 0] if skip_equal else found
    order = np.argsort(found, kind='stable')[:k]
    index[query, : len(order)] = candidates[order]
    square[query, : len(order)] = found[order]
    return len(order)

  for start in starts:
    low, column = _candidates(asked.block(start, size), points, row_size, m, mesh)
    worst = low.max(1)  # a lower bound of the distance to all other rows
    for i in range(min(size, len(queries) - start)):
      valid = np.isfinite(low[i])
      n = among(start + i, np.sort(column[i, valid]))
      # Fewer than m finite candidates are all the rows.
      complete = not valid.all() or len(rows) <= m
      if not complete and (n < k or square[start + i, -1] > worst[i]):
        among(start + i, np.arange(len(rows)))
  return Neighbors(index, square)


class MirroredNeighbors(NamedTuple):
  """The nearest rows of each query, nearest first, as they are or mirrored."""

  rows: Int[np.ndarray, 'n k']
  square: Float[np.ndarray, 'n k']  # of the nearer of both; inf: there is no row
  mirrored: Bool[np.ndarray, 'n k']  # whether the mirrored row is nearer


def nearest_of_batches(
  queries: Num[np.ndarray, 'n d'],
  batches: Iterable[tuple[Num[np.ndarray, 'b d'], Num[np.ndarray, 'b d'] | None]],
  k: int,
  mesh: Mesh | None = None,
) -> MirroredNeighbors:
  """The k rows nearest to each query, exactly, of rows that come in batches.

  Args:
    batches: rows, and the same rows mirrored or None. A row is as near as the nearer of
      both. All batches together need not fit into memory.
  """
  n, start = len(queries), 0
  best = MirroredNeighbors(
    np.zeros((n, 0), np.int64), np.zeros((n, 0)), np.zeros((n, 0), bool)
  )
  for plain, mirrored in batches:
    found = [best]
    for is_mirrored, rows in ((False, plain), (True, mirrored)):
      if rows is not None:
        nearest = nearest_neighbors(queries, rows, k, mesh)
        found.append(
          MirroredNeighbors(
            nearest.rows + start, nearest.square, np.full((n, k), is_mirrored)
          )
        )
    best, start = _nearest_rows(found, k), start + len(plain)
  return best


def _nearest_rows(found: list[MirroredNeighbors], k: int) -> MirroredNeighbors:
  """The k nearest of all, each row once; of equally near ones the first row."""
  joined = MirroredNeighbors(*(np.concatenate(x, 1) for x in zip(*found, strict=True)))

  def in_order(joined: MirroredNeighbors) -> MirroredNeighbors:
    order = np.lexsort((joined.mirrored, joined.rows, joined.square))
    return MirroredNeighbors(*(np.take_along_axis(x, order, 1) for x in joined))

  joined = in_order(joined)
  same = joined.rows[:, :, None] == joined.rows[:, None]
  repeated = np.tril(same, -1).any(2)
  square = np.where(repeated, np.inf, joined.square)
  joined = in_order(joined._replace(square=square))
  return MirroredNeighbors(*(x[:, :k] for x in joined))


def _distances_to(
  query: np.ndarray, rows: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
  """Squared distances of a query to the chosen rows, in float64, in small chunks."""
  starts = range(0, len(chosen), BLOCK_SIZE)
  chunks = [rows[chosen[i : i + BLOCK_SIZE]] for i in starts]
  return np.concatenate([np.zeros(0), *(_exact_distances(query, x) for x in chunks)])


def _candidates(
  queries: tuple[np.ndarray, ...], points: _Points, size: int, m: int, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
  """The m points of smallest lower bound for each query of a block.

  Args:
    queries: of `_Points.block`.
    size: points per block.

  Returns:
    Lower bounds of the squared distances [queries, m], and the indices of the points.
  """
  x, x_norm, _ = queries
  query = jax.device_put((x, x_norm), NamedSharding(mesh, P(AXIS)))
  nearest = _jit_nearest(mesh, m)
  low = np.full((len(x), m), np.inf, np.float32)
  column = np.zeros((len(x), m), np.int64)
  for other in range(0, len(points.rows), size):
    block_low, block_column = nearest(*query, *points.block(other, size))
    low = np.concatenate([low, block_low], 1)
    column = np.concatenate([column, np.asarray(block_column) + other], 1)
    best = np.argpartition(low, m - 1, 1)[:, :m]
    low = np.take_along_axis(low, best, 1)
    column = np.take_along_axis(column, best, 1)
  return low, column


def neighbor_scores(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'm d'],
  k: int = 3,
  *,
  closed: bool = True,
  mesh: Mesh | None = None,
  block_size: int = BLOCK_SIZE,
) -> NeighborScores:
  """Improved precision and recall, density and coverage of feature vectors.

  The ball of a point reaches to its k-th nearest neighbor in its own set.

  Args:
    closed: a point at exactly the radius counts as inside, as in torch-fidelity; in
      prdc and StudioGAN it does not. The results differ only for equal distances.
    block_size: points per block of distances; changes memory, not results.

  Raises:
    UserError: at most k images on a side.
  """
  mesh = mesh or make_mesh(jax.local_devices())
  origin = real.mean(0, dtype=np.float64)
  reals, fakes = (
    _Balls(rows, origin, neighbor_radii(rows, k, mesh, origin, block_size))
    for rows in (real, fake)
  )
  members = _Members(reals, fakes, closed)
  fake_size, fake_starts = _blocks(len(fake), mesh, block_size)
  real_size, real_starts = _blocks(len(real), mesh, block_size)
  membership, sharded = _jit_membership(mesh), NamedSharding(mesh, P(AXIS))
  for i in fake_starts:
    query = jax.device_put(fakes.ball_block(i, fake_size), sharded)
    for j in real_starts:
      results = membership(*query, *reals.ball_block(j, real_size))
      members.add_block(i, j, results)
  return NeighborScores(
    precision=float((members.real_balls > 0).mean()),
    recall=float(members.recalled.mean()),
    density=float(members.real_balls.mean() / k),
    coverage=float(members.covered.mean()),
  )


class _Members:
  """Accumulates, block by block, which points lie in which balls."""

  def __init__(self, reals: _Balls, fakes: _Balls, closed: bool):
    self._reals, self._fakes = reals, fakes
    self._inside = np.less_equal if closed else np.less
    # Number of real balls around each generated image.
    self.real_balls = np.zeros(len(fakes.rows), np.int64)
    # Whether the ball of each real image holds a generated image.
    self.covered = np.zeros(len(reals.rows), bool)
    # Whether each real image lies in the ball of a generated image.
    self.recalled = np.zeros(len(reals.rows), bool)

  def add_block(self, i: int, j: int, results: tuple[Array, ...]) -> None:
    """Adds the results of `_membership` for fakes from i on and reals from j on."""
    count, holds, held, undecided_real, undecided_fake, any_undecided = results
    fakes, reals = slice(i, i + len(count)), slice(j, j + len(holds))
    n, m = len(self.real_balls[fakes]), len(self.covered[reals])  # without padding
    self.real_balls[fakes] += np.asarray(count)[:n]
    self.covered[reals] |= np.asarray(holds)[:m]
    self.recalled[reals] |= np.asarray(held)[:m]
    if any_undecided:
      self._decide(
        np.argwhere(np.asarray(undecided_real)) + [i, j],
        np.argwhere(np.asarray(undecided_fake)) + [i, j],
      )

  def _decide(self, pairs_real: np.ndarray, pairs_fake: np.ndarray) -> None:
    """Decides (fake, real) pairs for the balls of reals and of fakes, in float64."""
    for fake, real, square in self._exact_pairs(pairs_real):
      inside = self._inside(square, self._reals.radii[real])
      np.add.at(self.real_balls, fake[inside], 1)
      self.covered[real[inside]] = True
    for fake, real, square in self._exact_pairs(pairs_fake):
      inside = self._inside(square, self._fakes.radii[fake])
      self.recalled[real[inside]] = True

  def _exact_pairs(self, pairs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields fake and real indices with exact squared distances, in small chunks."""
    for start in range(0, len(pairs), _PAIRS_PER_CHUNK):
      fake, real = pairs[start : start + _PAIRS_PER_CHUNK].T
      yield fake, real, _exact_distances(self._fakes.rows[fake], self._reals.rows[real])
