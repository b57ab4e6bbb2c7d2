"""Explorer sessions: control values become images, files and command lines."""

import contextlib
import dataclasses
import functools
import io
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.explore import moves, photographs
from gan_jax.explore.controls import Capabilities, ControlValues, shared_options
from gan_jax.explore.photographs import Status, spaces_of
from gan_jax.project.options import ProjectOptions
from gan_jax.sampling import directions, image_io
from gan_jax.sampling.animation import ANIMATIONS, png_description
from gan_jax.sampling.class_names import read_class_names
from gan_jax.sampling.exported import ExportedGenerator
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.interface import Generator
from gan_jax.sampling.latents import save_latents
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.output import cannot_write, check_output, check_writable
from gan_jax.sampling.planning import PlannedImages, n_frames
from gan_jax.sampling.style_mixing import style_ranges

SAVE_FOLDER = 'explored'  # in the folder of the results
FPS = 24  # of saved animations
GRID_COLUMNS = 4


@dataclasses.dataclass(frozen=True)
class GeneratorChoice:
  """One of the generators in a workdir: a checkpoint or an exported generator."""

  name: str
  step: int | None = None  # of a checkpoint
  path: Path | None = None  # of an exported generator


def path_inside(folder: Path, name: str) -> Path:
  """The resolved path of `name` in a folder.

  Raises:
    UserError: it lies outside the folder.
  """
  if name.startswith('~'):  # of a home folder
    raise UserError(f'{name} lies outside {folder}.')
  path = (folder / name).resolve()
  if not path.is_relative_to(folder.resolve()):
    raise UserError(f'{name} lies outside {folder}.')
  return path


