"""Trained and exported generators: loaded once, sampled any number of times.

Jitted functions are kept. Seeds, classes, truncation, noise and styles are inputs, so
options that differ only in these compile nothing.
"""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, UInt8

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.models.base import Phase, SamplingDefaults, StyleBased, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.urls import check_path
from gan_jax.sampling import export
from gan_jax.sampling.class_names import (
  format_labels,
  parse_classes,
  read_class_names,
)
from gan_jax.sampling.label_vectors import format_label_vectors
from gan_jax.sampling.options import LAYOUTS, SamplingOptions, format_ranges, listed
from gan_jax.sampling.planning import (
  GeneratorSpec,
  ImagePlan,
  PlannedImages,
  draw_latents,
  noise_seeds,
  plan_images,
  resolve_resolution,
)
from gan_jax.sampling.samplers import (
  Sampler,
  make_mapper,
  make_sampler,
  make_synthesizer,
  run_in_batches,
  standing_statistics,
)
from gan_jax.sampling.style_mixing import mix_styles, parse_mix_layers
from gan_jax.storage import checkpoint as checkpoints

STANDING_BATCH = 64  # latents per batch of standing statistics
STYLE_OPTIONS = (
  'truncated_layers', 'noise', 'noise_seed', 'noise_strength', 'noise_layers', 'mix',
  'mix_layers'
)  # fmt: skip
IMAGE_OPTIONS = (  # of images, not of the generator
  *LAYOUTS, 'seeds', 'num', 'classes', 'labels', 'mix_layers', 'frames', 'loop', 'only',
  'columns'
)  # fmt: skip


