"""What the explorer can draw: a choice is a command line, its picture that one's."""

import dataclasses
import functools
import io
import json
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.sampling import image_io
from gan_jax.sampling.generator import ExportedGenerator, TrainedGenerator
from gan_jax.sampling.options import SamplingOptions, style_ranges

SAVED = 'explored'  # folder of a workdir
WIDEST = 3.0  # of the truncation slider; there it is off
FPS = 24
DRAFT = 1  # batches of statistics while a slider moves
FILMS = ('.webp', '.gif', '.mp4')


@dataclasses.dataclass
class ControlValues:
  """What the controls say."""

  mode: str = 'one'  # or 'variations', 'mixing', 'between'
  seed: int = 0
  label: int | None = None  # of a class; None: each seed's own
  truncation: float = WIDEST
  psi: float = 1.0
  layers: int = 0  # that psi acts on, in a StyleGAN
  noise: float = 1.0  # strength
  count: int = 12  # of variations
  other: int = 1  # the seed that styles are taken from
  styles: Sequence[str] = ('coarse',)
  pins: Sequence[int] = (1, 2)
  frames: int = 24  # from pin to pin
  at: int = 0  # the frame that is shown


@dataclasses.dataclass(frozen=True)
class GeneratorChoice:
  """One of a workdir's generators."""

  name: str
  step: int | None = None  # of a checkpoint
  path: Path | None = None  # of an exported one


@dataclasses.dataclass(frozen=True)
class Capabilities:
  """Which controls a generator has."""

  classes: tuple[str, ...] = ()
  styled: bool = False
  layers: int = 0  # of styles
  cut: int = 0  # how many of them psi acts on unless told otherwise
  bands: tuple[str, ...] = ()  # of styles, such as 'coarse'
  standing: bool = False  # pictures take new batch statistics at each truncation


def path_inside(workdir: Path, name: str) -> Path:
  """A path in a workdir.

  Raises:
    UserError: it leads out of it.
  """
  path = (workdir / name).resolve()
  if not path.is_relative_to(workdir.resolve()):
    raise UserError(f'{name} lies outside {workdir}.')
  return path


