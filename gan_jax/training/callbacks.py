"""What a run shows of its generator while it trains: sheets, and scores."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_jax import UserError, data
from gan_jax.config import Config
from gan_jax.evaluation import results
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.models.base import Phase
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import image_io, samplers
from gan_jax.training import collapse_monitor
from gan_jax.training.metric_logger import MetricLogger, crosses_multiple


class SampleGrids:
  """Pictures of the averaged generator from noise that never changes.

  A conditional model gets a row for each of its first classes.
  """

  def __init__(
    self, recipe: Config, workdir: Path, active: bool, say: Callable[[str], Any]
  ):
    self._say = say
    gan, log = recipe.gan, recipe.log
    rows, self._columns = log.grid_rows, log.grid_columns
    n = rows * self._columns
    self._folder, self._active = workdir / 'samples', active
    # Every process draws for itself on its own first device: no collectives here.
    mesh = make_mesh(jax.local_devices()[:1])
    self._sampler = functools.cache(functools.partial(samplers.make_sampler, gan, mesh))
    seeds = np.arange(n, dtype=np.uint32)
    z = samplers.latents(seeds, gan.dim_z)
    labels = np.arange(n) // self._columns % max(gan.n_classes, 1)
    classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)[labels]
    self._inputs = z, classes, np.float32(1), seeds

  def prepare(self, state: Any, res: int) -> None:
    """Compiles the sampler of a resolution, from the shapes of a state."""
    if self._active:
      mine = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.ema)
      self._sampler(res).lower(mine, *self._inputs, np.float32(1)).compile()

  def write(self, ema: Any, images: int, phase: Phase) -> float:
    """The sheet of the phase that has just trained; how much its pictures vary."""
    if not self._active:
      return 0.0
    mine = jax.tree.map(lambda x: x.addressable_data(0), ema)
    drawn = np.asarray(self._sampler(phase.res)(mine, *self._inputs, phase.alpha))
    page = image_io.image_grid(drawn, self._columns)
    try:
      self._folder.mkdir(exist_ok=True)
      page.save(self._folder / f'{images:010d}.png')
    except OSError as error:
      self._say(f'{self._folder} could not be written ({error.strerror}): going on')
    return collapse_monitor.grid_diversity(drawn, self._columns)


class Scores:
  """Scores the averaged generator while it trains."""

  def __init__(
    self,
    recipe: Config,
    dataset: data.Dataset,
    workdir: Path,
    say: Callable[[str], Any],
  ):
    """
    Raises:
      UserError: a metric that cannot be taken, or a score that none of them gives.
    """
    score = self._asked = recipe.score
    self._res, self._workdir, self._say = recipe.gan.res, workdir, say
    self._evaluator = Evaluator(
      recipe.gan,
      dataset,
      score.metrics,
      EvaluationProtocol(num=score.n, reals=score.reals),
      split=recipe.data.split,
      progress=False,
    )
    given = [name for name, best in self._evaluator.best.items() if best]
    if score.best and score.best_by not in given:
      raise UserError(
        f'score.best_by is {score.best_by!r}, which score.metrics do not give: take '
        f'one of {", ".join(given)}.'
      )

  def due(self, before: int, images: int, phase: Phase) -> bool:
    """Whether the step from `before` to `images` of this phase is to be scored."""
    grown = phase.res == self._res and bool(np.asarray(phase.alpha) == 1)
    return grown and crosses_multiple(before, images, self._asked.every)

  def take(
    self, ema: Any, images: int, step: int, journal: MetricLogger
  ) -> float | None:
    """Writes the scores; that of `best_by`, higher is better, or None."""
    began = time.perf_counter()
    try:
      lines = self._evaluator.evaluate(ema)
    except UserError as error:  # about this generator: no reason to end the run
      self._say(f'image {images}: no scores ({error})')
      return None
    values = {line['metric']: line['value'] for line in lines}
    if jax.process_index() == 0:
      with journal.forgiving():
        results.append_scores(self._workdir, lines, images=images, checkpoint=step)
      journal.draw(images, {f'eval/{name}': x for name, x in values.items()})
      told = ', '.join(f'{name} {x:.4g}' for name, x in values.items())
      self._say(f'image {images}: {told} ({time.perf_counter() - began:.0f} s)')
    if not self._asked.best:
      return None
    value = values[self._asked.best_by]
    return -value if self._evaluator.best[self._asked.best_by] == 'min' else value
