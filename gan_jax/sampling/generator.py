"""Trained and exported generators: loaded once, sampled any number of times.

Jitted functions are kept. Seeds, classes, truncation, noise and styles are inputs, so
options that differ only in these compile nothing.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, UInt8, UInt32

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.models.base import Phase, StyleBased, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import export, style_mixing
from gan_jax.sampling.options import SamplingOptions, format_ranges, parse_ranges
from gan_jax.sampling.planning import (
  SamplerInputs,
  interpolate,
  noise_seeds,
  plan_inputs,
  select_image,
)
from gan_jax.sampling.samplers import (
  Sampler,
  make_mapper,
  make_sampler,
  make_synthesizer,
  run_in_batches,
  standing_statistics,
)
from gan_jax.storage import checkpoint as checkpoints

STANDING_BATCH = 64  # latents per batch of standing statistics
STYLE_OPTIONS = (
  'truncated_layers', 'noise', 'noise_seed', 'noise_strength', 'mix', 'mix_layers'
)  # fmt: skip


class PlannedImages(NamedTuple):
  """Images that are computed while `images` is iterated over."""

  images: Iterator[UInt8[np.ndarray, 'b h w c']]  # batches
  classes: Float[np.ndarray, 'n classes']  # class weights
  seeds: UInt32[np.ndarray, ' n']
  columns: int  # of the image grid


class Generator(abc.ABC):
  """What trained and exported generators share."""

  @property
  @abc.abstractmethod
  def n_classes(self) -> int:
    """Number of classes; 0 for an unconditional model."""

  @property
  @abc.abstractmethod
  def resolution(self) -> int:
    """Height and width of the images in pixels."""

  @abc.abstractmethod
  def plan(self, options: SamplingOptions) -> PlannedImages:
    """Checks the options and prepares the images that they describe.

    Raises:
      UserError: this generator cannot do it, or there is no such checkpoint.
    """

  def sample(
    self,
    seeds: int | Iterable[int] = range(16),
    *,
    truncation: float = float('inf'),
    psi: float = 1.0,
    labels: int | Iterable[int] | None = None,
    noise: str = 'own',
    standing: int = 16,
    batch: int = 64,
  ) -> UInt8[np.ndarray, 'n h w c']:
    """Samples one image per seed: the bits that `gan_jax.sample` writes.

    A seed gives the same image whatever the other seeds are. For everything else that
    the command can do, see `plan`.

    Args:
      seeds: integers in [0, 2**32).
      truncation: threshold beyond which entries of z are redrawn. Lower truncation
        gives better images and less variety.
      psi: factor of z in a BigGAN, of the distance between w and its mean in a
        StyleGAN. Lower psi gives better images and less variety.
      labels: assigned to the images in turn; None draws the label from the seed.
      noise: noise of a StyleGAN: 'own' is drawn from each seed, 'stored' comes from
        the weights, 'off' is none.
      standing: number of batches from which a BigGAN takes its batch statistics at
        this truncation; 0 uses those of training.
      batch: images per batch.

    Raises:
      UserError: this generator cannot do it.
    """
    options = SamplingOptions(
      seeds=format_ranges(seeds),
      truncation=truncation,
      psi=psi,
      classes='' if labels is None else format_ranges(labels),
      noise=noise,
      standing=standing,
      batch=batch,
    )
    return np.concatenate(list(self.plan(options).images))


class TrainedGenerator(Generator):
  """The EMA generator of a run or of imported weights, on all devices.

  Attributes:
    gan: the GAN family with its config values.
  """

  def __init__(self, workdir: str | Path, step: int | None = None):
    """The checkpoint is read when it is first needed.

    Args:
      step: step of the checkpoint; None for the newest.

    Raises:
      UserError: `workdir` is not the folder of a run.
    """
    self._config, self._workdir, self._step = read_config(workdir), workdir, step
    self.gan = self._config.gan
    self._mesh = make_mesh()
    self._jitted: Callable[..., Sampler] = functools.cache(
      lambda make, *args: make(self.gan, self._mesh, *args)
    )
    self._standing = functools.lru_cache(8)(self._standing_statistics)

  @functools.cached_property
  def _restored(self) -> tuple[Variables, Phase]:
    g, _ = jax.eval_shape(self.gan.init, jax.random.key(0))
    g, images = checkpoints.restore_ema(self._workdir, g, self._step)
    return g, self._config.schedule.phase_at(images, self.gan.res)

  @property
  def phase(self) -> Phase:
    """The phase of training that the checkpoint was written in. Reads the checkpoint.

    Raises:
      UserError: there is no such checkpoint.
    """
    return self._restored[1]

  @property
  def n_classes(self) -> int:
    return self.gan.n_classes

  @property
  def resolution(self) -> int:
    return self.phase.res

  def plan(self, options: SamplingOptions) -> PlannedImages:
    options = self._checked(options)
    inputs = plan_inputs(options, self.gan)
    res, alpha = resolve_resolution(options.res, self.phase)
    g, stored_noise = self._variables(options), options.noise == 'stored'
    style = self.gan.style_based
    if style is None:
      sample = self._jitted(make_sampler, res, stored_noise)
      draw: Callable[..., ArrayLike] = lambda z, classes, seeds: sample(
        g, z, classes, options.psi, seeds, alpha
      )
      rows = [inputs.z, inputs.classes, noise_seeds(options, inputs)]
    else:
      ws, inputs = self._styles(style, options, g, inputs)
      synthesize = self._jitted(make_synthesizer, res, stored_noise)
      draw = lambda ws, seeds: synthesize(g, ws, seeds, alpha)
      rows = [ws[:, : style.layers(res)], noise_seeds(options, inputs)]
    batch = self._batch_size(options, len(rows[0]))
    rows, inputs = select_image(options, rows, inputs)
    images = run_in_batches(draw, rows, batch)
    if options.mix:
      n_rows = len(parse_ranges(options.seeds, 'seeds'))
      images = style_mixing.add_source_margins(images, n_rows, inputs.columns)
    return PlannedImages(images, inputs.classes, inputs.seeds, inputs.columns)

  def export(
    self, path: str | Path, options: SamplingOptions | None = None
  ) -> tuple[Path, Path]:
    """Writes the files of `export.export_generator` and returns their paths.

    Args:
      path: name of the .stablehlo file.
      options: fix the resolution, the noise strength and the truncated layers, and the
        truncation that batch statistics are taken at. None for the defaults.

    Raises:
      UserError: as `export.export_generator` and `plan`.
    """
    options = self._checked(options or SamplingOptions())
    res, alpha = resolve_resolution(options.res, self.phase)
    gan = self.gan
    if gan.style_based is not None and options.truncated_layers is not None:
      gan = dataclasses.replace(gan, truncated_layers=options.truncated_layers)
    g = self._variables(options)
    return export.export_generator(gan, g, path, res=res, alpha=alpha)

  def _batch_size(self, options: SamplingOptions, n: int) -> int:
    """Images per batch: at most n, rounded up to a multiple of the devices."""
    return self._device_multiple(min(options.batch, n))

  def _device_multiple(self, n: int) -> int:
    return -(-n // self._mesh.size) * self._mesh.size

  def _checked(self, options: SamplingOptions) -> SamplingOptions:
    """The options with the threshold that psi implies.

    Raises:
      UserError: the family cannot do it.
    """
    if self.gan.style_based is not None:
      if options.mix and options.interpolate:
        raise UserError('--mix and --interpolate exclude each other: give one.')
      return options
    reject_style_options(options, 'is for a StyleGAN, which this model is not')
    if options.psi != 1 and np.isinf(options.truncation):
      return dataclasses.replace(options, truncation=self.gan.psi_threshold)
    return options

  def _variables(self, options: SamplingOptions) -> Variables:
    """EMA weights with the noise strengths or the batch statistics of the options."""
    style = self.gan.style_based
    if style is None:
      return self._standing(options.standing, options.truncation, options.psi)
    strength = 0.0 if options.noise == 'off' else options.noise_strength
    return style.with_noise(self._restored[0], strength)

  def _standing_statistics(
    self, n_batches: int, truncation: float, psi: float
  ) -> Variables:
    g, batch = self._restored[0], self._device_multiple(STANDING_BATCH)
    if not n_batches:
      return g
    return standing_statistics(
      self.gan, self._mesh, g, n_batches, batch, truncation, psi
    )

  def _styles(
    self, gan: StyleBased, options: SamplingOptions, g: Variables, inputs: SamplerInputs
  ) -> tuple[Float[np.ndarray, 'n layers dim_w'], SamplerInputs]:
    """ws of all images: truncated, then interpolated or mixed.

    Those of a style mixing grid are the row sources, the column sources and the
    mixtures, in the order of `style_mixing.add_source_margins`.
    """
    n_truncated = options.truncated_layers
    n_truncated = gan.truncated_layers if n_truncated is None else n_truncated
    truncated = np.arange(gan.layers(gan.res)) < n_truncated
    psi = np.where(truncated, options.psi, 1).astype(np.float32)
    batch = self._batch_size(options, len(inputs.seeds))
    mapper = self._jitted(make_mapper)

    def styles(inputs: SamplerInputs) -> np.ndarray:
      draw = lambda z, classes: mapper(g, z, classes, psi)
      batches = run_in_batches(draw, [inputs.z, inputs.classes], batch)
      return np.concatenate(list(batches))

    ws = styles(inputs)
    if options.interpolate == 'w':
      classes = interpolate(inputs.classes, options.frames)
      return interpolate(ws, options.frames), inputs._replace(classes=classes)
    if not options.mix:
      return ws, inputs
    bands = style_mixing.parse_mix_layers(options.mix_layers, gan)
    columns = plan_inputs(options, gan, seeds=options.mix)
    column_ws = styles(columns)
    mixed = style_mixing.mix_styles(ws, column_ws, bands)
    mixed_seeds = np.tile(np.repeat(inputs.seeds, len(column_ws)), len(bands))
    seeds = np.concatenate([inputs.seeds, columns.seeds, mixed_seeds])
    classes = np.zeros((len(seeds), 1), np.float32)
    inputs = SamplerInputs(inputs.z, classes, seeds, len(column_ws) + 1)
    return np.concatenate([ws, column_ws, mixed]), inputs


class ExportedGenerator(Generator):
  """A generator that was written by `gan_jax.sample --export`.

  Attributes:
    dim_z: number of entries of z.
  """

  def __init__(self, path: str | Path):
    """
    Raises:
      UserError: the file cannot be read or is not an exported generator, or a package
        is not installed.
    """
    try:
      exported = jax.export.deserialize(bytearray(Path(path).read_bytes()))
      z, classes, _ = (x.shape for x in exported.in_avals)
      self.dim_z, self._n_classes = int(z[1]), int(classes[1])
      self._resolution = int(exported.out_avals[0].shape[1])
    except ImportError as error:
      raise UserError("this needs a package: pip install 'gan_jax[export]'.") from error
    except OSError as error:
      raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # a foreign file can make the parser raise anything
      raise UserError(
        f'{path} is no generator that gan_jax.sample --export wrote.'
      ) from error
    self._generate = jax.jit(exported.call)

  @property
  def n_classes(self) -> int:
    return self._n_classes

  @property
  def resolution(self) -> int:
    return self._resolution

  def plan(self, options: SamplingOptions) -> PlannedImages:
    reject_style_options(options, 'is not for an exported generator')
    for name in options.changed(('res', 'standing')):
      raise UserError(f'--{name} was fixed when this generator was exported.')
    inputs = plan_inputs(options, self)
    rows = [inputs.z, inputs.classes[:, : self.n_classes]]
    rows, inputs = select_image(options, rows, inputs)
    psi = np.float32(options.psi)
    draw = lambda z, classes: self._generate(z, classes, psi)
    images = run_in_batches(draw, rows, min(options.batch, len(rows[0])))
    return PlannedImages(images, inputs.classes, inputs.seeds, inputs.columns)


def load(
  path: str | Path, checkpoint: int | None = None
) -> TrainedGenerator | ExportedGenerator:
  """Loads a generator.

  Args:
    path: the workdir of a run or of imported weights, or an exported .stablehlo file.
    checkpoint: step of the checkpoint in a workdir; None for the newest.

  Raises:
    UserError: there is no such generator.
  """
  path = Path(path)
  if path.is_file() or path.suffix == '.stablehlo':
    if checkpoint is not None:
      raise UserError(f'checkpoint={checkpoint}: {path} is an exported generator.')
    return ExportedGenerator(path)
  generator = TrainedGenerator(path, checkpoint)
  _ = generator.phase  # reads the checkpoint now, so that errors occur here
  return generator


def reject_style_options(options: SamplingOptions, reason: str) -> None:
  """Checks that no option is set which only the weights of a StyleGAN support.

  Raises:
    UserError: one is.
  """
  for name in options.changed(STYLE_OPTIONS):
    raise UserError(f'--{name} {reason}.')
  if options.interpolate == 'w':
    raise UserError(f'--interpolate=w {reason}.')
  if not options.psi > 0:
    raise UserError(f'--psi={options.psi}: it must be above 0.')


def resolve_resolution(requested: int, phase: Phase) -> tuple[int, ArrayLike]:
  """The resolution to sample, and how far it has faded in.

  Args:
    requested: 0 for the present resolution of the run.

  Raises:
    UserError: the generator has no such resolution.
  """
  if not requested or requested == phase.res:
    return phase.res, phase.alpha
  if requested > phase.res or requested < 4 or requested & (requested - 1):
    raise UserError(
      f'--res={requested}: this run has come to {phase.res}; allowed are that and, of '
      'a growing GAN, the powers of two from 4 on below it.'
    )
  return requested, 1.0