class ExplorerSession:
  """The generators of one workdir and the pictures they draw; safe across threads."""

  def __init__(self, workdir: Path):
    """
    Raises:
      UserError: there is no generator.
    """
    self.workdir = workdir
    self._lock = threading.Lock()
    self._open = functools.lru_cache(2)(self._opened)  # more would hold memory
    self.sources()

  def sources(self) -> list[GeneratorChoice]:
    """Checkpoints, the newest first, then exported generators.

    Raises:
      UserError: there are none.
    """
    found = [p for p in (self.workdir / 'checkpoints').glob('*') if p.name.isdigit()]
    steps = sorted((int(p.name) for p in found), reverse=True)
    sources = [GeneratorChoice(f'checkpoint {step}', step=step) for step in steps]
    exported = sorted(self.workdir.rglob('*.stablehlo'))
    sources += [
      GeneratorChoice(str(p.relative_to(self.workdir)), path=p) for p in exported
    ]
    if not sources:
      raise UserError(
        f'{self.workdir} has neither checkpoints nor a .stablehlo: train there, or see '
        'python -m gan_jax.importers --help.'
      )
    return sources

  def select(self, name: str = '') -> GeneratorChoice:
    """The source of this name; of none, the first.

    Raises:
      UserError: there is none of this name.
    """
    sources = self.sources()
    for source in sources if name else ():
      if source.name == name:
        return source
    if not name:
      return sources[0]
    path_inside(self.workdir, name)
    raise UserError(f'{self.workdir} has no {name}.')

  def _opened(self, source: GeneratorChoice) -> TrainedGenerator | ExportedGenerator:
    if source.path is not None:
      return ExportedGenerator(
        path_inside(self.workdir, str(source.path.relative_to(self.workdir)))
      )
    return TrainedGenerator(self.workdir, source.step)

  def abilities(self, source: GeneratorChoice) -> Capabilities:
    """Which controls this generator has; it is opened.

    Raises:
      UserError: it cannot be.
    """
    with self._lock:
      generator = self._open(source)
    if isinstance(generator, ExportedGenerator):
      return Capabilities(self._names(generator.n_classes))
    gan = generator.gan
    names = self._names(gan.n_classes)
    style = gan.style_based
    if style is None:
      return Capabilities(names, standing=gan.has_batch_stats)
    layers = style.layers(style.res)
    bands = tuple(name for name, taken in style_ranges(style).items() if taken)
    return Capabilities(names, True, layers, min(style.truncated_layers, layers), bands)

  def _names(self, n: int) -> tuple[str, ...]:
    try:
      about = json.loads((self.workdir / 'run.json').read_text())
      names = about['dataset']['classes']
    except (OSError, ValueError, KeyError, TypeError):
      names = []
    named = len(names) == n
    return tuple(f'{i} {names[i]}' if named else str(i) for i in range(n))

  def request(
    self, able: Capabilities, choice: ControlValues, draft: bool = False
  ) -> SamplingOptions:
    """The choice in the words of gan_jax.sample.

    Args:
      draft: while a slider moves; batch statistics are then of fewer pictures.

    Raises:
      UserError: something has to be chosen first.
    """
    asked: dict[str, Any] = {'psi': round(choice.psi, 4)}
    if choice.label is not None and able.classes:
      asked['classes'] = str(choice.label)
    if choice.truncation < WIDEST:
      asked['truncation'] = round(choice.truncation, 4)
    if able.styled:
      asked['noise_strength'] = round(choice.noise, 4)
      if choice.layers != able.cut:
        asked['truncated_layers'] = int(choice.layers)
    if able.standing and draft:
      asked['standing'] = DRAFT
    seed = str(int(choice.seed))
    if choice.mode == 'one':
      return SamplingOptions(seeds=seed, **asked)
    asked['batch'] = 1  # the program that draws one picture, so nothing is compiled
    if choice.mode == 'variations':
      last = int(choice.seed) + int(choice.count) - 1
      return SamplingOptions(seeds=f'{seed}-{last}', columns=4, **asked)
    if choice.mode == 'mixing':
      bands = '+'.join(name for name in able.bands if name in choice.styles)
      if not bands:
        raise UserError(f'Choose which styles are taken: {", ".join(able.bands)}.')
      return SamplingOptions(
        seeds=seed, mix=str(int(choice.other)), mix_layers=bands, **asked
      )
    if len(choice.pins) < 2:
      raise UserError('Pin two seeds or more to go from one to the next.')
    pins = ','.join(str(int(pin)) for pin in choice.pins)
    kind = 'w' if able.styled else 'z'
    return SamplingOptions(
      seeds=pins, interpolate=kind, frames=int(choice.frames), **asked
    )

  def shown(
    self, able: Capabilities, choice: ControlValues, draft: bool = False
  ) -> SamplingOptions:
    """As `request`; of a film, the frame that the slider is at."""
    request = self.request(able, choice, draft)
    if choice.mode != 'between':
      return request
    most = (len(choice.pins) - 1) * int(choice.frames) - 1
    return dataclasses.replace(request, only=min(max(int(choice.at), 0), most))

  def command(
    self, source: GeneratorChoice, request: SamplingOptions, name: str
  ) -> str:
    """The command line that writes this request to a file of the workdir."""
    if source.path is not None:
      where = [f'--program={source.path}']
    else:
      where = [f'--workdir={self.workdir}', f'--checkpoint={source.step}']
    out = f'--out={self.workdir / SAVED / name}'
    words = ['python', '-m', 'gan_jax.sample', *where, *request.flags, out]
    return shlex.join(words)

  def draw(self, source: GeneratorChoice, request: SamplingOptions) -> bytes:
    """The PNG that gan_jax.sample would write.

    Raises:
      UserError: the generator cannot do it.
    """
    with self._lock:
      pictures = self._open(source).pictures(request)
      images = np.concatenate(list(pictures.images))
    out = io.BytesIO()
    image_io.image_grid(images, pictures.columns).save(out, 'png')
    return out.getvalue()

  def save(self, source: GeneratorChoice, request: SamplingOptions, name: str) -> Path:
    """Writes a picture or a film into the folder `SAVED` of the workdir.

    Raises:
      UserError: a name that leads elsewhere, or has another ending.
    """
    path_inside(self.workdir, SAVED)  # which may be a link
    out = path_inside(self.workdir / SAVED, name)
    if out.suffix not in ('.png', *FILMS):
      raise UserError(f'{name}: end it in .png, {", ".join(FILMS)}.')
    try:
      with self._lock:
        pictures = self._open(source).pictures(request)
        image_io.write_images(out, *pictures, fps=FPS)
    except OSError as error:
      raise UserError(f'{out} cannot be written: {error.strerror}.') from error
    return out