class ExplorerSession:
  """Samples from the generators of one workdir. Thread-safe.

  Attributes:
    results: the folder in whose SAVE_FOLDER files are saved.
  """

  def __init__(
    self,
    workdir: Path,
    ema: bool = True,
    directions: Path | None = None,
    results: Path | None = None,
  ):
    """
    Args:
      ema: the EMA weights of checkpoints; False: the raw ones.
      directions: their file; None: the one in the workdir.
      results: None: the workdir.

    Raises:
      UserError: the folder has no generator.
    """
    self.workdir, self._ema = workdir, ema
    self.results = results or workdir
    self._directions = directions
    self._lock, self._projecting = threading.Lock(), threading.Lock()
    self._status: Status | None = None  # of the projection that is running
    self._load = functools.lru_cache(2)(self._load_generator)  # more would hold memory
    self.choices()

  def choices(self) -> list[GeneratorChoice]:
    """Checkpoints, the newest first, then exported generators.

    Raises:
      UserError: there are none.
    """
    folders = (self.workdir / 'checkpoints').glob('*')
    steps = sorted((int(p.name) for p in folders if p.name.isdigit()), reverse=True)
    choices = [GeneratorChoice(f'checkpoint {step}', step=step) for step in steps]
    for path in sorted(self.workdir.rglob('*.stablehlo')):
      choices.append(GeneratorChoice(str(path.relative_to(self.workdir)), path=path))
    if not choices:
      raise UserError(
        f'{self.workdir} has neither checkpoints nor a .stablehlo: train there, or see '
        'python -m gan_jax.importers --help.'
      )
    return choices

  def select(self, name: str = '') -> GeneratorChoice:
    """The generator with this name; without a name the first one.

    Raises:
      UserError: there is no such generator.
    """
    choices = self.choices()
    if not name:
      return choices[0]
    for choice in choices:
      if choice.name == name:
        return choice
    path_inside(self.workdir, name)
    raise UserError(f'{self.workdir} has no {name}.')

  def _load_generator(self, choice: GeneratorChoice) -> Generator:
    if choice.path is None:
      return TrainedGenerator(self.workdir, choice.step, self._ema)
    name = str(choice.path.relative_to(self.workdir))
    return ExportedGenerator(path_inside(self.workdir, name))

  def capabilities(self, choice: GeneratorChoice) -> Capabilities:
    """Loads the generator and returns which controls apply to it.

    Raises:
      UserError: it cannot be loaded.
    """
    with self._lock:
      generator = self._load(choice)
    names = read_class_names(self.workdir, generator.n_classes)
    class_names = tuple(map(str, range(generator.n_classes)))
    if names:
      class_names = tuple(f'{i} {name}' for i, name in enumerate(names))
    psi = generator.defaults.psi
    if not isinstance(generator, TrainedGenerator):
      return Capabilities(class_names, psi=psi)
    style, spaces = generator.gan.style_based, spaces_of(generator)
    if style is None:
      standing = generator.gan.has_batch_stats
      return Capabilities(
        class_names, psi=psi, standing_statistics=standing, spaces=spaces
      )
    n_layers = style.layers(style.res)
    ranges = style_ranges(style, generator.resolution).items()
    return Capabilities(
      class_names,
      psi=psi,
      style_based=True,
      n_layers=n_layers,
      truncated_layers=min(style.truncated_layers, n_layers),
      style_ranges=tuple(name for name, layers in ranges if layers),
      spaces=spaces,
    )

  def _trained(self, choice: GeneratorChoice) -> TrainedGenerator:
    with self._lock:
      generator = self._load(choice)
    assert isinstance(generator, TrainedGenerator)
    return generator

  @property
  def directions_file(self) -> Path:
    """The file of the directions, which need not exist."""
    return self._directions or self.workdir / directions.FILE

  def directions(self, choice: GeneratorChoice) -> list[str]:
    """Names of the first directions of a checkpoint, for sliders.

    Raises:
      UserError: their file holds something else, or directions of another model.
    """
    found = moves.find_directions(self._trained(choice), self.directions_file)
    return list(found.by_name)[: moves.SHOWN]

  def name_direction(self, choice: GeneratorChoice, old: str, new: str) -> None:
    """Gives a direction a name, in the file; its old name stays valid.

    Raises:
      UserError: `new` is no name or taken, or the file cannot be written.
    """
    found = moves.find_directions(self._trained(choice), self.directions_file)
    moves.write_directions(self.directions_file, moves.renamed(found, old, new))

  def photographs(self, choice: GeneratorChoice) -> list[str]:
    """Names of the projections that were saved for this model."""
    if choice.path is not None:
      return []
    folder = path_inside(self.results, SAVE_FOLDER)
    return photographs.find_latents(folder, self._trained(choice))

  def project(
    self,
    choice: GeneratorChoice,
    file: str,
    content: bytes,
    options: ProjectOptions,
    status: Status,
  ) -> str:
    """Projects a photograph and saves its latents; the name that they are given.

    Args:
      file: name of its file.

    Raises:
      UserError: it is no image, another projection is running, or the latents cannot
        be written.
      photographs.CancelledError: `status.cancel` was called.
    """
    folder = path_inside(self.results, SAVE_FOLDER)
    try:
      check_writable(folder / 'photo.npz')
    except OSError as error:
      raise cannot_write(folder, error) from error
    if not self._projecting.acquire(blocking=False):
      raise UserError('Another photograph is being projected: wait, or cancel it.')
    with contextlib.ExitStack() as stack:
      stack.callback(self._projecting.release)
      self._status = status
      generator = self._trained(choice)
      args = generator, file, content, options, status
      latents = photographs.project_photograph(*args)
      name = photographs.free_name(folder, file)
      try:
        save_latents(folder / f'{name}.npz', latents)
      except OSError as error:
        raise cannot_write(folder, error) from error
    return name

  def cancel_projection(self) -> None:
    """Ends the projection that is running, if there is one."""
    if self._status:
      self._status.cancel()

  def sampling_options(
    self, capabilities: Capabilities, values: ControlValues, draft: bool = False
  ) -> SamplingOptions:
    """The options of everything that the controls describe: all frames, too.

    Args:
      draft: while a slider moves: standing statistics from fewer batches.

    Raises:
      UserError: a control needs a value first.
    """
    shared = shared_options(capabilities, values, draft)
    seed = str(int(values.seed))
    base: dict[str, Any] = {'seeds': seed}
    if values.shown_photograph:
      base = {'latents': str(self.photograph_file(values.shown_photograph))}
    if values.strengths:
      shared |= self._moves(values.strengths)
    if values.mode == 'single':
      return SamplingOptions(**base, **shared)
    shared['batch'] = 1  # the program of a single image, so that nothing is compiled
    if values.mode == 'grid':
      last = int(values.seed) + int(values.n_seeds) - 1
      return SamplingOptions(seeds=f'{seed}-{last}', columns=GRID_COLUMNS, **shared)
    if values.mode == 'mixing':
      names = [name for name in capabilities.style_ranges if name in values.styles]
      if not names:
        allowed = ', '.join(capabilities.style_ranges)
        raise UserError(f'Choose at least one range of styles: {allowed}.')
      mix, layers = str(int(values.style_seed)), '+'.join(names)
      return SamplingOptions(**base, mix=mix, mix_layers=layers, **shared)
    if len(values.pinned_seeds) < 2:
      raise UserError('Pin at least two seeds to interpolate between them.')
    return SamplingOptions(
      seeds=','.join(str(int(pin)) for pin in values.pinned_seeds),
      interpolate='w' if capabilities.style_based else 'z',
      frames=int(values.frames),
      loop=values.loop,
      **shared,
    )

  def photograph_file(self, name: str) -> Path:
    """The latents of a photograph, below the workdir as that was given.

    Raises:
      UserError: it lies elsewhere.
    """
    path_inside(self.results / SAVE_FOLDER, f'{name}.npz')
    return self.results / SAVE_FOLDER / f'{name}.npz'

  def _moves(self, strengths: Mapping[str, float]) -> dict[str, str]:
    """The options that move images along directions."""
    steps = [f'{name}:{round(x, 4):g}' for name, x in strengths.items() if x]
    options = {'direction': ','.join(steps)}
    if steps and self._directions:
      options['directions'] = str(self._directions)
    return options

  def displayed_options(
    self, capabilities: Capabilities, values: ControlValues, draft: bool = False
  ) -> SamplingOptions:
    """As `sampling_options`, but of an interpolation only the selected frame."""
    options = self.sampling_options(capabilities, values, draft)
    if values.mode != 'interpolation':
      return options
    last = n_frames(values.pinned_seeds, int(values.frames), values.loop) - 1
    return dataclasses.replace(options, only=min(max(int(values.frame), 0), last))

  def command_line(
    self, choice: GeneratorChoice, options: SamplingOptions, name: str
  ) -> str:
    """The gan_jax.sample command that writes these images to a file in the workdir."""
    if choice.path is not None:
      generator = [f'--program={choice.path}']
    else:
      generator = [f'--workdir={self.workdir}', f'--checkpoint={choice.step}']
      generator += [] if self._ema else ['--raw']
    out = f'--out={self.results / SAVE_FOLDER / name}'
    return shlex.join(
      ['python', '-m', 'gan_jax.sample', *generator, *options.flags, out]
    )

  def render_png(self, choice: GeneratorChoice, options: SamplingOptions) -> bytes:
    """The content of the PNG file that gan_jax.sample would write.

    Raises:
      UserError: the generator cannot do it.
    """
    with self._lock:
      planned = self._plan(choice, options)
      images = np.concatenate(list(planned.images))
    png = io.BytesIO()
    info = png_description(planned.description)
    image_io.arrange(images, planned.cells).save(png, 'png', pnginfo=info)
    return png.getvalue()

  def save(self, choice: GeneratorChoice, options: SamplingOptions, name: str) -> Path:
    """Writes an image or an animation into `SAVE_FOLDER` and returns its path.

    Raises:
      UserError: the name leads elsewhere or has an unknown extension, or the file
        cannot be written.
    """
    path_inside(self.results, SAVE_FOLDER)  # it may be a symbolic link
    out = path_inside(self.results / SAVE_FOLDER, name)
    if out.suffix.lower() not in ('.png', *ANIMATIONS):
      raise UserError(f'{name}: end it in .png, {", ".join(ANIMATIONS)}.')
    check_output(out, FPS)
    try:
      with self._lock:
        image_io.write_images(out, self._plan(choice, options), FPS)
    except OSError as error:
      raise cannot_write(out, error) from error
    return out

  def _plan(self, choice: GeneratorChoice, options: SamplingOptions) -> PlannedImages:
    generator = self._load(choice)
    if options.direction and not self.directions_file.exists():
      assert isinstance(generator, TrainedGenerator)
      found = moves.find_directions(generator, self.directions_file)
      moves.write_directions(self.directions_file, found)
    return generator.plan(options)
