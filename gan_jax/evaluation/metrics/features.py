"""Scores of feature vectors: FID, IS, KID, precision/recall, density/coverage.

All start from `FeatureStats`, one per set of images. Features are float32 [n, dim];
what is computed of them is float64, or float32 with the doubtful cases done again in
float64, so that a score does not depend on batches, devices or blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.runtime.mesh import AXIS, make_mesh


class FeatureStats:
  """Mean and covariance of a stream of feature vectors, in float64, and some of them.

  Its size is fixed by `dim` and `keep`, whatever the number of images. Two of them
  merge into what one would be that had seen both streams, one after the other.
  """

  def __init__(self, dim: int, keep: int = 0):
    """`keep`: how many vectors (the first ones) are held, for KID and neighbours."""
    self.dim, self.keep = dim, keep
    self.n = 0
    self.mean = np.zeros(dim)
    self._scatter = np.zeros((dim, dim))
    self._rows: list[np.ndarray] = []
    self._labels: list[np.ndarray] = []

  def update(self, features: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Takes in features [n, dim] with the classes [n] of their images, if any.

    Raises:
      UserError: a feature is not finite.
    """
    if features.ndim != 2 or features.shape[1] != self.dim:
      raise ValueError(f'features {features.shape} where [n, {self.dim}] is needed')
    finite = np.isfinite(features).all(1)
    if not finite.all():
      raise UserError(
        f'the features of image {self.n + int(np.argmin(finite))} are not finite: the '
        'generator or the weights of the feature network hold NaN or infinity.'
      )
    if labels is None:
      labels = np.zeros(len(features), np.int32)
    self._hold(features, labels)
    if len(features):
      x = features.astype(np.float64)
      mean = x.mean(0)
      centred = x - mean
      self._join(len(x), mean, centred.T @ centred)

  def merge(self, other: 'FeatureStats') -> None:
    """Takes in another stream that follows this one."""
    self._hold(other.rows, other.labels)
    if other.n:
      self._join(other.n, other.mean, other._scatter)

  def _hold(self, rows: np.ndarray, labels: np.ndarray) -> None:
    room = self.keep - sum(map(len, self._rows))
    if room > 0:
      self._rows.append(np.array(rows[:room], np.float32))
      self._labels.append(np.array(labels[:room], np.int32))

  def _join(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
    """Chan, Golub and LeVeque: the moments of two samples taken together."""
    total = self.n + n
    shift = mean - self.mean
    self._scatter += scatter
    if self.n:
      self._scatter += np.multiply.outer(shift, shift * (self.n * n / total))
    self.mean = self.mean + shift * (n / total)
    self.n = total

  @property
  def covariance(self) -> np.ndarray:
    """float64 [dim, dim], divided by n - 1."""
    return self._scatter / max(self.n - 1, 1)

  @property
  def rows(self) -> np.ndarray:
    """The features that are held, float32 [min(n, keep), dim]."""
    if len(self._rows) != 1:
      none = np.zeros((0, self.dim), np.float32)
      self._rows = [np.concatenate([none, *self._rows])]
    return self._rows[0]

  @property
  def labels(self) -> np.ndarray:
    """The classes of `rows`, int32."""
    if len(self._labels) != 1:
      self._labels = [np.concatenate([np.zeros(0, np.int32), *self._labels])]
    return self._labels[0]

  def arrays(self) -> dict[str, np.ndarray]:
    """All of it, to be saved; `restore` reads it back."""
    return {
      'n': np.array(self.n),
      'keep': np.array(self.keep),
      'mean': self.mean,
      'scatter': self._scatter,
      'rows': self.rows,
      'labels': self.labels,
    }

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'FeatureStats':
    stats = cls(len(arrays['mean']), int(arrays['keep']))
    stats.n, stats.mean = int(arrays['n']), arrays['mean']
    stats._scatter = arrays['scatter']
    stats._rows, stats._labels = [arrays['rows']], [arrays['labels']]
    return stats


def require_full_rank(n: int, dim: int, which: str) -> None:
  """Refuses a covariance that fewer images than dimensions have left singular.

  Raises:
    UserError: its Frechet distance would measure the number of images.
  """
  if n <= dim:
    raise UserError(
      f'{n} {which} images leave the covariance of {dim} features with '
      f'rank {max(n - 1, 0)} at most: a Frechet distance needs at least '
      f'{dim + 1} images; take more, or kid, which needs no covariance.'
    )


# Frechet distance (Heusel et al. 2017, arXiv:1706.08500).


def symmetric_sqrt(matrix: np.ndarray) -> np.ndarray:
  """The square root of a positive semidefinite matrix, float64 [d, d].

  Eigenvalues within rounding of zero count as zero, so that a singular covariance
  neither turns complex nor adds the root of a rounding error for every missing rank.
  """
  values, vectors = np.linalg.eigh(matrix)
  floor = len(matrix) * np.finfo(np.float64).eps * max(values[-1], 0)
  roots = np.sqrt(np.where(values > floor, values, 0))
  return (vectors * roots) @ vectors.T


def frechet_distance(a: FeatureStats, b: FeatureStats) -> float:
  """|mean difference|^2 + tr(A + B - 2 sqrt(A B)) of two sets of features.

  The trace of sqrt(A B) is the sum of the singular values of sqrt(A) sqrt(B): no
  matrix that lacks symmetry is rooted, and a set's distance to itself is zero.
  """
  cov_a, cov_b = a.covariance, b.covariance
  root = symmetric_sqrt(cov_a) @ symmetric_sqrt(cov_b)
  mixed = np.linalg.svd(root, compute_uv=False).sum()
  shift = a.mean - b.mean
  return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * mixed)


