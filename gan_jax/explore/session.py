"""Explorer sessions: control values as sampling options, images and command lines."""

import dataclasses
import functools
import io
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.sampling import image_io
from gan_jax.sampling.animation import ANIMATIONS, png_description
from gan_jax.sampling.class_names import format_labels, read_class_names
from gan_jax.sampling.exported import ExportedGenerator
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.interface import Generator
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.output import cannot_write, check_output
from gan_jax.sampling.planning import PlannedImages, n_frames
from gan_jax.sampling.style_mixing import style_ranges

SAVE_FOLDER = 'explored'  # in the workdir
MAX_TRUNCATION = 3.0  # upper end of the slider, where truncation is off
FPS = 24  # of saved animations
GRID_COLUMNS = 4
DRAFT_STANDING = 1  # batches of standing statistics while a slider moves


@dataclasses.dataclass
class ControlValues:
  """The values of all controls of the page.

  `mode` is 'single' (one image), 'grid' (consecutive seeds), 'mixing' (styles of
  another seed) or 'interpolation' (between pinned seeds).
  """

  mode: str = 'single'
  seed: int = 0
  label: int | None = None  # None: drawn from each seed
  truncation: float = MAX_TRUNCATION
  psi: float = 1.0
  truncated_layers: int = 0  # on which psi acts in a StyleGAN
  noise_strength: float = 1.0
  n_seeds: int = 12  # in mode 'grid'
  style_seed: int = 1  # whose styles are taken in mode 'mixing'
  styles: Sequence[str] = ('coarse',)
  pinned_seeds: Sequence[int] = (1, 2)
  frames: int = 24  # from one pinned seed to the next
  loop: bool = False  # from the last pinned seed on to the first
  frame: int = 0  # the one on display


@dataclasses.dataclass(frozen=True)
class GeneratorChoice:
  """One of the generators in a workdir: a checkpoint or an exported generator."""

  name: str
  step: int | None = None  # of a checkpoint
  path: Path | None = None  # of an exported generator


@dataclasses.dataclass(frozen=True)
class Capabilities:
  """Which controls apply to a generator."""

  class_names: tuple[str, ...] = ()  # with the label, 3 cat
  style_based: bool = False
  n_layers: int = 0  # of the synthesis network
  truncated_layers: int = 0  # default number of layers on which psi acts
  psi: float = 1.0  # where a command line has none
  style_ranges: tuple[str, ...] = ()  # names such as 'coarse'
  standing_statistics: bool = False  # taken anew for each truncation


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
  """Samples from the generators of one workdir. Thread-safe."""

  def __init__(self, workdir: Path, ema: bool = True):
    """
    Args:
      ema: the EMA weights of checkpoints; False: the raw ones.

    Raises:
      UserError: the folder has no generator.
    """
    self.workdir, self._ema = workdir, ema
    self._lock = threading.Lock()
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
    style = generator.gan.style_based
    if style is None:
      standing = generator.gan.has_batch_stats
      return Capabilities(class_names, psi=psi, standing_statistics=standing)
    n_layers = style.layers(style.res)
    ranges = style_ranges(style, generator.resolution).items()
    return Capabilities(
      class_names,
      psi=psi,
      style_based=True,
      n_layers=n_layers,
      truncated_layers=min(style.truncated_layers, n_layers),
      style_ranges=tuple(name for name, layers in ranges if layers),
    )

  def sampling_options(
    self, capabilities: Capabilities, values: ControlValues, draft: bool = False
  ) -> SamplingOptions:
    """The options of everything that the controls describe: all frames, too.

    Args:
      draft: while a slider moves: standing statistics from fewer batches.

    Raises:
      UserError: a control needs a value first.
    """
    shared = _shared_options(capabilities, values, draft)
    seed = str(int(values.seed))
    if values.mode == 'single':
      return SamplingOptions(seeds=seed, **shared)
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
      return SamplingOptions(seeds=seed, mix=mix, mix_layers=layers, **shared)
    if len(values.pinned_seeds) < 2:
      raise UserError('Pin at least two seeds to interpolate between them.')
    return SamplingOptions(
      seeds=','.join(str(int(pin)) for pin in values.pinned_seeds),
      interpolate='w' if capabilities.style_based else 'z',
      frames=int(values.frames),
      loop=values.loop,
      **shared,
    )

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
    out = f'--out={self.workdir / SAVE_FOLDER / name}'
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
    path_inside(self.workdir, SAVE_FOLDER)  # it may be a symbolic link
    out = path_inside(self.workdir / SAVE_FOLDER, name)
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
    return self._load(choice).plan(options)


def _shared_options(
  capabilities: Capabilities, values: ControlValues, draft: bool
) -> dict[str, Any]:
  """Options that do not depend on the mode."""
  psi = round(values.psi, 4)
  options: dict[str, Any] = {'psi': None if psi == capabilities.psi else psi}
  if values.label is not None and capabilities.class_names:
    names = [entry.partition(' ')[2] for entry in capabilities.class_names]
    options['classes'] = format_labels(values.label, names)
  if values.truncation < MAX_TRUNCATION:
    options['truncation'] = round(values.truncation, 4)
  if capabilities.style_based:
    options['noise_strength'] = round(values.noise_strength, 4)
    if values.truncated_layers != capabilities.truncated_layers:
      options['truncated_layers'] = int(values.truncated_layers)
  if capabilities.standing_statistics and draft:
    options['standing'] = DRAFT_STANDING
  return options
