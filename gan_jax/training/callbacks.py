"""What happens between iterations: sample grids, evaluation, checkpoints, reports.

A callback says after each iteration whether it is due. If any is due, the training loop
first waits for the metrics of that iteration and then calls those that are, in order.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from gan_jax import UserError, data, report
from gan_jax.config import Config
from gan_jax.evaluation import results
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.models.base import Phase
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import image_io, samplers
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training import collapse_monitor
from gan_jax.training.metric_logger import MetricLogger, crosses_multiple
from gan_jax.training.tracking import Tracking

if TYPE_CHECKING:
  from gan_jax.training.session import TrainingSession

Log = Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Iteration:
  """A finished iteration of the training loop."""

  step: int  # iterations done, this one included
  images_before: int  # seen before it
  images: int  # seen after it
  phase: Phase  # it trained with
  grows: bool  # the next iteration trains a higher resolution

  def crosses(self, every: int) -> bool:
    """Whether it has crossed a multiple of `every` images."""
    return crosses_multiple(self.images_before, self.images, every)


class Callback(Protocol):
  """Something that is done at intervals. All processes of a job call it.

  Attributes:
    phase: what its time counts as in starts.jsonl.
  """

  phase: str

  def due(self, iteration: Iteration) -> bool:
    """Whether to call it after this iteration."""
    ...

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None: ...


class CollapseError(Exception):
  """The run has collapsed and is to be rolled back."""


class SampleGrids:
  """Sample grids of the EMA generator in samples/, always from the same latents.

  A conditional model gets one row for each of its first classes, or for the label
  vectors of some images. The grid's diversity
  and the singular values of both networks are logged with it.
  """

  phase = 'grids and reports'

  def __init__(
    self,
    config: Config,
    dataset: data.Dataset,
    workdir: Path,
    active: bool,
    tracking: Tracking,
    log: Log,
  ):
    self._log, self._every = log, config.log.grid_every
    self._tracking = tracking
    gan, rows = config.gan, config.log.grid_rows
    self._columns = config.log.grid_columns
    self._folder, self._active = workdir / 'samples', active
    # Each process samples on its own first device: no collectives.
    mesh = make_mesh(jax.local_devices()[:1])
    self._sampler = functools.cache(functools.partial(samplers.make_sampler, gan, mesh))
    self._compiled: set[int] = set()  # resolutions
    self._compiling = threading.Lock()
    n = rows * self._columns
    seeds = np.arange(n, dtype=np.uint32)
    z = samplers.latents(seeds, gan.dim_z)
    labels = np.arange(n) // self._columns % max(gan.n_classes, 1)
    classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)[labels]
    if gan.n_classes and dataset.has_vectors:  # a row for each of some images' labels
      images = data.evenly_spaced(len(dataset.examples), rows)
      table = np.stack([data.label_of(dataset.examples, int(i)) for i in images])
      classes = table[np.arange(n) // self._columns % len(table)]
    self._inputs = z, classes, np.float32(1), seeds

  def due(self, iteration: Iteration) -> bool:
    return iteration.grows or iteration.crosses(self._every)

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    diversity = self.write(session.ema, iteration.images, iteration.phase)
    if not self._active:
      return
    line: dict[str, Any] = {'images': iteration.images, 'step': session.step}
    for name, net in (('d', session.state.d), ('g', session.state.g)):
      layers = collapse_monitor.singular_values(net.get('spectral', {}))
      if layers:
        line[f'{name}_sigma'] = max(values[0] for values in layers.values())
      for layer, values in layers.items():
        line |= {f'{name}_sigma/{layer}/{i + 1}': s for i, s in enumerate(values)}
    session.metrics.write(line | {'diversity': diversity})

  def compile(self, state: Any, res: int) -> None:
    """Compiles the sampler of a resolution, given the shapes of a train state."""
    if not self._active:
      return
    ema = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.ema)
    with self._compiling:
      if res not in self._compiled:
        self._sampler(res).lower(ema, *self._inputs, np.float32(1)).compile()
        self._compiled.add(res)

  def write(self, ema: Any, images: int, phase: Phase) -> float:
    """Writes the sample grid of a phase; returns its diversity (0 if not active)."""
    if not self._active:
      return 0.0
    local = jax.tree.map(lambda x: x.addressable_data(0), ema)
    with self._compiling:  # a program that is being compiled is waited for
      sampler = self._sampler(phase.res)
      samples = np.asarray(sampler(local, *self._inputs, phase.alpha))
      self._compiled.add(phase.res)
    grid = image_io.image_grid(samples, self._columns)
    try:
      self._folder.mkdir(exist_ok=True)
      grid.save(self._folder / f'{images:010d}.png')
    except OSError as error:
      self._log(f'{self._folder} could not be written ({error.strerror}): going on')
    self._tracking.grid(images, grid)
    return collapse_monitor.grid_diversity(samples, self._columns)


class CollapseCheck:
  """Acts on the collapse monitor's verdict after each sample grid."""

  phase = 'grids and reports'

  def __init__(self, config: Config, log: Log):
    self._limits, self._every, self._log = config.collapse, config.log.grid_every, log

  def due(self, iteration: Iteration) -> bool:
    return iteration.grows or iteration.crosses(self._every)

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    """
    Raises:
      CollapseError: the run is to be rolled back.
      UserError: the run is to be stopped.
    """
    reason = self._shared_verdict(session.monitor)
    if reason is None:
      return
    images, good_step = iteration.images, session.monitor.good_step
    session.metrics.write({'images': images, 'collapsed': reason})
    self._log(
      f'image {images}: this run seems to have collapsed: {reason}; step {good_step} '
      'was the last good one'
    )
    action = self._limits.action
    if action == 'warn':
      return
    if action == 'rollback' and len(session.rollbacks) < self._limits.max_rollbacks:
      raise CollapseError(reason)
    raise UserError(
      f'stopped at image {images} for a collapse ({reason}): saved are '
      f'{session.saved_steps() or "no checkpoints"}, and step {good_step} was the last '
      'good one; continue with collapse.action=warn or rollback.'
    )

  def _shared_verdict(self, monitor: collapse_monitor.CollapseMonitor) -> str | None:
    """The verdict of process 0 on every process. Collective: all must call it."""
    reason = monitor.verdict()
    if jax.process_count() == 1:
      return reason
    shared = np.array([reason is not None, monitor.good_step], np.int32)
    collapsed, good_step = multihost_utils.broadcast_one_to_all(shared).tolist()
    if not collapsed:
      return None
    monitor.good_step = good_step
    return reason or 'collapsed'