def frechet_of_rows(a: np.ndarray, b: np.ndarray) -> float:
  """`frechet_distance` of features [n, d] and [m, d], without [d, d] matrices.

  With A = x^T x and B = y^T y the singular values wanted are those of x y^T, [n, m]:
  cheap for the few images of one class, and exact however low the rank.
  """
  a, b = a.astype(np.float64), b.astype(np.float64)
  mean_a, mean_b = a.mean(0), b.mean(0)
  x = (a - mean_a) / np.sqrt(max(len(a) - 1, 1))
  y = (b - mean_b) / np.sqrt(max(len(b) - 1, 1))
  mixed = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  shift = mean_a - mean_b
  return float(shift @ shift + np.square(x).sum() + np.square(y).sum() - 2 * mixed)


def intra_class_frechet(real: FeatureStats, fake: FeatureStats) -> float:
  """Mean over the classes of the Frechet distance within the class.

  Of the rows that are held. Classes of few images have covariances of low rank, as in
  the literature: compare only runs with equally many images.

  Raises:
    UserError: a class has fewer than two images on a side.
  """
  distances = []
  for label in np.unique(real.labels):
    a = real.rows[real.labels == label]
    b = fake.rows[fake.labels == label]
    if min(len(a), len(b)) < 2:
      raise UserError(
        f'class {label} has {len(a)} real and {len(b)} generated images: intra-class '
        'distances need at least two of each class; take more images.'
      )
    distances.append(frechet_of_rows(a, b))
  return float(np.mean(distances))


# Inception score (Salimans et al. 2016, arXiv:1606.03498).


class InceptionScore:
  """exp of the mean KL(p(y|x) || p(y)) in each of several runs of the images.

  Holds sums only: its size is splits x classes.
  """

  def __init__(self, borders: Sequence[int] | np.ndarray, classes: int, first: int = 0):
    """
    Args:
      borders: split i is images borders[i] to borders[i + 1] of the stream.
      first: the number in the stream of the first image that this one sees.
    """
    self.borders = np.asarray(borders)
    self.seen = first
    self._entropy = np.zeros(len(self.borders) - 1)  # sums of p log p
    self._p = np.zeros((len(self.borders) - 1, classes))

  def update(self, logits: np.ndarray) -> None:
    """Takes in logits [n, classes] of the next images."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    p = np.exp(log_p)
    place = np.searchsorted(self.borders, self.seen + np.arange(len(x)), 'right') - 1
    inside = (place >= 0) & (place < len(self._p))
    np.add.at(self._entropy, place[inside], (p * log_p).sum(1)[inside])
    np.add.at(self._p, place[inside], p[inside])
    self.seen += len(x)

  def merge(self, other: 'InceptionScore') -> None:
    """Takes in what another saw of the same images, which follow this one's."""
    self.seen = other.seen
    self._entropy += other._entropy
    self._p += other._p

  def arrays(self) -> dict[str, np.ndarray]:
    """All of it, to be saved; `restore` reads it back."""
    return {
      'borders': self.borders,
      'seen': np.array(self.seen),
      'entropy': self._entropy,
      'p': self._p,
    }

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'InceptionScore':
    score = cls(arrays['borders'], arrays['p'].shape[1], int(arrays['seen']))
    score._entropy, score._p = arrays['entropy'], arrays['p']
    return score

  def result(self, ddof: int = 0) -> tuple[float, float]:
    """Mean and standard deviation (divided by splits - ddof) over the splits."""
    n = np.diff(self.borders)
    mean = self._p / n[:, None]
    log = np.log(mean, where=mean > 0, out=np.zeros_like(mean))
    scores = np.exp(self._entropy / n - (mean * log).sum(1))
    if len(scores) <= ddof:
      return float(scores.mean()), float('nan')
    return float(scores.mean()), float(scores.std(ddof=ddof))


