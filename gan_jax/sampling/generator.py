"""Trained generators: loaded once, sampled any number of times.

Jitted functions are kept. Seeds, classes, truncation, noise and styles are inputs, so
options that differ only in these compile nothing.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.config.workdir import model_identity, read_config, read_data_record
from gan_jax.models.base import Phase, SamplingDefaults, StyleBased, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.urls import check_path
from gan_jax.sampling import directions, export, onnx_export
from gan_jax.sampling.class_names import read_class_names
from gan_jax.sampling.cropping import crop_batches
from gan_jax.sampling.drawing import (
  Drawn,
  Job,
  draw_latents,
  noise_seeds,
  resolve_truncation,
)
from gan_jax.sampling.exported import ExportedGenerator
from gan_jax.sampling.interface import Generator, reject_style_options
from gan_jax.sampling.latents import (
  Latents,
  LatentShapes,
  check_latents,
  compact_labels,
  load_latents,
)
from gan_jax.sampling.options import LAYOUTS, SamplingOptions
from gan_jax.sampling.planning import (
  GeneratorSpec,
  PlannedImages,
  plan_images,
  resolve_resolution,
)
from gan_jax.sampling.samplers import (
  Sampler,
  make_mapper,
  make_noisy_synthesizer,
  make_sampler,
  make_synthesizer,
  make_truncator,
  run_in_batches,
  standing_statistics,
)
from gan_jax.sampling.style_mixing import parse_mix_layers
from gan_jax.sampling.styles import Mapped, make_styles
from gan_jax.storage import checkpoint as checkpoints
from gan_jax.storage.working_copy import local_workdir

STANDING_BATCH = 64  # latents per batch of standing statistics
MAPPING_BATCH = 512  # latents per batch of `map_latents`
IMAGE_OPTIONS = (  # of images, not of the generator
  *LAYOUTS, 'seeds', 'num', 'latents', 'classes', 'labels', 'mix_layers', 'frames',
  'loop', 'only', 'columns', 'direction', 'directions', 'padded'
)  # fmt: skip


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
  def variables(self) -> Variables:
    """Variables of G. Reads the checkpoint.

    Raises:
      UserError: there is no such checkpoint.
    """
    return self._restored.g

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

  @functools.cached_property
  def _content(self) -> Sequence[float]:
    """What is not padding in the training images: see `Dataset.content`."""
    return read_data_record(self._workdir).get('content', (0, 0, 1, 1))

  @functools.cached_property
  def identity(self) -> str:
    """What files of latents and directions call this model."""
    return model_identity(self._workdir)

  @property
  def latent_shapes(self) -> LatentShapes:
    """The latents that this generator takes."""
    gan, style = self.gan, self.gan.style_based
    shapes = LatentShapes(gan.dim_z, gan.n_classes, model=self.identity)
    if style is None:
      return shapes
    return shapes._replace(
      dim_w=style.dim_w, layers=style.layers(style.res), sizes=style.sizes(style.res)
    )

  def plan(
    self, options: SamplingOptions, latents: Latents | None = None
  ) -> PlannedImages:
    self._check(options)
    if options.latents:
      latents = load_latents(options.latents)
    if latents is not None:
      check_latents(options.latents or 'latents', latents, self.latent_shapes)
    steps = self._steps(options)
    psi, truncation = resolve_truncation(options, self.defaults, latents)
    style, (res, alpha) = self.gan.style_based, self._resolution(options)
    spec = GeneratorSpec(self.n_classes, self.class_names, style, res)
    plan = plan_images(options, spec, latents)
    z, classes = draw_latents(
      plan, options.batch, truncation, self.gan.dim_z, self.n_classes, latents
    )
    g = self._variables(options, psi, truncation)
    job = Job(options, plan, z, classes, latents, steps, psi, res, alpha)
    if style is None:
      drawn = self._draw_from_z(g, job)
    else:
      drawn = self._draw_from_styles(style, g, job)
    rows = [plan.selected(x) for x in drawn.rows]
    images = run_in_batches(drawn.draw, rows, self._batch_size(options, len(rows[0])))
    if not options.padded:
      images = crop_batches(images, self._content)
    classes = plan.selected(drawn.classes)
    made = dataclasses.replace(
      drawn.latents,
      values=plan.selected(drawn.latents.values),
      labels=compact_labels(classes) if self._knows_labels(latents) else None,
      truncation=truncation,
      seeds=plan.selected(noise_seeds(options, plan)),
      noise=tuple(plan.selected(x) for x in drawn.latents.noise),
      model=self.identity,
    )
    seeds = plan.selected(plan.seeds)
    return PlannedImages(images, classes, seeds, plan.cells, made, psi, truncation)

  def _knows_labels(self, given: Latents | None) -> bool:
    """Whether images have labels: those of a given w may not be known."""
    is_w = given is not None and given.space != 'z' and given.labels is None
    return self.n_classes > 0 and not is_w

  def map_latents(
    self, z: Float[np.ndarray, 'n dim_z'], classes: Float[np.ndarray, 'n classes']
  ) -> Float[np.ndarray, 'n dim_w']:
    """w of a StyleGAN, without truncation.

    Args:
      classes: class weights; [n, 1] without classes.
    """
    style = self.gan.style_based
    assert style is not None
    mapper = self._jitted(make_mapper)
    psi = np.ones(style.layers(style.res), np.float32)
    draw = lambda z, classes: mapper(self.variables, z, classes, psi)
    batch = self._device_multiple(min(MAPPING_BATCH, len(z)))
    return np.concatenate([x[:, 0] for x in run_in_batches(draw, [z, classes], batch)])

  def _draw_from_z(self, g: Variables, job: Job) -> Drawn:
    """Images of a family without styles."""
    sample = self._jitted(make_sampler, job.res, job.options.noise == 'stored')
    z, psi = job.plan.frames_of(job.z), job.psi
    if job.steps:
      z = directions.move_latents(z, job.steps, psi, self.gan.normalize_z)
    classes = job.plan.frames_of(job.classes)
    draw = lambda z, classes, seeds: sample(g, z, classes, psi, seeds, job.alpha)
    rows = [z, classes, noise_seeds(job.options, job.plan)]
    return Drawn(draw, rows, classes, Latents('z', z, psi=psi))

  def _draw_from_styles(self, gan: StyleBased, g: Variables, job: Job) -> Drawn:
    """Images of a StyleGAN."""
    options, plan, alpha = job.options, job.plan, job.alpha
    mapped = self._mapped(gan, g, job)
    arguments = (options, plan, job.z, job.classes, job.given, mapped, job.steps)
    styles = make_styles(*arguments, job.psi)
    ws = styles.ws[:, : gan.layers(job.res)]
    keeps_own = options.noise == 'own' and options.noise_seed is None
    if job.given is not None and job.given.noise and keeps_own:
      noise = tuple(
        plan.noise_of_file(x)
        if len(x) > 1
        else np.broadcast_to(x, (len(ws), *x.shape[1:]))
        for x in job.given.noise
      )
      noisy = self._jitted(make_noisy_synthesizer, job.res)
      draw: Callable[..., ArrayLike] = lambda ws, *noise: noisy(g, ws, noise, alpha)
      latents = dataclasses.replace(styles.latents, noise=noise)
      used = noise[: len(gan.sizes(job.res))]
      return Drawn(draw, [ws, *used], styles.classes, latents)
    synthesize = self._jitted(make_synthesizer, job.res, options.noise == 'stored')
    draw = lambda ws, seeds: synthesize(g, ws, seeds, alpha)
    rows_ = [ws, noise_seeds(options, plan)]
    return Drawn(draw, rows_, styles.classes, styles.latents)

  def _mapped(self, gan: StyleBased, g: Variables, job: Job) -> Mapped:
    """The mapping network and truncation, in batches."""
    n_truncated = job.options.truncated_layers
    n_truncated = gan.truncated_layers if n_truncated is None else n_truncated
    truncated = np.arange(gan.layers(gan.res)) < n_truncated
    by_layer = lambda psi: np.where(truncated, psi, 1).astype(np.float32)

    def in_batches(function: Callable[..., ArrayLike], *rows: np.ndarray) -> np.ndarray:
      batch = self._batch_size(job.options, len(rows[0]))
      return np.concatenate(list(run_in_batches(function, rows, batch)))

    def of_z(z: np.ndarray, classes: np.ndarray, psi: float) -> np.ndarray:
      mapper, psis = self._jitted(make_mapper), by_layer(psi)
      return in_batches(lambda z, classes: mapper(g, z, classes, psis), z, classes)

    def of_w(w: np.ndarray, psi: float) -> np.ndarray:
      truncate, psis = self._jitted(make_truncator), by_layer(psi)
      return in_batches(lambda w: truncate(g, w, psis), w)

    return Mapped(of_z, of_w, self.defaults.resolve(job.options.psi)[0])

  def _steps(self, options: SamplingOptions) -> list[directions.Step]:
    """The steps of --direction.

    Raises:
      UserError: there is no such direction, or it is of another model.
    """
    if not options.direction:
      return []
    given = os.path.expanduser(options.directions)
    path = Path(given) if given else Path(self._workdir) / directions.FILE
    style = self.gan.style_based
    space, dim = ('z', self.gan.dim_z) if style is None else ('w', style.dim_w)
    return directions.find_steps(path, options.direction, self.identity, space, dim)

  def _resolution(self, options: SamplingOptions) -> tuple[int, ArrayLike]:
    return resolve_resolution(options.res, self.phase)

  def sampled_variables(self) -> Variables:
    """The variables that images are sampled with where no options change them."""
    options = SamplingOptions()
    return self._variables(options, *resolve_truncation(options, self.defaults))

  def export(
    self, path: str | Path, options: SamplingOptions | None = None
  ) -> tuple[Path, ...]:
    """Writes the files of `export.export_generator`, or an ONNX model.

    Args:
      path: name of the .stablehlo or .onnx file; '~' is the home folder.
      options: fix the resolution, the noise strength and the truncated layers, and the
        truncation that batch statistics are taken at. None for the defaults.

    Returns:
      The paths of the files.

    Raises:
      UserError: as `export.export_generator` and `plan`, or options of images.
    """
    options = options or SamplingOptions()
    self._check(options)
    for name in options.changed(IMAGE_OPTIONS):
      raise UserError(f'--{name} is for images, and --export writes a generator.')
    res, alpha = self._resolution(options)
    gan = self.gan
    if gan.style_based is not None and options.truncated_layers is not None:
      gan = dataclasses.replace(gan, truncated_layers=options.truncated_layers)
    g = self._variables(options, *resolve_truncation(options, self.defaults))
    path = Path(path).expanduser()
    if path.suffix.lower() == onnx_export.SUFFIX:
      return (onnx_export.export_onnx(gan, g, path, res=res, alpha=alpha),)
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

  def _variables(
    self, options: SamplingOptions, psi: float, truncation: float
  ) -> Variables:
    """EMA weights with the noise strengths or the batch statistics of the options."""
    style = self.gan.style_based
    if style is None:
      return self._standing(options.standing, truncation, psi)
    strength = 0.0 if options.noise == 'off' else options.noise_strength
    strengths = np.full(style.layers(style.res), strength)
    if options.noise_layers is not None:
      res, _ = self._resolution(options)
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


def load(
  path: str | Path, checkpoint: int | None = None, *, ema: bool = True
) -> TrainedGenerator | ExportedGenerator:
  """Loads a generator.

  Args:
    path: the workdir of a run or of imported weights, or an exported .stablehlo file;
      '~' is the home folder, and 'showcase' the generator that comes with gan_jax.
    checkpoint: step of the checkpoint in a workdir; None for the newest.
    ema: the EMA weights; False: the raw weights of a workdir.

  Raises:
    UserError: there is no such generator.
  """
  path = local_workdir(check_path(str(path)))
  if path.is_file() or path.suffix.lower() == export.SUFFIX:
    if checkpoint is not None:
      raise UserError(f'checkpoint={checkpoint}: {path} is an exported generator.')
    if not ema:
      raise UserError(f'ema=False: {path} is an exported generator.')
    return ExportedGenerator(path)
  generator = TrainedGenerator(path, checkpoint, ema)
  _ = generator.phase  # reads the checkpoint now, so that errors occur here
  return generator
