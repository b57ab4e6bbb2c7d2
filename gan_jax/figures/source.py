"""What figures are made of: a trained generator, and the folder of its run."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gan_jax.config import Config
from gan_jax.data import Dataset
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.layout import to_rgb
from gan_jax.sampling.options import SamplingOptions, format_ranges
from gan_jax.sampling.planning import PlannedImages


class Figure(NamedTuple):
  """A finished figure: one image, or the frames of a film."""

  image: Image.Image | None
  description: str
  frames: UInt8[np.ndarray, 'n h w 3'] | None = None


@dataclasses.dataclass(frozen=True)
class Source:
  """A run whose figures are drawn.

  Attributes:
    options: psi and truncation of all figures that do not set them.
    first_seed: of the images.
    load_data: loads the real images; raises a UserError if they are missing.
  """

  generator: TrainedGenerator
  config: Config
  folder: Path
  options: SamplingOptions
  first_seed: int
  load_data: Callable[[], Dataset]

  @functools.cached_property
  def class_captions(self) -> list[str]:
    """A name for each class, shortened."""
    names = self.generator.class_names
    labels = range(self.generator.n_classes)
    return [names[i][:24] if names else f'class {i}' for i in labels]

  def seeds(self, n: int) -> list[int]:
    """n seeds from the first one on."""
    return [self.first_seed + i for i in range(n)]

  def plan(self, **changes: Any) -> PlannedImages:
    """Images that the options with these changes describe.

    One image at a time, so that all figures share one program.
    """
    if isinstance(changes.get('seeds'), list):
      changes['seeds'] = format_ranges(changes['seeds'])
    options = dataclasses.replace(self.options, batch=1, **changes)
    return self.generator.plan(options)

  def images(self, **changes: Any) -> UInt8[np.ndarray, 'n h w 3']:
    """The images of `plan` in RGB."""
    return drawn(self.plan(**changes))

  def describe(self, seeds: list[int], **details: Any) -> str:
    """The metadata of a figure: its seeds, truncation, weights and checkpoint."""
    psi, truncation = self.generator.defaults.resolve(
      self.options.psi, self.options.truncation
    )
    values = {
      'seeds': format_ranges(seeds),
      'psi': f'{psi:g}',
      'truncation': f'{truncation:g}',
      **details,
      'checkpoint': self.generator.step,
      'weights': self.generator.weights,
    }
    return ' '.join(f'{name}={value}' for name, value in values.items())


def drawn(planned: PlannedImages) -> UInt8[np.ndarray, 'n h w 3']:
  """Planned images in RGB."""
  return to_rgb(np.concatenate(list(planned.images)))