def split_borders(n: int, splits: int) -> list[int]:
  """i n // splits: splits of equal size but for rounding, nothing left over."""
  return [i * n // splits for i in range(splits + 1)]


# Kernel distance (Binkowski et al. 2018, arXiv:1801.01401).


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """(x.y / d + 1)^3, [n, d] and [m, d] -> float64 [n, m]."""
  base = x.astype(np.float64) @ y.astype(np.float64).T
  base /= x.shape[1]
  base += 1
  return base * base * base  # numpy calls pow for ** 3


def squared_mmd(
  x: np.ndarray,
  y: np.ndarray,
  kernel: Callable[[np.ndarray, np.ndarray], np.ndarray] = polynomial_kernel,
) -> float:
  """The unbiased estimate between features [n, d] and [m, d]; may be below zero."""

  def within(x):
    k = kernel(x, x)
    return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

  return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def kid_subsets(
  n_fake: int, n_real: int, subsets: int, size: int, seed: int = 2020
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Indices of each subset, without replacement, as torch-fidelity draws them."""
  rng = np.random.RandomState(seed)
  for _ in range(subsets):
    fake = rng.choice(n_fake, size, replace=False)
    yield fake, rng.choice(n_real, size, replace=False)


def kernel_distance(
  real: np.ndarray, fake: np.ndarray, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
  """KID of features [n, d]: mean and population standard deviation over subsets.

  Not multiplied by 1000.

  Raises:
    UserError: a subset is larger than a set.
  """
  if size > min(len(real), len(fake)):
    raise UserError(
      f'kid: subsets of {size} images cannot be drawn from {len(real)} real and '
      f'{len(fake)} generated ones; take more images or smaller subsets.'
    )
  chosen = kid_subsets(len(fake), len(real), subsets, size)
  values = [squared_mmd(fake[i], real[j]) for i, j in chosen]
  return float(np.mean(values)), float(np.std(values))


# Nearest neighbours, exactly, in blocks.

_CANDIDATES = 8  # beyond those asked for, so that float32 hardly ever misses one
_BLOCK = 2048


class _Points:
  """Points [n, d] about their origin, in float32 with norms, and as they were.

  A squared distance of float32 is within `slack * (|x| + |y|)^2` of the true one: the
  rounding of a dot product of d terms (Higham, section 3.1), four times over.
  """

  def __init__(self, rows: np.ndarray, origin: np.ndarray):
    self.rows = rows
    self.centred = (rows - origin.astype(np.float32)).astype(np.float32)
    self.norms = np.sqrt(np.square(self.centred, dtype=np.float64).sum(1))

  def block(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, norms, and which are there: the last block is padded to `size`."""
    n = len(self.rows[start : start + size])
    index = np.minimum(np.arange(start, start + size), start + n - 1)
    norms = self.norms[index].astype(np.float32)
    return self.centred[index], norms, np.arange(size) < n


def _distances(x: Array, x_norm: Array, y: Array, y_norm: Array) -> tuple[Array, Array]:
  """Squared distances [n, m] and how far each may be off."""
  dots = jnp.dot(x, y.T, precision=jax.lax.Precision.HIGHEST)
  square = x_norm[:, None] ** 2 + y_norm[None] ** 2 - 2 * dots
  slack = 4 * (x.shape[1] + 16) * 2.0**-24
  return square, slack * (x_norm[:, None] + y_norm[None]) ** 2


def _nearest(m, x, x_norm, y, y_norm, there):
  """The m smallest lower bounds of the distances in a block, with their columns."""
  square, off = _distances(x, x_norm, y, y_norm)
  low = jnp.where(there[None], square - off, jnp.inf)
  least, column = jax.lax.top_k(-low, m)
  return -least, column


def _membership(x, x_norm, x_ball, x_there, y, y_norm, y_ball, y_there):
  """Which x lie in the balls of y, which y in those of x, and which are in doubt."""
  square, off = _distances(x, x_norm, y, y_norm)
  there = x_there[:, None] & y_there[None]
  in_y = there & (square + off < y_ball[None])
  in_x = there & (square + off < x_ball[:, None])
  doubt_y = there & ~in_y & (square - off <= y_ball[None])
  doubt_x = there & ~in_x & (square - off <= x_ball[:, None])
  return (
    in_y.sum(1, dtype=jnp.int32),
    in_y.any(0),
    in_x.any(0),
    doubt_y,
    doubt_x,
    (doubt_y | doubt_x).any(),
  )


@lru_cache
def _compiled(mesh: Mesh, m: int):
  """`_nearest` for m neighbours and `_membership`, their first points split."""
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  nearest = jax.jit(partial(_nearest, m), in_shardings=(split,) * 2 + (whole,) * 3)
  return nearest, jax.jit(_membership, in_shardings=(split,) * 4 + (whole,) * 4)


def _exact(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Squared distances of rows that belong together, float64, over the last axis."""
  return np.square(x.astype(np.float64) - y.astype(np.float64)).sum(-1)


def _blocks(n: int, mesh: Mesh) -> tuple[int, range]:
  """A block size that divides over the mesh, and where the blocks start."""
  size = -(-min(n, _BLOCK) // mesh.size) * mesh.size
  return size, range(0, n, size)


def neighbour_radii(
  points: np.ndarray, k: int, mesh: Mesh | None = None, origin: np.ndarray | None = None
) -> np.ndarray:
  """Squared distance from each of [n, d] points to its k-th neighbour, float64 [n].

  The point itself is no neighbour of its own, an equal one is. Float32 distances,
  split over the mesh, find candidates; their true distances decide, and where
  rounding could have hidden a nearer one, the whole row is computed in float64.
  """
  if len(points) <= k:
    raise UserError(
      f'{len(points)} images have no {k}-th nearest neighbour: take more than {k}.'
    )
  mesh = mesh or make_mesh(jax.local_devices())
  n = len(points)
  size, starts = _blocks(n, mesh)
  m = min(k + 1 + _CANDIDATES, size)
  nearest, _ = _compiled(mesh, m)
  split = NamedSharding(mesh, P(AXIS))
  held = _Points(points, points.mean(0, dtype=np.float64) if origin is None else origin)
  radii = np.zeros(n)
  for start in starts:
    x, x_norm, there = held.block(start, size)
    count = int(there.sum())
    query = jax.device_put((x, x_norm), split)
    low = np.full((size, m), np.inf, np.float32)
    column = np.zeros((size, m), np.int64)
    for other in starts:
      found, place = nearest(*query, *held.block(other, size))
      low = np.concatenate([low, found], 1)
      column = np.concatenate([column, np.asarray(place) + other], 1)
      best = np.argpartition(low, m - 1, 1)[:, :m]
      low = np.take_along_axis(low, best, 1)
      column = np.take_along_axis(column, best, 1)
    worst = low.max(1)  # no other point is nearer than this
    for i in range(count):
      row = points[start + i]
      there_i = np.isfinite(low[i])
      square = np.sort(_exact(row, points[column[i, there_i]]))
      # Fewer candidates than asked for are all the points there are.
      if not there_i.all() or n <= m or square[k] <= worst[i]:
        radii[start + i] = square[k]
      else:
        radii[start + i] = np.partition(_exact(row, points), k)[k]
  return radii


class Neighbourhoods(NamedTuple):
  """Shares of images, each in 0..1, but density, which may exceed 1."""

  precision: float  # of fakes that lie in a ball of a real
  recall: float  # of reals that lie in a ball of a fake
  density: float  # balls of reals that hold a fake, over k, mean over the fakes
  coverage: float  # of reals whose ball holds a fake


def neighbourhoods(
  real: np.ndarray,
  fake: np.ndarray,
  k: int = 3,
  *,
  closed: bool = True,
  mesh: Mesh | None = None,
) -> Neighbourhoods:
  """Improved precision and recall, density and coverage, of features [n, d].

  A ball reaches to the k-th neighbour of its centre within the centre's own set
  (Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797).
  Exact: blocks and devices change nothing.

  Args:
    closed: a point at exactly the radius is inside, as in torch-fidelity; it is
      outside in prdc and StudioGAN. They differ only where distances tie.

  Raises:
    UserError: not more than k images on a side.
  """
  mesh = mesh or make_mesh(jax.local_devices())
  origin = real.mean(0, dtype=np.float64)
  real_ball = neighbour_radii(real, k, mesh, origin)
  fake_ball = neighbour_radii(fake, k, mesh, origin)
  inside = np.less_equal if closed else np.less
  _, membership = _compiled(mesh, 0)
  split = NamedSharding(mesh, P(AXIS))
  reals, fakes = _Points(real, origin), _Points(fake, origin)
  balls = np.zeros(len(fake), np.int64)  # of reals, around each fake
  covered = np.zeros(len(real), bool)  # reals whose ball holds a fake
  recalled = np.zeros(len(real), bool)  # reals in a ball of a fake
  fake_size, fake_starts = _blocks(len(fake), mesh)
  real_size, real_starts = _blocks(len(real), mesh)
  pad = lambda x, size: np.pad(x, (0, size - len(x))).astype(np.float32)
  for i in fake_starts:
    x, x_norm, x_there = fakes.block(i, fake_size)
    x_ball = pad(fake_ball[i : i + fake_size], fake_size)
    query = jax.device_put((x, x_norm, x_ball, x_there), split)
    for j in real_starts:
      y, y_norm, y_there = reals.block(j, real_size)
      y_ball = pad(real_ball[j : j + real_size], real_size)
      count, holds, held, doubt_y, doubt_x, doubt = membership(
        *query, y, y_norm, y_ball, y_there
      )
      balls[i : i + fake_size] += np.asarray(count)[x_there]
      covered[j : j + real_size] |= np.asarray(holds)[y_there]
      recalled[j : j + real_size] |= np.asarray(held)[y_there]
      if not doubt:
        continue
      for part in _parts(np.argwhere(np.asarray(doubt_y)) + [i, j]):
        a, b = part.T
        a, b = part[inside(_exact(fake[a], real[b]), real_ball[b])].T
        np.add.at(balls, a, 1)
        covered[b] = True
      for part in _parts(np.argwhere(np.asarray(doubt_x)) + [i, j]):
        a, b = part.T
        recalled[b[inside(_exact(fake[a], real[b]), fake_ball[a])]] = True
  return Neighbourhoods(
    precision=float((balls > 0).mean()),
    recall=float(recalled.mean()),
    density=float(balls.mean() / k),
    coverage=float(covered.mean()),
  )


def _parts(pairs: np.ndarray) -> list[np.ndarray]:
  """Pairs in pieces of which the features fit in little memory."""
  return np.array_split(pairs, -(-len(pairs) // 4096)) if len(pairs) else []


# What a class looks like to a network.


def class_accuracy(real: FeatureStats, fake: FeatureStats) -> tuple[float, float]:
  """How often a classifier of features finds the class that was asked for.

  The classifier is linear discriminant analysis, fitted in closed form to the held
  reals; its covariance is widened by a thousandth of its mean variance.

  Returns:
    Accuracy on the held fakes, and on half of the reals by a fit to the other half.

  Raises:
    UserError: fewer than two classes, or a class without reals in a half.
  """
  x, y = real.rows.astype(np.float64), real.labels
  even, odd = slice(0, None, 2), slice(1, None, 2)
  return (
    _agreement(x, y, fake.rows.astype(np.float64), fake.labels),
    _agreement(x[even], y[even], x[odd], y[odd]),
  )


def _agreement(x, y, other, labels) -> float:
  classes = np.unique(y)
  missing = set(labels) - set(classes)
  if missing or len(classes) < 2:
    raise UserError(
      f'a classifier of {len(classes)} classes cannot be scored'
      + (f': no real image shows class {min(missing)}' if missing else '')
      + '; take a conditional model and more real images.'
    )
  means = np.stack([x[y == c].mean(0) for c in classes])
  centred = x - means[np.searchsorted(classes, y)]
  spread = centred.T @ centred / len(x)
  spread += np.eye(len(spread)) * (1e-3 * np.trace(spread) / len(spread) + 1e-12)
  weights = np.linalg.solve(spread, means.T)
  scores = other @ weights - (means * weights.T).sum(1) / 2
  return float((classes[scores.argmax(1)] == labels).mean())
