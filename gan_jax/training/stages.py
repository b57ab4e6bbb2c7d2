"""A run's stages: while one trains, the next is compiled and its data opened."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
from jax import Array
from jax.sharding import Mesh
from orbax.checkpoint import multihost

from gan_jax import data
from gan_jax.config import Config
from gan_jax.models.base import Batch
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import TrainState, TrainStep, make_train_step, shard_batch

COMPILED_MS = 3_600_000  # that processes wait for the slowest one
_entered = itertools.count()  # a barrier's name is used once


@dataclasses.dataclass(frozen=True)
class ReadyStage:
  """A stage ready to train: its compiled step and its input."""

  res: int
  images_per_step: int
  step: TrainStep
  batches: Iterator[Batch]
  start: int  # images seen when its first batch is taken
  opening: dict[str, float]  # what it took


class StagePreparer:
  """Opens the stages of a run, each before it is needed."""

  def __init__(
    self,
    recipe: Config,
    dataset: data.Dataset,
    mesh: Mesh,
    state: TrainState,
    key: Array,
    also: Callable[[TrainState, int], None],
  ):
    """`state` and `key` are such as the steps will be called with.

    `also` is called with the state's shapes and each resolution, in the background.
    """
    self._also = also
    self._recipe, self._dataset, self._mesh, self._key = recipe, dataset, mesh, key
    self._state = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    self._worker = ThreadPoolExecutor(1)
    self._next: Future[ReadyStage] | None = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._worker.shutdown(wait=False, cancel_futures=True)

  def enter(self, images: int) -> ReadyStage:
    """The stage that trains after `images` images; the one after it is begun.

    What takes long is done by the worker, so that a signal interrupts the wait. Several
    processes meet here: one of them compiles more, and collectives, which follow, do
    not wait for a late one (on CPUs 30 s).
    """
    stage = (self._next or self._worker.submit(self._open, images)).result()
    if stage.start != images:  # the run was not resumed where it was planned to be
      stage = self._worker.submit(self._open, images).result()
    follower = self._first_beyond(stage)
    self._next = None
    if follower is not None and follower < self._recipe.train.images:
      self._next = self._worker.submit(self._open, follower)
    meet = multihost.get_barrier_sync_fn()
    meet(key=f'stage {next(_entered)}', timeout_ms=COMPILED_MS)
    return stage

  def _first_beyond(self, stage: ReadyStage) -> int | None:
    """At how many images the stage after this one begins."""
    gan, schedule = self._recipe.gan, self._recipe.schedule
    later = [s.after for s in self._recipe.stages if s.res > stage.res]
    if not later:
      return None
    steps = max((later[0] - stage.start) // stage.images_per_step, 1)
    images = stage.start + steps * stage.images_per_step
    while schedule.phase_at(images, gan.res).res == stage.res:
      images += stage.images_per_step
    return images

  def _open(self, images: int) -> ReadyStage:
    recipe, mesh, began = self._recipe, self._mesh, time.perf_counter()
    gan, train_ = recipe.gan, recipe.train
    phase = recipe.schedule.phase_at(images, gan.res)
    (stage,) = [s for s in recipe.stages if s.res == phase.res]
    k, b, g_batch = recipe.shape(stage, mesh.size)
    here = jax.process_index()
    mine = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == here]
    batches = data.iterate_batches(
      self._dataset.downsampled(gan.res // stage.res),
      shape=(k, b),
      devices=tuple(mine),
      n_devices=mesh.size,
      seed=train_.seed,
      start=images,
      flip=recipe.data.flip,
      threads=recipe.data.threads,
    )
    step = make_train_step(
      gan,
      make_optimizer(recipe.g_adam),
      make_optimizer(recipe.d_adam),
      mesh,
      d_steps=train_.d_steps,
      g_batch=g_batch,
      mapped=train_.mapped,
      noise_scale=train_.noise_scale,
    )
    placed = prefetch(shard_batch(batch, mesh) for batch in batches)
    like = next(placed)
    opened = time.perf_counter()
    # Later calls with such arguments find this program.
    step.lower(self._state, like, self._key, phase).compile()
    compiled = time.perf_counter()
    self._also(self._state, stage.res)
    return ReadyStage(
      res=stage.res,
      images_per_step=recipe.images_per_step(stage),
      step=step,
      batches=itertools.chain([like], placed),
      start=images,
      opening={
        'open_s': opened - began,
        'compile_s': compiled - opened,
      },
    )


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
  """The same batches, each on its way to the devices before the one before is used."""
  following = next(batches)
  for batch in batches:
    yield following
    following = batch
  yield following
