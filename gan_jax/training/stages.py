"""The stages of a run: while one trains, the next one is compiled in the background."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh
from orbax.checkpoint import multihost

from gan_jax import data
from gan_jax.config import Config, Stage
from gan_jax.models.base import Batch
from gan_jax.runtime.sharding import shard_batch
from gan_jax.runtime.watchdog import Watchdog
from gan_jax.training.compile_step import TrainStep, compile_train_step
from gan_jax.training.freezing import frozen_parameters
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import StepConfig
from gan_jax.training.train_state import TrainState

COMPILE_TIMEOUT_MS = 3_600_000  # how long processes wait for the slowest compile
_barrier_number = itertools.count()  # the name of a barrier can be used once


@dataclasses.dataclass(frozen=True)
class ReadyStage:
  """A stage that is ready to train: its compiled step and its input pipeline.

  Attributes:
    images_per_step: real images per iteration, over all devices.
    start: images seen when the first batch is taken.
    opening: seconds that the input pipeline and the compile took.
  """

  res: int
  images_per_step: int
  step: TrainStep
  batches: Iterator[Batch]
  start: int
  opening: dict[str, float]


class StagePreparer:
  """Prepares the stages of a run, each before it is needed."""

  def __init__(
    self,
    config: Config,
    dataset: data.Dataset,
    mesh: Mesh,
    state: TrainState,
    key: Array,
    on_compiled: Callable[[TrainState, int], None],
    watchdog: Watchdog,
  ):
    """
    Args:
      state: shapes and shardings of the state that the steps will be called with.
      key: of the run; the steps will be called with it.
      on_compiled: called in the background with the shapes of the state and the
        resolution of a stage, after its step has been compiled. The stage does not wait
        for it.
      watchdog: watches the input pipelines that are opened.
    """
    self._watchdog = watchdog
    self._on_compiled = on_compiled
    self._config, self._dataset, self._mesh, self._key = config, dataset, mesh, key
    self._state = state
    self._worker = ThreadPoolExecutor(1)
    self._next: Future[ReadyStage] | None = None

  def __enter__(self) -> 'StagePreparer':
    return self

  def __exit__(self, *_: Any) -> None:
    self._worker.shutdown(wait=False, cancel_futures=True)

  def begin(self, images: int) -> None:
    """Starts to prepare the stage that trains after `images` images."""
    self._next = self._submit(images)

  def enter(
    self, images: int, wait: Callable[[Future[ReadyStage]], ReadyStage]
  ) -> ReadyStage:
    """The stage that trains after `images` images; starts to prepare the one after it.

    A worker thread does the work, so that a signal can interrupt the wait. Collective:
    all processes must call it.

    Args:
      wait: waits for the result of the worker thread.
    """
    stage = wait(self._next or self._submit(images))
    if stage.start != images:  # prepared for another number of images
      stage = wait(self._submit(images))
    next_start = self._start_of_next(stage)
    self._next = None
    if next_start is not None and next_start < self._config.train.images:
      self.begin(next_start)
    return stage

  def _submit(self, images: int) -> Future[ReadyStage]:
    ready = self._worker.submit(self._prepare, images, next(_barrier_number))
    self._worker.submit(
      self._on_compiled, self._state, self._config.phase_at(images).res
    )
    return ready

  def _start_of_next(self, stage: ReadyStage) -> int | None:
    """Images seen when the stage after this one begins; None after the last."""
    later = [s.after for s in self._config.stages if s.res > stage.res]
    if not later:
      return None
    steps = max((later[0] - stage.start) // stage.images_per_step, 1)
    images = stage.start + steps * stage.images_per_step
    while self._config.phase_at(images).res == stage.res:
      images += stage.images_per_step
    return images

  def _prepare(self, images: int, barrier: int) -> ReadyStage:
    """Opens the input pipeline and compiles the step of the stage at `images`.

    Several processes wait for each other here: one of them may compile longer than
    collectives wait for a late process (30 s on CPUs).
    """
    config, began = self._config, time.perf_counter()
    phase = config.phase_at(images)
    (stage,) = [s for s in config.stages if s.res == phase.res]
    batches = prefetch(self._sharded_batches(stage, images))
    with self._watchdog.watch('opening the data') as opening:
      opening.doing = 'waiting for the first batch of images'
      first = next(batches)
    opened = time.perf_counter()
    step = self._make_step(stage)
    # Calls with arguments of these shapes use the program that is compiled here.
    step.lower(self._state, first, self._key, phase).compile()
    compiled = time.perf_counter()
    wait_for_all = multihost.get_barrier_sync_fn()
    wait_for_all(key=f'stage {barrier}', timeout_ms=COMPILE_TIMEOUT_MS)
    return ReadyStage(
      res=stage.res,
      images_per_step=config.images_per_step(stage),
      step=step,
      batches=itertools.chain([first], batches),
      start=images,
      opening={'open_s': opened - began, 'compile_s': compiled - opened},
    )

  def _sharded_batches(self, stage: Stage, start: int) -> Iterator[Batch]:
    """Batches of a stage from the `start`-th image on, sharded over the mesh."""
    config, mesh = self._config, self._mesh
    microbatches, images, _ = config.shape(stage, mesh.size)
    process = jax.process_index()
    devices = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == process]
    batches = data.iterate_batches(
      self._dataset.downsampled(config.gan.res // stage.res),
      shape=(microbatches, images),
      devices=tuple(devices),
      n_devices=mesh.size,
      seed=config.train.seed,
      start=start,
      flip=config.data.flip,
      threads=config.data.threads,
    )
    return (Batch(**shard_batch(batch, mesh)) for batch in batches)

  def _make_step(self, stage: Stage) -> TrainStep:
    config = step_config(self._config, stage, self._mesh.size)
    return compile_train_step(config, self._mesh, self._config.train.mapped)


def step_config(config: Config, stage: Stage, n_devices: int) -> StepConfig:
  """What is fixed in the training step of a stage.

  Raises:
    UserError: a batch is not divisible by the devices and micro-batches, or frozen
      parameters do not exist.
  """
  _, _, g_batch = config.shape(stage, n_devices)
  frozen = frozen_parameters(config)
  return StepConfig(
    config.gan,
    make_optimizer(config.g_adam),
    make_optimizer(config.d_adam),
    g_batch=g_batch,
    d_steps=config.train.d_steps,
    g_accum=config.train.g_accum,
    simultaneous=config.train.simultaneous,
    noise_scale=config.train.noise_scale,
    matmul_precision=config.train.matmul_precision,
    augmentation=config.augment,
    g_frozen=frozen['g'],
    d_frozen=frozen['d'],
  )


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
  """Yields the batches, each after the transfer of the next one has been started."""
  current = next(batches)
  for following in batches:
    yield current
    current = following
  yield current
