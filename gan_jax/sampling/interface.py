"""What all generators can do: sample from seeds, or from options."""

import abc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gan_jax import UserError
from gan_jax.models.base import SamplingDefaults
from gan_jax.sampling.class_names import format_labels, parse_classes
from gan_jax.sampling.label_vectors import format_label_vectors
from gan_jax.sampling.latents import Latents, latents_of_z
from gan_jax.sampling.options import SamplingOptions, format_ranges, listed
from gan_jax.sampling.planning import PlannedImages

STYLE_OPTIONS = (
  'truncated_layers', 'noise', 'noise_seed', 'noise_strength', 'noise_layers', 'mix',
  'mix_layers'
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
    """The resolution of the images: the side of square ones in pixels."""

  @property
  @abc.abstractmethod
  def defaults(self) -> SamplingDefaults:
    """psi and truncation where the options have none."""

  @abc.abstractmethod
  def plan(
    self, options: SamplingOptions, latents: Latents | None = None
  ) -> PlannedImages:
    """Checks the options and prepares the images that they describe.

    Args:
      latents: of the images, as from a file that the options name.

    Raises:
      UserError: this generator cannot do it, or there is no such checkpoint.
    """

  def sample(
    self,
    seeds: int | str | Iterable[int] | None = None,
    *,
    latents: str | Path | Latents | np.ndarray | None = None,
    direction: str = '',
    truncation: float | None = None,
    psi: float | None = None,
    labels: int | str | Iterable[int | str] | np.ndarray | None = None,
    noise: str = 'own',
    standing: int = 16,
    batch: int = 64,
  ) -> UInt8[np.ndarray, 'n h w c']:
    """Samples one image per seed: the bits that `gan_jax.sample` writes.

    A seed gives the same image whatever the other seeds are. `plan` can do more.

    Args:
      seeds: integers in [0, 2**32), or text such as 'numpy:639'. None: 0 to 15.
      latents: in place of seeds: a file, its content, or z [n, dim_z].
      direction: of the run, with its strength, such as 'sefa0:1.5'.
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
    if isinstance(latents, np.ndarray):
      latents = latents_of_z(latents)
    given = latents if isinstance(latents, Latents) else None
    options = SamplingOptions(
      seeds=_seeds(seeds, latents is not None),
      latents=str(latents) if isinstance(latents, str | Path) else '',
      direction=direction,
      truncation=truncation,
      psi=psi,
      classes='' if labels is None else self._classes(labels),
      labels='' if vectors is None else format_label_vectors(vectors),
      noise=noise,
      standing=standing,
      batch=batch,
    )
    return np.concatenate(list(self.plan(options, given).images))

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


def _seeds(seeds: int | str | Iterable[int] | None, has_latents: bool) -> str | None:
  """Seeds as a value of `SamplingOptions.seeds`.

  Raises:
    UserError: there are latents too, or something is no integer.
  """
  if seeds is None:
    return None if has_latents else '0-15'
  if has_latents:
    raise UserError('seeds and latents exclude each other: give one.')
  return seeds if isinstance(seeds, str) else format_ranges(seeds)


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
