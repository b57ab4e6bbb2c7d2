"""Generators that are opened once and draw what is requested of them, again and again.

What is compiled is kept: seeds, classes, truncation, noise and styles are inputs, so
requests that differ in these compile nothing.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.models.base import Phase, StyleBased, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import export
from gan_jax.sampling.options import (
  ImagePlan,
  SamplingOptions,
  add_mixing_margins,
  interpolate,
  mix_ranges,
  mix_styles,
  noise_seeds,
  parse_ranges,
  plan_images,
)
from gan_jax.sampling.samplers import (
  make_sampler,
  make_styles,
  make_synthesizer,
  run_in_batches,
  standing_statistics,
)
from gan_jax.storage import checkpoint

STANDING = 64  # pictures of a batch that batch statistics are taken from


class PlannedImages(NamedTuple):
  """What a request comes to."""

  images: Iterator[np.ndarray]  # uint8 [b, h, w, c], drawn as they are asked for
  classes: np.ndarray  # weights [n, n_classes]
  seeds: np.ndarray  # [n]
  columns: int  # of a sheet


class TrainedGenerator:
  """The averaged generator of a run."""

  def __init__(self, folder: str | Path, step: int | None = None):
    """
    Args:
      step: which checkpoint; None is the newest.

    Raises:
      UserError: there is no run.
    """
    self._run, self._folder, self._step = read_config(folder), folder, step
    self.gan = self._run.gan
    self._mesh = make_mesh()
    self._compiled = functools.cache(
      lambda make, *args: make(self.gan, self._mesh, *args)
    )
    self._standing = functools.lru_cache(8)(self._take_standing)

  @functools.cached_property
  def _restored(self) -> tuple[Variables, Phase]:
    g, _ = jax.eval_shape(self.gan.init, jax.random.key(0))
    g, images = checkpoint.restore_ema(self._folder, g, self._step)
    return g, self._run.schedule.phase_at(images, self.gan.res)

  @property
  def phase(self) -> Phase:
    """What the checkpoint has come to."""
    return self._restored[1]

  def pictures(self, request: SamplingOptions) -> PlannedImages:
    """What is asked for, not drawn yet.

    Raises:
      UserError: this model cannot do it, or there is no such checkpoint.
    """
    request = self._checked(request)
    plan = plan_images(request, self.gan, request.seeds)
    res, alpha = resolve_resolution(request.res, self.phase)
    batch = self._whole(min(request.batch, len(plan.seeds)))
    g = self._variables(request)
    stored = request.noise == 'stored'
    style = self.gan.style_based
    if style is not None:
      ws, plan = self._styles(request, style, g, plan, batch)
      batch = self._whole(min(request.batch, len(ws)))
      synthesize = self._compiled(make_synthesizer, res, stored)
      draw: Any = lambda ws, noise: synthesize(g, ws, noise, alpha)
      rows = [ws[:, : style.layers(res)], noise_seeds(request, plan)]
    else:
      sample = self._compiled(make_sampler, res, stored)
      psi = request.psi
      draw = lambda z, classes, noise: sample(g, z, classes, psi, noise, alpha)
      rows = [plan.z, plan.classes, noise_seeds(request, plan)]
    rows, plan = select_image(request, rows, plan)
    images = run_in_batches(draw, rows, batch)
    if request.mix:
      n = len(parse_ranges(request.seeds, 'seeds'))
      images = add_mixing_margins(images, n, plan.columns)
    return PlannedImages(images, plan.classes, plan.seeds, plan.columns)

  def export(self, request: SamplingOptions, out: Path) -> tuple[Path, Path]:
    """The generator as the files of `export.write`.

    Raises:
      UserError: as there, and as `pictures`.
    """
    request = self._checked(request)
    res, alpha = resolve_resolution(request.res, self.phase)
    gan = self.gan
    if gan.style_based is not None and request.truncated_layers is not None:
      gan = dataclasses.replace(gan, truncated_layers=request.truncated_layers)
    return export.export_generator(
      gan, self._variables(request), out, res=res, alpha=alpha
    )

  def _whole(self, n: int) -> int:
    return -(-n // self._mesh.size) * self._mesh.size

  def _checked(self, request: SamplingOptions) -> SamplingOptions:
    if self.gan.style_based is not None:
      if request.mix and request.interpolate:
        raise UserError('--mix and --interpolate are two kinds of sheet: ask for one.')
      return request
    reject_style_options(request, 'is for a StyleGAN, which this model is not')
    if request.psi != 1 and np.isinf(request.truncation):
      return dataclasses.replace(request, truncation=self.gan.psi_threshold)
    return request

  def _variables(self, request: SamplingOptions) -> Variables:
    style = self.gan.style_based
    if style is not None:
      strength = 0.0 if request.noise == 'off' else request.noise_strength
      return style.with_noise(self._restored[0], strength)
    return self._standing(request.standing, request.truncation, request.psi)

  def _take_standing(self, passes: int, truncation: float, psi: float) -> Variables:
    g, batch = self._restored[0], self._whole(STANDING)
    if not passes:
      return g
    return standing_statistics(self.gan, self._mesh, g, passes, batch, truncation, psi)

  def _styles(
    self,
    request: SamplingOptions,
    gan: StyleBased,
    g: Variables,
    plan: ImagePlan,
    batch: int,
  ) -> tuple[np.ndarray, ImagePlan]:
    """ws [n, layers, dim_w] of what is asked for.

    A mixing sheet comes as its sources, rows then columns, and then the mixtures.
    """
    cut = request.truncated_layers
    cut = gan.truncated_layers if cut is None else cut
    psi = np.where(np.arange(gan.layers(gan.res)) < cut, request.psi, 1)
    psi = psi.astype(np.float32)
    mapping = self._compiled(make_styles)

    def styles(plan: ImagePlan) -> np.ndarray:
      draw = lambda z, classes: mapping(g, z, classes, psi)
      return np.concatenate(list(run_in_batches(draw, [plan.z, plan.classes], batch)))

    ws = styles(plan)
    if request.interpolate == 'w':
      classes = interpolate(plan.classes, request.frames)
      return interpolate(ws, request.frames), plan._replace(classes=classes)
    if not request.mix:
      return ws, plan
    bands = mix_ranges(request.mix_layers, gan)
    other = plan_images(request, gan, request.mix)
    columns = styles(other)
    mixed = mix_styles(ws, columns, bands)
    rows = np.tile(np.repeat(plan.seeds, len(columns)), len(bands))
    seeds = np.concatenate([plan.seeds, other.seeds, rows])
    everything = np.concatenate([ws, columns, mixed])
    classes = np.zeros((len(everything), 1), np.float32)
    return everything, ImagePlan(plan.z, classes, seeds, len(columns) + 1)


class ExportedGenerator:
  """A generator that gan_jax.sample --export wrote."""

  def __init__(self, path: str | Path):
    """
    Raises:
      UserError: no such file, or it holds something else; a missing package.
    """
    try:
      generator = jax.export.deserialize(bytearray(Path(path).read_bytes()))
      z, classes, _ = (x.shape for x in generator.in_avals)
      self.dim_z, self.n_classes = int(z[1]), int(classes[1])
    except ImportError as error:
      raise UserError("this needs a package: pip install 'gan_jax[export]'.") from error
    except OSError as error:
      raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # whatever a parser makes of a foreign file
      raise UserError(
        f'{path} is no generator that gan_jax.sample --export wrote.'
      ) from error
    self._draw = jax.jit(generator.call)

  def pictures(self, request: SamplingOptions) -> PlannedImages:
    """What is asked for, not drawn yet.

    Raises:
      UserError: a program cannot do it.
    """
    reject_style_options(request, 'is not for an exported generator')
    for name in ('res', 'standing'):
      if getattr(request, name) != getattr(SamplingOptions, name):
        raise UserError(f'--{name} was fixed when this generator was exported.')
    plan = plan_images(request, self, request.seeds)
    rows, plan = select_image(
      request, [plan.z, plan.classes[:, : self.n_classes]], plan
    )
    psi = np.float32(request.psi)
    draw = lambda z, classes: self._draw(z, classes, psi)
    images = run_in_batches(draw, rows, min(request.batch, len(rows[0])))
    return PlannedImages(images, plan.classes, plan.seeds, plan.columns)


def reject_style_options(request: SamplingOptions, because: str) -> None:
  """Refuses what only the weights of a StyleGAN can do."""
  for name in (
    'truncated_layers', 'noise', 'noise_seed', 'noise_strength', 'mix', 'mix_layers'
  ):  # fmt: skip
    if getattr(request, name) != getattr(SamplingOptions, name):
      raise UserError(f'--{name} {because}.')
  if request.interpolate == 'w':
    raise UserError(f'--interpolate=w {because}.')
  if not request.psi > 0:
    raise UserError(f'--psi={request.psi}: it must be above 0.')


def select_image(
  request: SamplingOptions, rows: list[np.ndarray], plan: ImagePlan
) -> tuple[list[np.ndarray], ImagePlan]:
  """The rows, or of one picture alone.

  Raises:
    UserError: there is no such picture.
  """
  if request.only is None:
    return rows, plan
  n = len(rows[0])
  if request.mix or not 0 <= request.only < n:
    what = 'a mixing sheet is a whole' if request.mix else f'pictures are 0-{n - 1}'
    raise UserError(f'--only={request.only}: {what}.')
  one = slice(request.only, request.only + 1)
  alone = plan._replace(classes=plan.classes[one], seeds=plan.seeds[one], columns=1)
  return [x[one] for x in rows], alone


def resolve_resolution(asked: int, phase: Phase) -> tuple[int, ArrayLike]:
  """The resolution to draw, and how far it has faded in.

  Raises:
    UserError: one that is not there.
  """
  if not asked or asked == phase.res:
    return phase.res, phase.alpha
  if asked > phase.res or asked < 4 or asked & (asked - 1):
    raise UserError(
      f'--res={asked}: this run has come to {phase.res}; allowed are that and, of a '
      'growing GAN, the powers of two from 4 on below it.'
    )
  return asked, 1.0
