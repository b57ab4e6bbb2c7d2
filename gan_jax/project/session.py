"""One call of the command: checks, optimization, fine-tuning, results."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.models.base import Variables as Weights
from gan_jax.prepare.command import parse_color
from gan_jax.project import folder, noise_maps, projection, results, tuning
from gan_jax.project.comparison import make_comparison
from gan_jax.project.options import ProjectOptions
from gan_jax.project.projection import Batch, Progress
from gan_jax.project.spaces import Renderer, check_space
from gan_jax.project.targets import read_targets
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling.animation import check_animation, png_description
from gan_jax.sampling.class_names import parse_classes
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.latents import save_latents
from gan_jax.sampling.saving import write_generator
from gan_jax.storage.files import atomic_path, write_json

OUT = 'projection'  # folder of the results, in the workdir
TUNING = 'tuning.npz'  # state of the tuning, removed at its end
TUNED = 'tuned'  # folder of the tuned generator, in the results
T = TypeVar('T')


class Session:
  """One call of the command. The user's mistakes come up in the constructor.

  Attributes:
    out: folder of the results.
    settings: what a projection depends on; another call with the same ones goes on.
  """

  def __init__(
    self,
    workdir: Path,
    images: Sequence[Path],
    options: ProjectOptions,
    out: Path,
    checkpoint: int | None = None,
    ema: bool = True,
  ):
    """
    Raises:
      UserError: a mistake in the options, the images or the workdir, or `out` holds
        something else.
    """
    self.out, self._workdir, self._options = out, workdir, options
    gan = read_config(workdir).gan
    space = check_space(options.space, gan)
    background = parse_color(options.background)
    check_animation(f'.{options.film}', results.FPS)
    self._compare, digest = make_comparison(options.loss, options.lpips)
    self._generator = TrainedGenerator(workdir, checkpoint, ema)
    phase = self._generator.phase
    self._renderer = Renderer(gan, space, phase.res, phase.alpha)
    self._targets = read_targets(
      images, gan.size(phase.res), gan.channels, options.pad, background
    )
    self._labels = _parse_labels(options.classes, len(images), self._generator)
    self.settings: dict[str, Any] = {
      'model': self._generator.identity,
      'checkpoint': self._generator.step,
      'weights': self._generator.weights,
      'images': self._targets.digest,
      'space': space,
      'classes': None if self._labels is None else self._labels.tolist(),
      'loss': self._compare.name,
      'lpips_weights': digest,
      'noise_weight': noise_maps.penalty_weight(gan.size(phase.res))
      if options.noise_weight is None
      else options.noise_weight,
      'steps': options.steps,
      'seed': options.seed,
    }
    if options.tune:
      self.settings['tune_steps'] = options.tune_steps or tuning.STEPS
    self._present = folder.claim(out, self.settings)
    if self._compare.name == 'pixels' and options.loss is None:
      print(
        'there are no weights of LPIPS: images are compared by their pixels; for LPIPS '
        "pip install 'gan_jax[lpips]'."
      )

  def run(self) -> None:
    """Projects, or goes on, and writes the results; nothing if all is there."""
    folder.write_settings(self.out, {**self._present, **self.settings})
    if folder.is_finished(self.out, tuned=self._options.tune):
      return
    batch = Batch(
      self._renderer,
      self._generator.sampled_variables(),
      self._compare,
      self._targets.images,
      self._labels,
      make_mesh(),
    )
    progress = self._optimize(batch)
    variables = progress.state.variables
    columns = {'target': self._targets.images, 'projection': batch.draw(variables)}
    rows = self._rows(batch, progress, columns['projection'])
    self._write(batch, progress, columns, rows)
    if self._options.tune:
      g = self._tune(batch, progress)
      columns['tuned'] = batch.draw(variables, g)
      found = results.scores(
        batch, columns['tuned'], self._targets.images, batch.distances(variables, g)
      )
      rows = [{**row, 'tuned': one} for row, one in zip(rows, found, strict=True)]
      self._write_table(columns, rows)
      (self.out / TUNING).unlink(missing_ok=True)

  def _optimize(self, batch: Batch) -> Progress:
    """The projection after its last step, which is saved."""
    path = self.out / 'state.npz'
    saved = folder.load_tree(path, projection.structure(batch))
    if saved is None:
      progress = projection.begin(batch, self._options.seed, _bar('starts'))
    else:
      progress = projection.placed(batch, saved)
    names = ('steps', 'seed', 'noise_weight')
    steps = projection.run(batch, progress, *(self.settings[name] for name in names))
    save = lambda now: folder.save_tree(path, projection.trimmed(batch, now))
    total = self._options.steps
    return self._saving(steps, progress, total, save, batch.compare.name)

  def _tune(self, batch: Batch, progress: Progress) -> Weights:
    """The tuned weights, which are written as a generator."""
    path = self.out / TUNING
    saved = folder.load_tree(path, tuning.structure(batch))
    tuned = tuning.begin(batch) if saved is None else tuning.placed(batch, saved)
    total = self.settings['tune_steps']
    steps = tuning.run(batch, progress.state.variables, tuned, total)
    save = lambda now: folder.save_tree(path, now)
    tuned = self._saving(steps, tuned, total, save, 'tuning')
    g = tuning.with_params(batch, batch.g, tuned.params)
    write_generator(self._workdir, self.out / TUNED, self._generator, g)
    return g

  def _saving(
    self,
    steps: Iterator[tuple[T, Any]],
    last: T,
    total: int,
    save: Callable[[T], None],
    name: str,
  ) -> T:
    """Goes through steps with a progress bar, and saves now and then and at the end."""
    done = last.step  # type: ignore[attr-defined]
    with tqdm(total=total, initial=done, unit='step') as progress:
      for last, loss in steps:
        done += 1
        progress.set_postfix({name: f'{np.mean(loss):.3f}'}, refresh=False)
        progress.update()
        if done % self._options.save_every == 0 or done == total:
          save(last)
    return last

  def _rows(
    self, batch: Batch, progress: Progress, images: UInt8[np.ndarray, 'n h w c']
  ) -> list[dict[str, Any]]:
    """What results.json says of each image."""
    distances = batch.distances(progress.state.variables)
    found = results.scores(batch, images, self._targets.images, distances)
    return [
      {'image': name, **one, 'start': float(start)}
      for name, one, start in zip(
        self._targets.names, found, progress.start, strict=True
      )
    ]

  def _write(
    self,
    batch: Batch,
    progress: Progress,
    columns: dict[str, Any],
    rows: list[dict[str, Any]],
  ) -> None:
    latents = results.make_latents(batch, progress, self.settings['model'])
    save_latents(self.out / 'latents.npz', latents)
    film = results.film_frames(batch, progress, self._targets.images)
    file = self.out / f'film.{self._options.film}'
    results.write_film(file, film, self._description)
    self._write_table(columns, rows)

  def _write_table(self, columns: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes side_by_side.png, then results.json."""
    with atomic_path(self.out / 'side_by_side.png') as part:
      info = png_description(self._description)
      results.side_by_side(columns, rows).save(part, pnginfo=info, optimize=True)
    write_json(self.out / folder.RESULTS, {'settings': self.settings, 'images': rows})

  @property
  def _description(self) -> str:
    names = ('space', 'steps', 'seed', 'loss', 'checkpoint', 'weights')
    return ' '.join(f'{name}={self.settings[name]}' for name in names)


def _bar(unit: str) -> projection.Iterate:
  return lambda values: tqdm(values, unit=unit)


def _parse_labels(text: str, n: int, generator: TrainedGenerator) -> np.ndarray | None:
  """The classes of n images, in turn; None: not given.

  Raises:
    UserError: there is no such class, or there are more classes than images.
  """
  if not text:
    return None
  if not generator.n_classes:
    raise UserError('--classes: this model has no classes.')
  labels = parse_classes(text, generator.n_classes, generator.class_names)
  if len(labels) > n:
    raise UserError(
      f'--classes={text}: {len(labels)} classes are assigned in turn to {n} '
      f'image{"s" if n > 1 else ""}: give no more classes than images.'
    )
  return np.resize(labels, n)
