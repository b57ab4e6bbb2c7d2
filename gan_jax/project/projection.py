"""A projection of several images as one batch, sharded over all devices.

An image's result does not depend on the other images, nor on the number of devices.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, UInt8

from gan_jax.models.base import Variables as Weights
from gan_jax.models.base import to_float, to_uint8
from gan_jax.project import optimization, spaces
from gan_jax.project.optimization import Comparison, Features, State, Variables
from gan_jax.project.schedules import learning_rates, noise_scales
from gan_jax.project.spaces import Renderer
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import replicate
from gan_jax.sampling.samplers import run_in_batches

CANDIDATES = 256  # values of z of which the best one is the start
MAPPED = 1000  # samples of w per batch
FRAMES = 100  # of the path that is recorded, about

Iterate = Callable[[range], Iterator[int]]  # such as tqdm


class Progress(NamedTuple):
  """A projection between two steps; everything that it needs to go on.

  Attributes:
    step: steps that have been taken.
    deviation: standard deviation of the latent, per image.
    start: distances before the first step.
    path: what is optimized, without noise maps, at regular steps [frames, n, ...].
  """

  step: int
  state: State
  deviation: Float[np.ndarray, ' n']
  start: Float[np.ndarray, ' n']
  path: Variables


class Batch:
  """Target images with a generator, on all devices.

  The batch is filled up to a multiple of the devices with copies of the last image.

  Attributes:
    n: number of images.
    size: number of images with the copies.
    g: variables of the generator, replicated.
  """

  def __init__(
    self,
    render: Renderer,
    g: Weights,
    compare: Comparison,
    targets: UInt8[np.ndarray, 'n h w c'],
    labels: Int[np.ndarray, ' n'] | None,
    mesh: Mesh,
  ):
    """
    Args:
      labels: classes of the images; None: optimized in z, all of them in w.
    """
    self.n = len(targets)
    self.size = -(-self.n // mesh.size) * mesh.size
    self.render, self.compare, self.mesh, self.labels = render, compare, mesh, labels
    self.sharded, self._replicated = (
      NamedSharding(mesh, P(AXIS)),
      NamedSharding(mesh, P()),
    )
    self.g = replicate(g, mesh)
    n_classes = max(render.gan.n_classes, 1)
    shown = np.zeros(self.n, int) if labels is None else labels
    self.classes = self.place(np.eye(n_classes, dtype=np.float32)[shown])
    features = jax.jit(
      lambda x: compare.features(to_float(x)), out_shardings=self.sharded
    )
    self.images = self.place(targets)
    self.targets: Features = features(self.images)

  @property
  def optimizes_classes(self) -> bool:
    """Whether class weights are optimized: in z, unless the classes are given."""
    render = self.render
    return render.space == 'z' and render.gan.n_classes > 0 and self.labels is None

  def place(self, tree: Any) -> Any:
    """Arrays [n, ...] with the copies, sharded; scalars replicated."""

    def one(x: Any) -> Array:
      if not np.ndim(x):
        return jax.device_put(x, self._replicated)
      index = np.minimum(np.arange(self.size), len(x) - 1)
      return jax.device_put(np.asarray(x)[index], self.sharded)

    return jax.tree.map(one, tree)

  def put(self, tree: Any) -> Any:
    """Arrays [size, ...] on the devices; scalars replicated."""
    return jax.device_put(tree, self.shardings(tree))

  def shardings(self, tree: Any) -> Any:
    """Those of a state."""
    return jax.tree.map(
      lambda x: self.sharded if np.ndim(x) else self._replicated, tree
    )

  @functools.cached_property
  def _measure(self) -> Callable[..., Array]:
    def measure(
      g: Weights, variables: Variables, classes: Array, targets: Features
    ) -> Array:
      features = self.compare.features(self.render(g, variables, classes))
      return self.compare.distance(features, targets)

    return jax.jit(measure, out_shardings=self.sharded)

  def distances(
    self, variables: Variables, g: Weights | None = None
  ) -> Float[np.ndarray, ' n']:
    """The distances of the images of `variables` from the targets."""
    g = self.g if g is None else g
    found = self._measure(g, variables, self.classes, self.targets)
    return np.asarray(found)[: self.n]

  @functools.cached_property
  def _draw(self) -> Callable[..., Array]:
    draw = lambda g, variables, classes: to_uint8(self.render(g, variables, classes))
    return jax.jit(draw, out_shardings=self.sharded)

  def draw(
    self, variables: Variables, g: Weights | None = None
  ) -> UInt8[np.ndarray, 'n h w c']:
    """The images of `variables`, by default with the weights of this batch."""
    images = self._draw(self.g if g is None else g, variables, self.classes)
    return np.asarray(images)[: self.n]


def make_start(
  batch: Batch, seed: int, iterate: Iterate = iter
) -> tuple[Variables, Float[np.ndarray, ' n']]:
  """What the optimization starts from, and the standard deviation of each latent.

  In w and w+: the mean of w. In z: of CANDIDATES values the one whose image is closest.

  Args:
    seed: of the noise maps.
    iterate: goes through the candidates.
  """
  render = batch.render
  keys = jax.random.split(jax.random.key(seed), max(len(render.noise_sizes), 1))
  noise = tuple(
    np.asarray(jax.random.normal(key, (1, *size, 1)))
    for key, size in zip(keys, render.noise_sizes, strict=False)
  )
  variables = {'noise': batch.place(noise)} if noise else {}
  if render.space == 'z':
    return _closest(batch, variables, iterate), np.full(
      batch.n, render.gan.dim_z**0.5, np.float32
    )
  means, deviations = zip(*_w_statistics(batch), strict=True)
  shape = (batch.n, *render.latent_shape)
  latent = np.broadcast_to(np.stack(means)[:, None], shape)
  return {**variables, 'latent': batch.place(latent)}, np.array(deviations, np.float32)


def _w_statistics(batch: Batch) -> list[tuple[np.ndarray, float]]:
  """The mean and deviation of w for each image: those of its class, if it is given."""
  gan = batch.render.gan
  style = gan.style_based
  assert style is not None
  z = np.random.RandomState(spaces.SEED).randn(spaces.SAMPLES, gan.dim_z)
  z = z.astype(np.float32)
  w = jax.jit(style.w)

  @functools.cache
  def of_class(label: int | None) -> tuple[np.ndarray, float]:
    turns = np.arange(len(z)) % max(gan.n_classes, 1)
    labels = (turns if label is None else np.full(len(z), label)).astype(np.int32)
    rows = run_in_batches(lambda z, y: w(batch.g, z, y), [z, labels], MAPPED)
    return spaces.statistics(np.concatenate(list(rows)))

  if batch.labels is None:
    return [of_class(None)] * batch.n
  return [of_class(int(label)) for label in batch.labels]


def _closest(batch: Batch, variables: Variables, iterate: Iterate) -> Variables:
  """The start in z: the best candidate for each image, with its class if free."""
  gan, n = batch.render.gan, batch.n
  count = max(CANDIDATES, gan.n_classes)
  z = np.random.RandomState(spaces.SEED).randn(count, gan.dim_z).astype(np.float32)
  turns = np.arange(count) % max(gan.n_classes, 1)

  def candidates(which: np.ndarray) -> Variables:
    chosen = {'latent': z[which]}
    if batch.optimizes_classes:
      chosen['classes'] = spaces.class_logits(turns[which], gan.n_classes)
    return {**variables, **batch.place(chosen)}

  best, distance = np.zeros(n, int), np.full(n, np.inf)
  for i in iterate(range(count)):
    found = batch.distances(candidates(np.full(n, i)))
    best, distance = np.where(found < distance, i, best), np.fmin(distance, found)
  return candidates(best)


def structure(batch: Batch) -> Progress:
  """A projection with numbers in place of its arrays, for `folder.load_tree`."""
  path: Variables = {'latent': 0.0}
  if batch.optimizes_classes:
    path['classes'] = 0.0
  variables = dict(path)
  if sizes := batch.render.noise_sizes:
    variables['noise'] = tuple(0.0 for _ in sizes)
  state = jax.eval_shape(optimization.start, variables)
  return Progress(0, state, np.zeros(()), np.zeros(()), path)


def trimmed(batch: Batch, progress: Progress) -> Progress:
  """The projection on the host, without the copies that fill up the batch."""
  cut = lambda x: np.asarray(x)[: batch.n] if np.ndim(x) else np.asarray(x)
  return progress._replace(state=jax.tree.map(cut, progress.state))


def placed(batch: Batch, progress: Progress) -> Progress:
  """A projection that `trimmed` gave, on any number of devices."""
  state = batch.place(progress.state)
  return progress._replace(step=int(progress.step), state=state)


def begin(batch: Batch, seed: int, iterate: Iterate = iter) -> Progress:
  """The projection before its first step; see `make_start`."""
  variables, deviation = make_start(batch, seed, iterate)
  state = batch.put(optimization.start(variables))
  return Progress(0, state, deviation, batch.distances(variables), {})


def make_step(
  batch: Batch, seed: int, penalty_weight: float, like: State
) -> Callable[..., tuple[State, Array]]:
  """A jitted step (state, deviation, index, learning rate, noise scale).

  It returns the next state and the distances before the step. It is compiled once.
  """
  shape = (1, *batch.render.latent_shape)

  def step(
    g: Weights,
    state: State,
    classes: Array,
    targets: Features,
    deviation: Array,
    index: Array,
    learning_rate: Array,
    noise_scale: Array,
  ) -> tuple[State, Array]:
    key = jax.random.fold_in(jax.random.key(seed), index)
    noise = jax.random.normal(jax.random.fold_in(key, 1), shape)
    values = optimization.Schedule(learning_rate, noise_scale * deviation, noise)
    render = lambda variables: batch.render(g, variables, classes)
    state, distances = optimization.update(
      render, batch.compare, state, targets, values, penalty_weight
    )
    constrained = batch.render.constrained(state.variables)
    return state._replace(variables=constrained), distances

  outputs = (batch.shardings(like), batch.sharded)
  compiled = jax.jit(step, donate_argnums=1, out_shardings=outputs)
  return lambda state, *values: compiled(
    batch.g, state, batch.classes, batch.targets, *values
  )


def run(
  batch: Batch, progress: Progress, steps: int, seed: int, penalty_weight: float
) -> Iterator[tuple[Progress, Float[np.ndarray, ' n']]]:
  """Yields the projection after each further step, and the distances before it.

  Arrays of a yielded state are valid until the next step.
  """
  step = make_step(batch, seed, penalty_weight, progress.state)
  rates, scales = learning_rates(steps), noise_scales(steps)
  deviation = batch.place(progress.deviation)
  stride = -(-steps // FRAMES)
  for i in range(progress.step, steps):
    path = progress.path if i % stride else _longer(batch, progress)
    state, distances = step(
      progress.state,
      deviation,
      np.int32(i),
      np.float32(rates[i]),
      np.float32(scales[i]),
    )
    progress = progress._replace(step=i + 1, state=state, path=path)
    if i + 1 == steps:
      progress = progress._replace(path=_longer(batch, progress))
    yield progress, np.asarray(distances)[: batch.n]


def _longer(batch: Batch, progress: Progress) -> Variables:
  """The path with the present place."""
  here = {k: v for k, v in progress.state.variables.items() if k != 'noise'}
  here = {k: np.asarray(v)[None, : batch.n] for k, v in here.items()}
  if not progress.path:
    return here
  return {k: np.concatenate([progress.path[k], v]) for k, v in here.items()}