class Generator(abc.ABC):
  """What trained and exported generators share."""

  @property
  @abc.abstractmethod
  def n_classes(self) -> int:
    """Number of classes; 0 for an unconditional model."""

  @property
  @abc.abstractmethod
  def class_names(self) -> tuple[str, ...]:
    """Names of the classes by label; () where none are known."""

  @property
  @abc.abstractmethod
  def resolution(self) -> int:
    """Height and width of the images in pixels."""

  @property
  @abc.abstractmethod
  def defaults(self) -> SamplingDefaults:
    """psi and truncation where the options have none."""

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
    truncation: float | None = None,
    psi: float | None = None,
    labels: int | str | Iterable[int | str] | np.ndarray | None = None,
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
        gives better images and less variety. None: `defaults`, usually none.
      psi: factor of z in a BigGAN, of the distance between w and its mean in a
        StyleGAN. Lower psi gives better images and less variety. None: `defaults`,
        0.7 for StyleGAN and 1 otherwise, as the original code samples.
      labels: labels or class names, assigned to the images in turn; or label vectors
        or weights over the classes, an array [m, n_classes]. None draws the label from
        the seed.
      noise: noise of a StyleGAN: 'own' is drawn from each seed, 'stored' comes from
        the weights, 'off' is none.
      standing: number of batches from which a BigGAN takes its batch statistics at
        this truncation; 0 uses those of training.
      batch: images per batch.

    Raises:
      UserError: this generator cannot do it.
    """
    vectors = None
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
      labels, vectors = None, labels
    options = SamplingOptions(
      seeds=format_ranges(seeds),
      truncation=truncation,
      psi=psi,
      classes='' if labels is None else self._classes(labels),
      labels='' if vectors is None else format_label_vectors(vectors),
      noise=noise,
      standing=standing,
      batch=batch,
    )
    return np.concatenate(list(self.plan(options).images))

  def _classes(self, labels: int | str | Iterable[int | str]) -> str:
    """Labels and class names as a value of `SamplingOptions.classes`.

    Raises:
      UserError: an unknown name, no label at all, or a model without classes.
    """
    if not self.n_classes:
      raise UserError('labels: this model has no classes.')
    numbers: list[int] = []
    for label in listed(labels):
      if isinstance(label, str):
        numbers += parse_classes(label, self.n_classes, self.class_names)
      else:
        numbers.append(label)
    if not numbers:
      raise UserError('labels: there are none; None draws them from the seeds.')
    return format_labels(numbers, self.class_names)


class Restored(NamedTuple):
  """What is read from a checkpoint."""

  g: Variables
  phase: Phase  # of training, when it was written
  step: int


class TrainedGenerator(Generator):
  """The generator of a run or of imported weights, on all devices.

  Attributes:
    gan: the GAN family with its config values.
    weights: 'ema', or 'g' for the raw weights.
  """

  def __init__(self, workdir: str | Path, step: int | None = None, ema: bool = True):
    """The checkpoint is read when it is first needed.

    Args:
      step: step of the checkpoint; None for the newest.
      ema: the EMA weights; False: the raw ones, as the optimizer left them.

    Raises:
      UserError: `workdir` is not the folder of a run.
    """
    self._config, self._workdir, self._step = read_config(workdir), workdir, step
    self.weights = 'ema' if ema else 'g'
    self.gan = self._config.gan
    self._mesh = make_mesh()
    self._jitted: Callable[..., Sampler] = functools.cache(
      lambda make, *args: make(self.gan, self._mesh, *args)
    )
    self._standing = functools.lru_cache(8)(self._standing_statistics)

  @functools.cached_property
  def _restored(self) -> Restored:
    g, _ = jax.eval_shape(self.gan.init, jax.random.key(0))
    like = {self.weights: g, 'images': jax.ShapeDtypeStruct((), np.uint32)}
    parts, step = checkpoints.restore_subtrees(self._workdir, like, self._step)
    phase = self._config.phase_at(int(parts['images']))
    return Restored(parts[self.weights], phase, step)

  @property
  def phase(self) -> Phase:
    """The phase of training that the checkpoint was written in. Reads the checkpoint.

    Raises:
      UserError: there is no such checkpoint.
    """
    return self._restored.phase

  @property
  def step(self) -> int:
    """Step of the checkpoint. Reads the checkpoint.

    Raises:
      UserError: there is no such checkpoint.
    """
    return self._restored.step

  @property
  def n_classes(self) -> int:
    return self.gan.n_classes

  @functools.cached_property
  def class_names(self) -> tuple[str, ...]:
    return read_class_names(self._workdir, self.n_classes)

  @property
  def resolution(self) -> int:
    return self.phase.res

  @property
  def defaults(self) -> SamplingDefaults:
    return self.gan.sampling_defaults

  def plan(self, options: SamplingOptions) -> PlannedImages:
    self._check(options)
    psi, truncation = self.defaults.resolve(options.psi, options.truncation)
    res, alpha = resolve_resolution(options.res, self.phase)
    gan, style = self.gan, self.gan.style_based
    plan = plan_images(
      options, GeneratorSpec(self.n_classes, self.class_names, style, res)
    )
    z, classes = draw_latents(
      plan, options.batch, truncation, gan.dim_z, self.n_classes
    )
    g, stored_noise = self._variables(options), options.noise == 'stored'
    seeds = noise_seeds(options, plan)
    if style is None:
      sample = self._jitted(make_sampler, res, stored_noise)
      draw: Callable[..., ArrayLike] = lambda z, classes, seeds: sample(
        g, z, classes, psi, seeds, alpha
      )
      classes = plan.frames_of(classes)
      rows = [plan.frames_of(z), classes, seeds]
    else:
      synthesize = self._jitted(make_synthesizer, res, stored_noise)
      draw = lambda ws, seeds: synthesize(g, ws, seeds, alpha)
      ws, classes = self._styles(style, options, plan, g, z, classes)
      rows = [ws[:, : style.layers(res)], seeds]
    batch = self._batch_size(options, len(seeds))
    images = run_in_batches(draw, [plan.selected(x) for x in rows], batch)
    classes, seeds = plan.selected(classes), plan.selected(plan.seeds)
    return PlannedImages(images, classes, seeds, plan.cells, psi, truncation)

  def export(
    self, path: str | Path, options: SamplingOptions | None = None
  ) -> tuple[Path, Path]:
    """Writes the files of `export.export_generator` and returns their paths.

    Args:
      path: name of the .stablehlo file; '~' is the home folder.
      options: fix the resolution, the noise strength and the truncated layers, and the
        truncation that batch statistics are taken at. None for the defaults.

    Raises:
      UserError: as `export.export_generator` and `plan`, or options of images.
    """
    options = options or SamplingOptions()
    self._check(options)
    for name in options.changed(IMAGE_OPTIONS):
      raise UserError(f'--{name} is for images, and --export writes a generator.')
    res, alpha = resolve_resolution(options.res, self.phase)
    gan = self.gan
    if gan.style_based is not None and options.truncated_layers is not None:
      gan = dataclasses.replace(gan, truncated_layers=options.truncated_layers)
    g = self._variables(options)
    path = os.path.expanduser(path)
    return export.export_generator(gan, g, path, res=res, alpha=alpha)

  def _batch_size(self, options: SamplingOptions, n: int) -> int:
    """Images per batch: at most n, rounded up to a multiple of the devices."""
    return self._device_multiple(min(options.batch, n))

  def _device_multiple(self, n: int) -> int:
    return -(-n // self._mesh.size) * self._mesh.size

  def _check(self, options: SamplingOptions) -> None:
    """
    Raises:
      UserError: the family cannot do it.
    """
    if self.gan.style_based is None:
      reject_style_options(options, 'is for a StyleGAN, which this model is not')

  def _variables(self, options: SamplingOptions) -> Variables:
    """EMA weights with the noise strengths or the batch statistics of the options."""
    style = self.gan.style_based
    if style is None:
      psi, truncation = self.defaults.resolve(options.psi, options.truncation)
      return self._standing(options.standing, truncation, psi)
    strength = 0.0 if options.noise == 'off' else options.noise_strength
    strengths = np.full(style.layers(style.res), strength)
    if options.noise_layers is not None:
      res, _ = resolve_resolution(options.res, self.phase)
      bands = parse_mix_layers(options.noise_layers, style, res, 'noise_layers')
      strengths[np.setdiff1d(np.arange(len(strengths)), np.concatenate(bands))] = 0
    return style.with_noise(self._restored.g, strengths)

  def _standing_statistics(
    self, n_batches: int, truncation: float, psi: float
  ) -> Variables:
    g, batch = self._restored.g, self._device_multiple(STANDING_BATCH)
    if not n_batches:
      return g
    return standing_statistics(
      self.gan, self._mesh, g, n_batches, batch, truncation, psi
    )

  def _styles(
    self,
    gan: StyleBased,
    options: SamplingOptions,
    plan: ImagePlan,
    g: Variables,
    z: Float[np.ndarray, 'k dim_z'],
    classes: Float[np.ndarray, 'k classes'],
  ) -> tuple[Float[np.ndarray, 'n layers dim_w'], Float[np.ndarray, 'n classes']]:
    """ws and class weights of all images: truncated, then interpolated or mixed."""
    n_truncated = options.truncated_layers
    n_truncated = gan.truncated_layers if n_truncated is None else n_truncated
    truncated = np.arange(gan.layers(gan.res)) < n_truncated
    value, _ = self.defaults.resolve(options.psi)
    psi = np.where(truncated, value, 1).astype(np.float32)
    mapper = self._jitted(make_mapper)
    if options.interpolate in ('z', 'class'):
      z, classes = plan.frames_of(z), plan.frames_of(classes)
    draw = lambda z, classes: mapper(g, z, classes, psi)
    batch = self._batch_size(options, len(z))
    ws = np.concatenate(list(run_in_batches(draw, [z, classes], batch)))
    if options.interpolate == 'w':
      return plan.frames_of(ws), plan.frames_of(classes)
    if not options.mix:
      return ws, classes
    rows, columns = ws[: plan.n_rows], ws[plan.n_rows :]
    of_rows = np.repeat(classes[: plan.n_rows], len(columns), 0)
    return (
      np.concatenate([ws, mix_styles(rows, columns, plan.bands)]),
      np.concatenate([classes, *[of_rows] * len(plan.bands)]),
    )


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
    path = Path(path)
    otherwise = f'{path} is no generator that gan_jax.sample --export wrote.'
    _, exported = export.read_exported(path, otherwise)
    try:
      z, classes, _ = (x.shape for x in exported.in_avals)
      self.dim_z, self._n_classes = int(z[1]), int(classes[1])
      self._resolution = int(exported.out_avals[0].shape[1])
      self._defaults = export.read_defaults(exported)
    except Exception as error:  # of an exported function of another kind
      raise UserError(otherwise) from error
    self._generate = jax.jit(exported.call)

  @property
  def n_classes(self) -> int:
    return self._n_classes

  @property
  def class_names(self) -> tuple[str, ...]:
    return ()

  @property
  def resolution(self) -> int:
    return self._resolution

  @property
  def defaults(self) -> SamplingDefaults:
    return self._defaults

  def plan(self, options: SamplingOptions) -> PlannedImages:
    reject_style_options(options, 'is not for an exported generator')
    for name in options.changed(('res', 'standing')):
      raise UserError(f'--{name} was fixed when this generator was exported.')
    plan = plan_images(options, GeneratorSpec(self.n_classes, self.class_names))
    psi, truncation = self.defaults.resolve(options.psi, options.truncation)
    z, classes = draw_latents(
      plan, options.batch, truncation, self.dim_z, self.n_classes
    )
    z, classes = (plan.selected(plan.frames_of(x)) for x in (z, classes))
    scale = np.float32(psi)
    draw = lambda z, classes: self._generate(z, classes[:, : self.n_classes], scale)
    images = run_in_batches(draw, [z, classes], min(options.batch, len(z)))
    seeds = plan.selected(plan.seeds)
    return PlannedImages(images, classes, seeds, plan.cells, psi, truncation)


def load(
  path: str | Path, checkpoint: int | None = None, *, ema: bool = True
) -> TrainedGenerator | ExportedGenerator:
  """Loads a generator.

  Args:
    path: the workdir of a run or of imported weights, or an exported .stablehlo file;
      '~' is the home folder.
    checkpoint: step of the checkpoint in a workdir; None for the newest.
    ema: the EMA weights; False: the raw weights of a workdir.

  Raises:
    UserError: there is no such generator.
  """
  path = Path(os.path.expanduser(check_path(str(path))))
  if path.is_file() or path.suffix.lower() == export.SUFFIX:
    if checkpoint is not None:
      raise UserError(f'checkpoint={checkpoint}: {path} is an exported generator.')
    if not ema:
      raise UserError(f'ema=False: {path} is an exported generator.')
    return ExportedGenerator(path)
  generator = TrainedGenerator(path, checkpoint, ema)
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
  if options.psi is not None and not options.psi > 0:
    raise UserError(f'--psi={options.psi}: it must be above 0.')