class ReportRefresh:
  """Rewrites report.html after each sample grid, in a process of its own."""

  phase = 'grids and reports'

  def __init__(self, config: Config, writer: report.ReportWriter):
    self._every, self._writer = config.log.grid_every, writer

  def due(self, iteration: Iteration) -> bool:
    return iteration.grows or iteration.crosses(self._every)

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    self._writer.refresh()


class Scores:
  """Evaluates the EMA generator during training."""

  phase = 'scoring'

  def __init__(self, config: Config, dataset: data.Dataset, workdir: Path, log: Log):
    """
    Raises:
      UserError: a metric that cannot be computed, or score.best_by is none of them.
    """
    self._config, self._res = config.score, config.gan.res
    self._workdir, self._log = workdir, log
    self._latest: float | None = None
    self._evaluator = Evaluator(
      config.gan,
      dataset,
      config.score.metrics,
      EvaluationProtocol(num=config.score.n, reals=config.score.reals),
      split=config.data.split,
      flip=config.data.flip,
      progress=False,
      log=log,
    )
    rankable = [name for name, best in self._evaluator.best.items() if best]
    if config.score.best and config.score.best_by not in rankable:
      raise UserError(
        f'score.best_by is {config.score.best_by!r}, which score.metrics do not '
        f'compute: take one of {", ".join(rankable)}.'
      )

  def due(self, iteration: Iteration) -> bool:
    phase = iteration.phase
    final = phase.res == self._res and bool(np.asarray(phase.alpha) == 1)
    return final and iteration.crosses(self._config.every)

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    began, images = time.perf_counter(), iteration.images
    try:
      lines = self._evaluator.evaluate(session.ema)
    except UserError as error:  # of this generator; the run can go on
      self._log(f'image {images}: no scores ({error})')
      return
    values = {line['metric']: line['value'] for line in lines}
    if jax.process_index() == 0:
      self._write(session.metrics, lines, images, session.step)
      text = ', '.join(f'{name} {x:.4g}' for name, x in values.items())
      self._log(f'image {images}: {text} ({time.perf_counter() - began:.0f} s)')
    if (value := values.get(self._config.best_by)) is not None:
      lower_is_better = self._evaluator.best[self._config.best_by] == 'min'
      self._latest = -value if lower_is_better else value

  def _write(
    self, metrics: MetricLogger, lines: list[dict[str, Any]], images: int, step: int
  ) -> None:
    with metrics.tolerate_full_disk():
      results.append_scores(self._workdir, lines, images=images, checkpoint=step)
    scalars = {f'eval/{line["metric"]}': line['value'] for line in lines}
    metrics.write_scalars(images, scalars)

  def take_latest(self) -> float | None:
    """The score.best_by of the latest evaluation, higher is better; only once."""
    score, self._latest = self._latest, None
    return score


class SaveCheckpoints:
  """Saves a checkpoint at intervals, before growth, with scores and after failures."""

  phase = 'saving'

  def __init__(self, config: Config, checkpointer: Checkpointer, scores: Scores | None):
    self._every, self._retry_every = (
      config.log.checkpoint_every,
      config.log.metrics_every,
    )
    self._checkpointer, self._scores = checkpointer, scores

  def due(self, iteration: Iteration) -> bool:
    if iteration.grows or iteration.crosses(self._every):
      return True
    if self._scores and self._scores.due(iteration):
      return True
    # Processes of a job may not agree on whether a save has failed.
    retries = jax.process_count() == 1 and iteration.crosses(self._retry_every)
    return retries and self._checkpointer.poll()

  def __call__(self, session: 'TrainingSession', iteration: Iteration) -> None:
    score = self._scores.take_latest() if self._scores else None
    session.unsaved = not self._checkpointer.save(session.step, session.state, score)
