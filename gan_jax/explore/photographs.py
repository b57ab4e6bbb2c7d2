"""Photographs in the explorer: their projection, and the latents that it keeps.

An image is projected on one device, so that samples can be drawn meanwhile: programs
that two threads start on several devices could wait for each other.
"""

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from gan_jax import UserError
from gan_jax.prepare.command import parse_color
from gan_jax.project import noise_maps, projection, results
from gan_jax.project.comparison import make_comparison
from gan_jax.project.options import ProjectOptions
from gan_jax.project.projection import Batch, Progress
from gan_jax.project.spaces import SPACES, Renderer, check_space
from gan_jax.project.targets import make_targets
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.image_io import to_pil
from gan_jax.sampling.latents import Latents, check_latents, load_latents

STEPS = 100  # by default
MAX_BYTES = 64 * 2**20  # of an uploaded file
PREVIEWS = 20  # images of a projection in progress


class CancelledError(Exception):
  """A projection was cancelled."""


class Status:
  """How far a projection has come. Written by its thread, read by the page.

  Attributes:
    text: where it is, in words.
    share: of its steps, from 0 to 1.
    target: PNG of the photograph as the generator could show it; b'' before it is read.
    preview: PNG of the projection so far; b'' before the first one.
  """

  def __init__(self) -> None:
    self.text, self.share = 'waiting', 0.0
    self.target, self.preview = b'', b''
    self._cancelled = threading.Event()

  def cancel(self) -> None:
    """Ends the projection at its next step."""
    self._cancelled.set()

  def check(self) -> None:
    """
    Raises:
      CancelledError: the projection was cancelled.
    """
    if self._cancelled.is_set():
      raise CancelledError


def spaces_of(generator: TrainedGenerator) -> tuple[str, ...]:
  """The spaces that a photograph can be projected into, the default one first."""
  return SPACES if generator.gan.style_based else ('z',)


def project_photograph(
  generator: TrainedGenerator,
  name: str,
  content: bytes,
  options: ProjectOptions,
  status: Status,
) -> Latents:
  """The latents of one image.

  Args:
    name: of the file, for messages.
    content: of the file.

  Raises:
    UserError: the file is no image, an option does not suit the generator, or there
      is not enough memory.
    CancelledError: `status.cancel` was called.
  """
  status.text = 'reading the photograph'
  gan, phase = generator.gan, generator.phase
  background, space = parse_color(options.background), check_space(options.space, gan)
  shape = (gan.size(phase.res), gan.channels, options.pad, background)
  targets = make_targets([(name, content)], *shape)
  status.target = encode_png(targets.images[0])
  status.text = 'preparing'
  compare, _ = make_comparison(options.loss, options.lpips)
  status.check()
  render, mesh = (
    Renderer(gan, space, phase.res, phase.alpha),
    make_mesh(jax.devices()[:1]),
  )
  try:
    g = generator.sampled_variables()
    batch = Batch(render, g, compare, targets.images, None, mesh)
    progress = _optimize(batch, options, status)
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    reason = str(error).partition('\n')[0] or 'there is not enough memory'
    raise UserError(f'{name} cannot be projected: {reason}.') from error
  return results.make_latents(batch, progress, generator.identity)


def _optimize(batch: Batch, options: ProjectOptions, status: Status) -> Progress:
  """
  Raises:
    CancelledError: `status.cancel` was called.
  """

  def starts(values: range) -> Iterator[int]:
    for i in values:
      status.check()
      status.text = f'start {i + 1} of {len(values)}'
      yield i

  status.text = 'compiling'
  weight = options.noise_weight
  if weight is None:
    weight = noise_maps.penalty_weight(batch.render.gan.size(batch.render.res))
  progress = projection.begin(batch, options.seed, starts)
  status.check()
  n, stride = options.steps, max(1, options.steps // PREVIEWS)
  steps = projection.run(batch, progress, n, options.seed, weight)
  for progress, distances in steps:
    status.check()
    status.share = progress.step / n
    status.text = (
      f'step {progress.step} of {n}, {batch.compare.name} {distances[0]:.3f}'
    )
    if progress.step % stride == 1 % stride:
      status.preview = encode_png(batch.draw(progress.state.variables)[0])
  return progress


def encode_png(image: UInt8[np.ndarray, 'h w c']) -> bytes:
  file = io.BytesIO()
  to_pil(image).save(file, 'png')
  return file.getvalue()


def free_name(folder: Path, file: str) -> str:
  """A name for the latents of a photograph, from that of its file.

  It has letters, digits, and . _ - only, and no file in the folder has it.
  """
  stem = re.sub(r'[^A-Za-z0-9_-]+', '_', Path(file).stem).strip('_')[:40] or 'photo'
  names = (stem if i == 1 else f'{stem}_{i}' for i in range(1, 1_000_000))
  return next(name for name in names if not (folder / f'{name}.npz').exists())


def find_latents(folder: Path, generator: TrainedGenerator) -> list[str]:
  """Names of the files in a folder with the latents of one image of this model."""
  names = []
  for path in sorted(folder.glob('*.npz')):
    try:
      latents = load_latents(path)
      check_latents(path, latents, generator.latent_shapes)
    except UserError:  # something else, or of another model
      continue
    if len(latents) == 1 and latents.model:
      names.append(path.stem)
  return names
