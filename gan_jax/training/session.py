"""The training loop: from a checkpoint or new weights to the end or to a collapse."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import UserError, data, report
from gan_jax.config import Config
from gan_jax.models.base import Phase, Variables
from gan_jax.runtime.image_size import format_side, format_size
from gan_jax.runtime.sharding import replicate, unshard
from gan_jax.runtime.watchdog import Watchdog
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.durations import timed_phase
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training.callbacks import Callback, Iteration, SampleGrids
from gan_jax.training.collapse_monitor import CollapseMonitor
from gan_jax.training.first_weights import draw_weights
from gan_jax.training.metric_logger import MetricLogger
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.phase_clock import PhaseClock
from gan_jax.training.preemption import PreemptionHandler, StoppedError
from gan_jax.training.stages import ReadyStage, StagePreparer
from gan_jax.training.tracking import Tracking
from gan_jax.training.train_state import TrainState, init_state, make_reset
from gan_jax.training.transfer import open_source
from gan_jax.training.workdir import record_start, update_start

ROLLBACKS = 'rollbacks.jsonl'


@dataclasses.dataclass(frozen=True)
class TrainingContext:
  """What all sessions of a run share; a rollback begins a new session."""

  config: Config
  dataset: data.Dataset
  workdir: Path
  mesh: Mesh
  is_main: bool  # process 0, which writes the workdir
  log: Callable[[str], Any]
  checkpointer: Checkpointer
  preemption: PreemptionHandler
  watchdog: Watchdog
  tracking: Tracking
  grids: SampleGrids
  report: report.ReportWriter
  callbacks: Sequence[Callback]  # called in this order

  def timed(self, phase: str) -> AbstractContextManager[None]:
    """Logs a long phase with the time that it took."""
    return timed_phase(self.workdir, phase, self.log)

  def saved_steps(self) -> str:
    """The steps of all checkpoints, for messages; '' if there are none."""
    return ', '.join(map(str, self.checkpointer.steps()))


class TrainingSession:
  """One pass of the training loop.

  Attributes:
    state: the train state; donated to each iteration.
    images: real images that D has seen.
    step: iterations done.
    phase: of the latest iteration.
    unsaved: whether the state is newer than the newest checkpoint.
    rollbacks: lines of rollbacks.jsonl.
  """

  def __init__(self, context: TrainingContext):
    config, mesh = context.config, context.mesh
    self._context, self._config = context, config
    self._key = jax.random.key(config.train.seed)
    resumes, self.clock = bool(context.checkpointer.steps()), PhaseClock()
    self._stages = StagePreparer(
      config,
      context.dataset,
      mesh,
      state_shapes(config, self._key, mesh),
      self._key,
      context.grids.compile,
      context.watchdog,
    )
    restoring = 'restoring' if resumes else 'drawing the first weights'
    with contextlib.ExitStack() as on_failure:
      on_failure.enter_context(self._stages)
      if not resumes:  # the step compiles while the weights are drawn
        self._stages.begin(0)
      with self.clock.phase(restoring), context.timed(restoring):
        self.state = restore_or_init(config, self._key, mesh, context.checkpointer)
      on_failure.pop_all()
    self.images, self.step = int(self.state.images), int(self.state.step)
    self.phase = self._phase_at(self.images)
    self.unsaved = False
    self._reset = make_reset(
      make_optimizer(config.g_adam), make_optimizer(config.d_adam), mesh
    )
    self.rollbacks = read_json_lines(context.workdir / ROLLBACKS)
    self._lr_factor = np.float32(config.collapse.lr_factor ** len(self.rollbacks))
    if context.is_main:
      record_start(context.workdir, self.images, self.clock.since)
      context.report.refresh()
    start = f'resuming at image {self.images}' if self.images else 'starting'
    context.log(
      f'{config.data.name}: {len(context.dataset.examples)} images, '
      f'{context.dataset.n_classes} classes; {mesh.size} {jax.devices()[0].platform} '
      f'device(s); {start}'
    )

  @property
  def ema(self) -> Variables:
    """EMA weights of G, replicated on every device. Collective."""
    return unshard(self.state.ema, self._context.mesh)

  def saved_steps(self) -> str:
    """The steps of all checkpoints, for messages; '' if there are none."""
    return self._context.saved_steps()

  def run(self) -> None:
    """Trains to the end, or until preemption.

    Raises:
      StoppedError: preemption while the first step compiled.
      CollapseError: the run has to be rolled back.
      UserError: too many non-finite updates, or a collapse is to stop the run.
    """
    self.monitor = CollapseMonitor(self._config.collapse)
    self.metrics = MetricLogger(
      self._context.workdir,
      total=self._config.train.images,
      images=self.images,
      active=self._context.is_main,
      tracking=self._context.tracking,
      log=self._context.log,
      on_line=self.monitor.add_line,
    )
    with self.metrics, self._stages:
      if self.images < self._config.train.images:
        with self._context.watchdog.watch('training') as self._watched:
          self._loop()

  def _loop(self) -> None:
    config, preemption = self._config, self._context.preemption
    watched = self._watched
    size = format_side(self._config.gan.size(self.phase.res))
    compiling = f'compiling the step at {size} pixels'
    with (
      watched.paused(),
      self.clock.phase('compiling'),
      self._context.timed(compiling),
    ):
      stage = self._stages.enter(self.images, preemption.result)
    self.record_times()
    preemption.idle = False
    while self.images < config.train.images and not preemption.requested():
      phase = self._phase_at(self.images)
      started, grown = time.perf_counter(), phase.res != stage.res
      if grown:
        try:
          stage = self._next_stage()
        except StoppedError:
          break
      self.phase = phase
      scaled = self._scale_rates(phase)
      watched.doing = 'waiting for the next batch of images'
      asked = time.perf_counter()
      with jax.profiler.StepTraceAnnotation('iteration', step_num=self.step):
        batch, received = next(stage.batches), time.perf_counter()
        watched.doing = 'computing a step, or waiting for other processes to do so'
        self.state, metrics = stage.step(self.state, batch, self._key, scaled)
      self.unsaved = True
      if grown:
        self._log_stage(stage, time.perf_counter() - started)
      self._settle(config.log.metrics_every)  # the iteration before: no waiting
      watched.step()
      if not grown:
        self.metrics.step_times.add(time.perf_counter() - started, received - asked)
      before, self.images = self.images, self.images + stage.images_per_step
      self.step += 1
      self.metrics.defer(self.images, metrics | _logged_phase(scaled))
      if config.resets_between(before, self.images):
        self.state = self._reset(self.state)
      grows = self._phase_at(self.images).res != phase.res
      if self.clock.due():
        self.record_times()
      self._call_back(Iteration(self.step, before, self.images, phase, grows))
    self._settle(1)

  def _call_back(self, iteration: Iteration) -> None:
    """Calls the callbacks that are due; before, metrics are logged up to here."""
    due = [callback for callback in self._context.callbacks if callback.due(iteration)]
    if not due:
      return
    last = iteration.grows or self.images >= self._config.train.images
    self._settle(1 if last else self._config.log.metrics_every)
    with self._watched.paused():
      for callback in due:
        with self.clock.phase(callback.phase):
          callback(self, iteration)

  def _settle(self, every: int) -> None:
    """Waits for the deferred metrics and logs them every so many images."""
    values = self.metrics.flush(every)
    if values is None:
      return
    if reason := self.monitor.count_skipped(values):
      raise UserError(
        f'stopped at image {self.images}: {reason}; checkpoints '
        f'{self.saved_steps() or "(none)"} of {self._context.workdir} are finite: '
        'lower schedule.g_lr and d_lr, or raise collapse.max_skipped.'
      )

  def record_times(self) -> None:
    """Writes what the time of this session went into to starts.jsonl."""
    fields = self.clock.record(self.images)
    if self._context.is_main:
      update_start(self._context.workdir, fields)

  def record_end(self, ended: str) -> None:
    """Writes how this session ended: 'finished', 'stopped', or why the run is lost."""
    if self._context.is_main:
      update_start(self._context.workdir, {'ended': ended})

  def _phase_at(self, images: int) -> Phase:
    return self._config.phase_at(images)

  def _scale_rates(self, phase: Phase) -> Phase:
    """The phase with the learning rates that the rollbacks so far have left."""
    g_lr, d_lr = phase.g_lr * self._lr_factor, phase.d_lr * self._lr_factor
    return dataclasses.replace(phase, g_lr=g_lr, d_lr=d_lr)

  def _next_stage(self) -> ReadyStage:
    """Enters the next stage.

    Raises:
      StoppedError: a signal arrived during the wait.
    """
    preemption = self._context.preemption
    with self._watched.paused(), self.clock.phase('compiling'):
      preemption.idle = self._context.checkpointer.wait()
      stage = self._stages.enter(self.images, preemption.result)
      preemption.idle = False
    self._watched.forget()
    return stage

  def _log_stage(self, stage: ReadyStage, seconds: float) -> None:
    size = self._config.gan.size(stage.res)
    line = {'images': self.images, 'res': stage.res, 'change_s': seconds}
    self.metrics.write(line | stage.opening)
    self._context.log(
      f'image {self.images}: {format_size(size)} from here on; the change took '
      f'{seconds:.2f} s, its compile beforehand {stage.opening["compile_s"]:.1f} s'
    )

  def roll_back(self, reason: str) -> None:
    """Deletes all checkpoints newer than the last good one and records the rollback.

    A new session then continues from there at lower learning rates.

    Raises:
      UserError: there is no good checkpoint.
    """
    context = self._context
    context.checkpointer.wait()
    good_step = self.monitor.good_step
    if self.rollbacks and good_step <= self.rollbacks[-1]['step']:
      # Training from that checkpoint has collapsed again: go further back.
      good_step = min(good_step, self.rollbacks[-1]['to_step'] - 1)
    step = context.checkpointer.newest(up_to=good_step)
    if step is None:
      raise UserError(
        f'stopped at image {self.images} for a collapse ({reason}): there is no '
        'checkpoint from before it; keep more (log.keep, log.keep_periodic), or start '
        'anew with lower learning rates.'
      )
    context.checkpointer.drop_after(step)
    context.preemption.idle = True
    context.log(
      f'rolled back to step {step}; learning rates are multiplied by '
      f'{self._config.collapse.lr_factor}'
    )
    if context.is_main:
      event = {'images': self.images, 'step': self.step, 'to_step': step}
      with (context.workdir / ROLLBACKS).open('a') as f:
        f.write(json.dumps(event | {'collapsed': reason}) + '\n')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('rolled back')


def _logged_phase(phase: Phase) -> dict[str, Any]:
  return {name: getattr(phase, name) for name in ('res', 'alpha', 'g_lr', 'd_lr')}


def state_shapes(config: Config, key: jax.Array, mesh: Mesh) -> TrainState:
  """Shapes and shardings of what `restore_or_init` returns."""
  sharding = NamedSharding(mesh, P())
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(partial(_first_state, config), key),
  )


@partial(jax.jit, static_argnums=0)  # traced once, for the shapes and for the weights
def _first_state(config: Config, key: jax.Array) -> TrainState:
  g_tx, d_tx = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  seed = jax.random.fold_in(key, 2**31 - 1)
  return init_state(config.gan, g_tx, d_tx, seed, config.augment)


def restore_or_init(
  config: Config, key: jax.Array, mesh: Mesh, checkpointer: Checkpointer
) -> TrainState:
  """The state of the newest checkpoint, or a new one; replicated on every device.

  A new one begins with the weights of `config.finetune.source`. The probability of ADA
  begins anew where the checkpoint has none.
  """
  newest = checkpointer.newest()
  if newest is None:
    state = replicate(draw_weights(partial(_first_state, config), key), mesh)
    if not config.finetune.source:
      return state
    with open_source(config) as source:
      return source.start(state, mesh)
  like, saved = state_shapes(config, key, mesh), checkpointer.shapes(newest, 'augment')
  fields = {f.name: getattr(like, f.name) for f in dataclasses.fields(like)}
  if saved is None:  # a checkpoint of a version without augmentation
    del fields['augment']
  else:
    fields['augment'] = saved
  sharding = NamedSharding(mesh, P())
  fields = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), fields
  )
  state = TrainState(**checkpointer.restore(newest, fields))
  if state.augment.keys() == like.augment.keys():
    return state
  anew = replicate(config.augment.init_state(), mesh)  # ADA was switched on or off
  return dataclasses.replace(state, augment=anew)
