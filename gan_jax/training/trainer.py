"""`Trainer`: trains a GAN in a workdir, or resumes one."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from gan_jax import UserError, data, report
from gan_jax.config import Config
from gan_jax.runtime.distributed import shared_errors
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.watchdog import Watchdog
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.lock import lock_workdir
from gan_jax.storage.mounts import mount_warning
from gan_jax.storage.working_copy import open_workdir, working_copy
from gan_jax.training import callbacks, profiling
from gan_jax.training.preemption import PreemptionHandler
from gan_jax.training.profiling import ProfiledSteps
from gan_jax.training.session import TrainingContext, TrainingSession
from gan_jax.training.trackers import End, check_installed
from gan_jax.training.tracking import Tracking
from gan_jax.training.train_state import TrainState
from gan_jax.training.transfer import check_start
from gan_jax.training.workdir import check_resume, holds_run, write_run_record

PERIOD = 4  # saves between two checkpoints that are kept as periodic ones


class Trainer:
  """Trains the GAN of a config in a workdir.

  The workdir gets config.json, run.json, starts.jsonl, metrics.jsonl, report.html,
  samples/, checkpoints/ and tensorboard/; trackers/ and profile/ if there are any.
  """

  def __init__(
    self,
    config: Config,
    workdir: str | Path,
    allow_config_change: bool = False,
    allow_data_change: bool = False,
    watchdog: Watchdog | None = None,
    profile: ProfiledSteps | None = None,
  ):
    """
    Args:
      workdir: folder of the run, or its URL in a store such as gs://bucket/runs/a; if
        it holds a run, that is resumed.
      allow_config_change: resume although `config` differs from that of the run.
      allow_data_change: resume although the images, their order or their classes
        differ from those that the run began with.
      watchdog: ends the process if training hangs; None: nothing does.
      profile: iterations that are profiled; None: none.
    """
    self._config, self._place = config, workdir
    self._workdir = Path(workdir)  # of the working copy while a URL is trained in
    self._allow_config_change = allow_config_change
    self._allow_data_change = allow_data_change
    self._watchdog, self._profile = watchdog or Watchdog(), profile
    self._stop = threading.Event()
    self._preemption: PreemptionHandler | None = None

  @property
  def stop_signal(self) -> signal.Signals | None:
    """The signal that stopped the run; None if none did, or with several processes."""
    return self._preemption.signal if self._preemption else None

  def stop(self) -> None:
    """Makes `run` in another thread save and return after its current iteration."""
    if jax.process_count() > 1:
      raise UserError('Trainer.stop works in a single process: send SIGTERM instead.')
    self._stop.set()

  def run(self, images: int | None = None) -> TrainState:
    """Trains to the end, from the newest checkpoint if there is one.

    Works in any thread, and repeatedly; in another thread than the main one, `stop`
    ends it. In the main thread Ctrl-C and SIGTERM save and return; while nothing is
    unsaved, as during the first compile, they raise `StoppedError`, a
    KeyboardInterrupt. The workdir is free again however `run` ends.

    Args:
      images: replaces config.train.images, the real images shown to D by the end.

    Raises:
      UserError: a mistake in the config or the workdir, before anything is compiled;
        later: the run has collapsed or cannot be saved.
    """
    config = self._config
    if images is not None:
      train = dataclasses.replace(config.train, images=images)
      config = dataclasses.replace(config, train=train)
    mesh = make_mesh()
    for stage in config.stages:
      config.shape(stage, mesh.size)
    log: Callable[[str], Any] = lambda _: None
    if jax.process_index() == 0:
      log = tqdm.write
    with open_workdir(self._place, log, write=True) as self._workdir:
      if copy := working_copy(self._workdir):
        return self._run(config, mesh, lambda sentence: log(copy.name(sentence)))
      return self._run(config, mesh, log)

  def _run(self, config: Config, mesh: Mesh, log: Callable[[str], Any]) -> TrainState:
    """Trains in the local folder `_workdir`."""
    is_main = jax.process_index() == 0
    with shared_errors():
      if is_main:
        check_installed(config.log.trackers)
      dataset = self._open_data(config, log)
    data.check_hosts(dataset)
    check_start(config, self._workdir, log)
    scores = None
    if config.score.every:
      scores = callbacks.Scores(config, dataset, self._workdir, log)
    profile = None
    if self._profile:
      profile = profiling.Profile(self._profile, self._workdir, tqdm.write)
    with contextlib.ExitStack() as stack:
      preemption = stack.enter_context(PreemptionHandler(log, self._stop))
      self._preemption = preemption
      with shared_errors():
        if is_main:
          if warning := mount_warning(self._workdir):
            log(warning)
          stack.enter_context(lock_workdir(self._workdir))
        tracking = stack.enter_context(self._start_tracking(config, log))
        write_run_record(self._workdir, config, mesh, dataset)
      stack.callback(self._stop.clear)
      watchdog = stack.enter_context(self._watchdog)
      context = _make_context(
        config,
        dataset,
        self._workdir,
        mesh,
        scores,
        profile,
        tracking,
        preemption,
        watchdog,
        log,
      )
      stack.callback(context.report.close)
      if profile:
        stack.callback(profile.close)
      if jax.process_count() == 1:  # else a lost process would be waited for
        stack.callback(context.checkpointer.close)
      if is_main:
        log(data.summarize(dataset, self._workdir))
      session = _train(context)
      _finish(context, session)
    return session.state

  def _start_tracking(self, config: Config, log: Callable[[str], Any]) -> Tracking:
    """The trackers of the run on process 0; none on the others."""
    names = config.log.trackers if jax.process_index() == 0 else ()
    tracking = Tracking(self._workdir, names, log)
    tracking.start(config.to_dict(), Path(self._place).resolve().name)
    return tracking

  def _open_data(self, config: Config, log: Callable[[str], Any]) -> data.Dataset:
    """The dataset, which must be that of the run in the workdir if it holds one."""
    try:
      dataset = data.load_dataset(**config.source())
      for stage in config.stages:  # a missing file is found now, not hours later
        dataset.downsampled(config.gan.res // stage.res)
    except data.MissingDataError as error:
      if not holds_run(self._workdir):
        raise
      tfds = '' if data.is_path(config.data.name) else ' or --config.data.data_dir=DIR'
      raise UserError(
        f'{str(error).rstrip(".")}; if the data of this run have moved, go on with '
        f'--config.data.name=NEW{tfds}.'
      ) from error
    accepted = check_resume(
      self._workdir,
      config,
      dataset,
      allow_config_change=self._allow_config_change,
      allow_data_change=self._allow_data_change,
    )
    data.check_labels(dataset, config.gan.n_classes)
    data.check_fake_labels(dataset, config.gan.fake_labels, config.gan.n_classes)
    for sentence in accepted:
      log(sentence)
    return dataset


def _make_context(
  config: Config,
  dataset: data.Dataset,
  workdir: Path,
  mesh: Mesh,
  scores: callbacks.Scores | None,
  profile: profiling.Profile | None,
  tracking: Tracking,
  preemption: PreemptionHandler,
  watchdog: Watchdog,
  log: Callable[[str], Any],
) -> TrainingContext:
  is_main, every = jax.process_index() == 0, config.log
  images_per_step = min(config.images_per_step(stage) for stage in config.stages)
  checkpointer = Checkpointer(
    workdir,
    every.keep,
    keep_periodic=every.keep_periodic,
    spacing=PERIOD * max(every.checkpoint_every // images_per_step, 1),
    best=config.score.best,
    log=log,
  )
  grids = callbacks.SampleGrids(config, dataset, workdir, is_main, tracking, log)
  writer = report.ReportWriter(workdir, is_main, log)
  return TrainingContext(
    config=config,
    dataset=dataset,
    workdir=workdir,
    mesh=mesh,
    is_main=is_main,
    log=log,
    checkpointer=checkpointer,
    preemption=preemption,
    watchdog=watchdog,
    tracking=tracking,
    grids=grids,
    report=writer,
    callbacks=(
      grids,
      callbacks.CollapseCheck(config, log),
      callbacks.ReportRefresh(config, writer),
      *([scores] if scores else []),
      callbacks.SaveCheckpoints(config, checkpointer, scores),
      *([profile] if profile else []),
    ),
  )


def _train(context: TrainingContext) -> TrainingSession:
  """Runs sessions until one is not rolled back; returns that one."""
  while True:
    session = TrainingSession(context)
    try:
      try:
        session.run()
        return session
      except callbacks.CollapseError as collapse:
        session.record_times()
        session.roll_back(str(collapse))
    except UserError as error:
      context.checkpointer.wait()  # a save that has begun is still completed
      session.record_times()
      session.record_end(str(error))
      context.report.finish()
      raise


def _finish(context: TrainingContext, session: TrainingSession) -> None:
  """Saves what is unsaved, completes the report and logs where to go on."""
  checkpointer, workdir = context.checkpointer, context.workdir
  with session.clock.phase('saving'):
    if session.unsaved or not checkpointer.wait():
      checkpointer.save(session.step, session.state)
      context.grids.write(session.ema, session.images, session.phase)
    saved = checkpointer.wait()
  session.record_times()
  if not saved:
    raise UserError(
      f'the last checkpoint could not be written to {workdir}: make room there and '
      f'start again; {context.saved_steps() or "none"} are saved.'
    )
  checkpointer.close()
  finished = session.images >= context.config.train.images
  session.record_end('finished' if finished else 'stopped')
  context.report.finish()
  context.tracking.finish(End.FINISHED if finished else End.STOPPED)
  tensorboard = ''
  if 'tensorboard' in context.config.log.trackers:
    tensorboard = f' (or tensorboard --logdir={workdir})'
  context.log(
    f'{"finished" if finished else "stopped; resume with the same command"} at image '
    f'{session.images}: images and curves in {workdir}/report.html{tensorboard}; '
    f'next: python -m gan_jax.sample '
    f'--workdir={workdir} --seeds=0-63 --out=grid.png'
  )
