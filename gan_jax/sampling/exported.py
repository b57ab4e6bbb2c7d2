"""Exported generators: loaded once, sampled any number of times."""

from pathlib import Path

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.models.base import SamplingDefaults
from gan_jax.sampling import export
from gan_jax.sampling.drawing import draw_latents, resolve_truncation
from gan_jax.sampling.interface import Generator, reject_style_options
from gan_jax.sampling.latents import (
  Latents,
  LatentShapes,
  check_latents,
  compact_labels,
  load_latents,
)
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.planning import GeneratorSpec, PlannedImages, plan_images
from gan_jax.sampling.samplers import run_in_batches


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

  def plan(
    self, options: SamplingOptions, latents: Latents | None = None
  ) -> PlannedImages:
    reject_style_options(options, 'is not for an exported generator')
    for name in options.changed(('res', 'standing', 'padded')):
      raise UserError(f'--{name} was fixed when this generator was exported.')
    for name in options.changed(('direction',)):
      raise UserError(f'--{name} needs the run: give its --workdir.')
    if options.latents:
      latents = load_latents(options.latents)
    if latents is not None:
      shapes = LatentShapes(self.dim_z, self.n_classes)
      check_latents(options.latents or 'latents', latents, shapes)
    spec = GeneratorSpec(self.n_classes, self.class_names)
    plan = plan_images(options, spec, latents)
    psi, truncation = resolve_truncation(options, self.defaults, latents)
    z, classes = draw_latents(
      plan, options.batch, truncation, self.dim_z, self.n_classes, latents
    )
    z, classes = (plan.selected(plan.frames_of(x)) for x in (z, classes))
    scale = np.float32(psi)
    draw = lambda z, classes: self._generate(z, classes[:, : self.n_classes], scale)
    images = run_in_batches(draw, [z, classes], min(options.batch, len(z)))
    seeds = plan.selected(plan.seeds)
    labels = compact_labels(classes) if self.n_classes else None
    made = Latents('z', z, labels, psi, truncation, seeds)
    return PlannedImages(images, classes, seeds, plan.cells, made, psi, truncation)
