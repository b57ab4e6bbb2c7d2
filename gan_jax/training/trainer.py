"""The training loop, the only one."""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from gan_jax import UserError, data, report
from gan_jax.config import Config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, unshard
from gan_jax.storage.checkpoint import Checkpointer, lock_workdir
from gan_jax.storage.durations import timed_phase
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import collapse_monitor
from gan_jax.training import workdir as workdirs
from gan_jax.training.callbacks import SampleGrids, Scores
from gan_jax.training.metric_logger import MetricLogger, crosses_multiple
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.preemption import PreemptionHandler
from gan_jax.training.stages import StagePreparer
from gan_jax.training.step import TrainState, init_state, make_reset

ROLLBACKS = 'rollbacks.jsonl'
SPACING = 4  # saves from one periodic checkpoint to the next


class Trainer:
  """Trains the GAN of a config in a workdir."""

  def __init__(
    self, config: Config, workdir: str | Path, allow_config_change: bool = False
  ):
    """
    Args:
      workdir: folder of the run; a run that is there already is resumed.
      allow_config_change: resume although `config` differs from that of the run.
    """
    self._config, self._workdir = config, Path(workdir)
    self._allow_config_change = allow_config_change

  def run(self, images: int | None = None) -> TrainState:
    """Trains to `images` real images in total, from the newest checkpoint if any.

    Args:
      images: replaces `config.train.images`.

    Raises:
      UserError: before anything is compiled, or where the run cannot go on.
    """
    config = self._config
    if images is not None:
      config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, images=images)
      )
    return train(config, self._workdir, self._allow_config_change)


def train(
  recipe: Config, workdir: Path, allow_config_change: bool = False
) -> TrainState:
  """Trains to `recipe.train.images`, from the newest checkpoint of `workdir` if any.

  The workdir gets config.json, run.json, starts.jsonl, metrics.jsonl, report.html,
  samples/, checkpoints/ and TensorBoard's events. Ctrl-C and SIGTERM save and return;
  while a step is compiled, and all is saved, they raise `Stopped`.

  Raises:
    UserError: before anything is compiled, or where the run cannot go on; one sentence.
  """
  mesh = make_mesh()
  gan, log = recipe.gan, recipe.log
  for stage in recipe.stages:
    recipe.shape(stage, mesh.size)
  dataset = data.load_dataset(**recipe.source())
  data.check_labels(dataset, gan.n_classes)
  data.check_hosts(dataset)
  first = jax.process_index() == 0
  say = tqdm.write if first else lambda *_: None
  scorer = Scores(recipe, dataset, workdir, say) if recipe.score.every else None
  with lock_workdir(workdir) if first else nullcontext(), PreemptionHandler() as stop:
    about = {'images': len(dataset.examples), 'classes': dataset.class_names}
    workdirs.prepare_workdir(workdir, recipe, mesh, allow_config_change, first, about)
    page = report.ReportWriter(workdir, first, say)
    if first:
      say(data.summarize(dataset, workdir))
    fewest = min(recipe.images_per_step(stage) for stage in recipe.stages)
    checkpoints = Checkpointer(
      workdir,
      log.keep,
      keep_periodic=log.keep_periodic,
      spacing=SPACING * max(log.checkpoint_every // fewest, 1),
      best=recipe.score.best,
      say=say,
    )
    while True:
      run = TrainingSession(
        recipe, dataset, workdir, mesh, checkpoints, scorer, stop, say, page
      )
      try:
        collapse = run.go()
        if collapse is None:
          break
        run.roll_back(collapse)
      except UserError:
        checkpoints.wait()  # what is being saved counts
        page.finish()
        raise
    if run.unsaved or not checkpoints.wait():
      checkpoints.save(int(run.state.step), run.state)
      run.sheets.write(run.average, run.images, run.phase)
    if not checkpoints.wait():
      raise UserError(
        f'the last checkpoint could not be written to {workdir}: make room there and '
        f'start again; {", ".join(map(str, checkpoints.steps())) or "none"} are saved.'
      )
    checkpoints.close()
    page.finish()
  finished = run.images >= recipe.train.images
  say(
    f'{"finished" if finished else "stopped; resume with the same"} at image '
    f'{run.images}: pictures and curves in {workdir}/report.html (or tensorboard '
    f'--logdir={workdir}); next: python -m gan_jax.sample '
    f'--workdir={workdir} --seeds=0-63 --out=sheet.png'
  )
  return run.state


class TrainingSession:
  """From a checkpoint, or a fresh state, to the end or to a collapse."""

  def __init__(
    self,
    recipe: Config,
    dataset: data.Dataset,
    workdir: Path,
    mesh: Mesh,
    checkpoints: Checkpointer,
    scorer: Scores | None,
    stop: PreemptionHandler,
    say: Callable[[str], Any],
    page: report.ReportWriter,
  ):
    self._recipe, self._workdir, self._say = recipe, workdir, say
    self._checkpoints, self._scorer, self._stop = checkpoints, scorer, stop
    self._page = page
    self._mesh, self._first = mesh, jax.process_index() == 0
    gan = recipe.gan
    g_tx, d_tx = make_optimizer(recipe.g_adam), make_optimizer(recipe.d_adam)
    key = jax.random.key(recipe.train.seed)
    self._waiting = lambda what: timed_phase(workdir, what, say)
    there = checkpoints.steps()
    with self._waiting('restoring' if there else 'drawing the first weights'):
      self.state = start_state(gan, g_tx, d_tx, key, mesh, checkpoints)
    self.images = int(self.state.images)
    self.phase = recipe.schedule.phase_at(self.images, gan.res)
    self.unsaved = False
    self._key = key
    self._reset = make_reset(g_tx, d_tx, mesh)
    self.sheets = SampleGrids(recipe, workdir, self._first, say)
    self._stages = StagePreparer(
      recipe, dataset, mesh, self.state, key, also=self.sheets.prepare
    )
    self._rollbacks = read_json_lines(workdir / ROLLBACKS)
    self._rate = np.float32(recipe.collapse.lr_factor ** len(self._rollbacks))
    if self._first:
      workdirs.record_start(workdir, self.images)
      page.refresh()
    say(
      f'{recipe.data.name}: {len(dataset.examples)} images, {dataset.n_classes} '
      f'classes; {mesh.size} {jax.devices()[0].platform} device(s); '
      + (f'resuming at image {self.images}' if self.images else 'starting')
    )

  def go(self) -> str | None:
    """Trains; why it has to be rolled back, or None.

    Raises:
      UserError: no update is finite any more, or a collapse is to stop the run.
    """
    total = self._recipe.train.images
    self._watcher = collapse_monitor.CollapseMonitor(self._recipe.collapse)
    journal = MetricLogger(self._workdir, total, self.images, self._first, self._say)
    for line in journal.lines:
      self._watcher.see(line)
    with journal, self._stages:
      return self._loop(journal)

  def _loop(self, journal: MetricLogger) -> str | None:
    recipe, stop, checkpoints = self._recipe, self._stop, self._checkpoints
    gan, train_, log = recipe.gan, recipe.train, recipe.log
    alone = jax.process_count() == 1
    pending: tuple[int, Any] | None = None

    def settle(every: int) -> None:  # the devices have come to the end of a step
      nonlocal pending
      if pending:
        values = journal.add(*pending, every, self._watcher)
        pending = None
        if broken := self._watcher.note_step(values):
          raise UserError(
            f'stopped at image {self.images}: {broken}; checkpoints '
            f'{", ".join(map(str, checkpoints.steps())) or "(none)"} of '
            f'{self._workdir} are finite: lower schedule.g_lr and d_lr, or raise '
            'collapse.max_skipped.'
          )

    if self.images >= train_.images:
      return None
    phase = recipe.schedule.phase_at(self.images, gan.res)
    with self._waiting(f'compiling the step at {phase.res} pixels'):
      now = self._stages.enter(self.images)
    stop.idle, step = False, int(self.state.step)
    while self.images < train_.images and not stop.asked(step):
      phase = self.phase = recipe.schedule.phase_at(self.images, gan.res)
      since = time.perf_counter()
      changed = phase.res != now.res
      if changed:
        stop.idle = checkpoints.wait()  # nothing is lost if this takes too long
        now = self._stages.enter(self.images)
        stop.idle = False
      rates = dataclasses.replace(
        phase, g_lr=phase.g_lr * self._rate, d_lr=phase.d_lr * self._rate
      )
      self.state, metrics = now.step(self.state, next(now.batches), self._key, rates)
      self.unsaved = True
      if changed:
        took = time.perf_counter() - since
        journal.note(
          {'images': self.images, 'res': now.res, 'change_s': took, **now.opening}
        )
        self._say(
          f'image {self.images}: {now.res} x {now.res} from here on; the change took '
          f'{took:.2f} s, its compile beforehand {now.opening["compile_s"]:.1f} s'
        )
      settle(log.metrics_every)  # of the step before: the devices need not wait
      step += 1
      before, self.images = self.images, self.images + now.images_per_step
      moving = {'res': phase.res, 'alpha': phase.alpha}
      moving |= {'g_lr': rates.g_lr, 'd_lr': rates.d_lr}
      pending = self.images, metrics | moving
      if recipe.schedule.resets_between(before, self.images):
        self.state = self._reset(self.state)
      grows = recipe.schedule.phase_at(self.images, gan.res).res != phase.res
      shows = grows or crosses_multiple(before, self.images, log.grid_every)
      scored = self._scorer and self._scorer.due(before, self.images, phase)
      saves = (
        scored or grows or crosses_multiple(before, self.images, log.checkpoint_every)
      )
      if alone and crosses_multiple(before, self.images, log.metrics_every):
        saves = saves or checkpoints.poll()  # the last one has failed: once more
      if shows or saves:  # what the journal says goes as far as what is saved
        settle(1 if grows or self.images >= train_.images else log.metrics_every)
      if shows:
        collapse = self._look(journal)
        self._page.refresh()
        if collapse:
          return collapse
      score = None
      if self._scorer and scored:
        score = self._scorer.take(self.average, self.images, step, journal)
      if saves:
        self.unsaved = not checkpoints.save(step, self.state, score)
    settle(1)
    return None

  @property
  def average(self) -> Any:
    """The averaged generator, whole on every device: for all processes to ask for."""
    return unshard(self.state.ema, self._mesh)

  def _look(self, journal: MetricLogger) -> str | None:
    """Writes a sheet and what it shows; why the run has to be rolled back, or None."""
    state, limits = self.state, self._recipe.collapse
    varied = self.sheets.write(self.average, self.images, self.phase)
    collapse = None
    if self._first:
      line: dict[str, Any] = {'images': self.images, 'step': int(state.step)}
      for name, net in (('d', state.d), ('g', state.g)):
        values = collapse_monitor.singular_values(net.get('spectral', {}))
        if values:
          line[f'{name}_sigma'] = max(s[0] for s in values.values())
        for layer, found in values.items():
          line |= {f'{name}_sigma/{layer}/{i + 1}': s for i, s in enumerate(found)}
      line['diversity'] = varied
      self._watcher.see(line)
      journal.note(line)
      collapse = self._watcher.verdict()
    good = self._watcher.good_step
    if jax.process_count() > 1:
      told = np.array([collapse is not None, good], np.int32)
      bad, good = multihost_utils.broadcast_one_to_all(told).tolist()
      collapse = collapse or 'collapsed' if bad else None
    if collapse is None:
      return None
    self._watcher.good_step = good
    journal.note({'images': self.images, 'collapsed': collapse})
    self._say(
      f'image {self.images}: this run seems to have collapsed: {collapse}; step {good} '
      'was the last to look good'
    )
    if limits.action == 'warn':
      return None
    if limits.action == 'rollback' and len(self._rollbacks) < limits.max_rollbacks:
      return collapse
    raise UserError(
      f'stopped at image {self.images} for a collapse ({collapse}): saved are '
      f'{", ".join(map(str, self._checkpoints.steps())) or "no checkpoints"}, and step '
      f'{good} was the last to look good; go on with collapse.action=warn or rollback.'
    )

  def roll_back(self, collapse: str) -> None:
    """Back to the newest checkpoint that was good, and slower from there.

    Raises:
      UserError: there is none.
    """
    checkpoints = self._checkpoints
    checkpoints.wait()
    good = self._watcher.good_step
    last = self._rollbacks[-1] if self._rollbacks else None
    if last and good <= last['step']:  # where it went then led here: further back
      good = min(good, last['to_step'] - 1)
    back = checkpoints.newest(up_to=good)
    if back is None:
      raise UserError(
        f'stopped at image {self.images} for a collapse ({collapse}): there is no '
        'checkpoint from before it; keep more (log.keep, log.keep_periodic), or start '
        'anew with lower learning rates.'
      )
    checkpoints.drop_after(back)
    self._stop.idle = True
    self._say(
      f'rolled back to step {back}; learning rates are multiplied by '
      f'{self._recipe.collapse.lr_factor}'
    )
    if self._first:
      event = {'images': self.images, 'step': int(self.state.step), 'to_step': back}
      with (self._workdir / ROLLBACKS).open('a') as f:
        f.write(json.dumps(event | {'collapsed': collapse}) + '\n')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('rolled back')


def start_state(
  gan: Any, g_tx: Any, d_tx: Any, key: jax.Array, mesh: Mesh, checkpoints: Checkpointer
) -> TrainState:
  """The newest checkpoint, or a fresh state; replicated over the mesh."""

  def fresh():
    return init_state(gan, g_tx, d_tx, jax.random.fold_in(key, 2**31 - 1))

  latest = checkpoints.newest()
  if latest is None:
    return replicate(jax.jit(fresh)(), mesh)
  sharding = NamedSharding(mesh, P())
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(fresh),
  )
  return checkpoints.restore(latest, like)
