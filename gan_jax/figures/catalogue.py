"""The figures by name, and which of them a model has."""

import dataclasses
from collections.abc import Callable

from gan_jax import UserError
from gan_jax.figures import film, latents, nearest
from gan_jax.figures.source import Figure, Source
from gan_jax.models.base import GAN
from gan_jax.runtime.errors import did_you_mean


def _any(gan: GAN) -> str:
  return ''


def _styles(gan: GAN) -> str:
  return '' if gan.style_based else 'is for a StyleGAN, which this model is not'


def _noise(gan: GAN) -> str:
  if gan.style_based and not gan.style_based.sizes(gan.res):
    return 'needs noise, and model.noise is false'
  return _styles(gan)


def _classes(gan: GAN) -> str:
  return '' if gan.n_classes > 1 else 'needs classes, which this model has not'


@dataclasses.dataclass(frozen=True)
class Entry:
  """A figure that can be drawn."""

  draw: Callable[[Source], Figure]
  summary: str
  lacking: Callable[[GAN], str] = _any  # why a model does not have it; '' if it has

  def suffix(self) -> str:
    return '.webp' if self.draw is film.film else '.png'


FIGURES = {
  'uncurated': Entry(latents.uncurated, 'images of consecutive seeds in several sizes'),
  'truncation': Entry(
    latents.truncation, 'the same latents at psi or truncation from low to high'
  ),
  'mixing': Entry(latents.mixing, 'styles of some images in layers of others', _styles),
  'noise': Entry(latents.noise, 'noise in all, no, fine and coarse layers', _noise),
  'noise_std': Entry(
    latents.noise_std, 'what noise changes: examples, standard deviation', _noise
  ),
  'interpolation_zy': Entry(
    latents.interpolation_zy, 'z and the class change along each row', _classes
  ),
  'interpolation_z': Entry(latents.interpolation_z, 'z changes along each row'),
  'interpolation_y': Entry(
    latents.interpolation_y, 'the class changes along each row', _classes
  ),
  'interpolation_w': Entry(
    latents.interpolation_w, 'w changes along each row', _styles
  ),
  'nearest': Entry(
    nearest.nearest, 'the nearest training images, in pixels and in features'
  ),
  'film': Entry(film.film, 'the sample grids of the run as a film'),
}


def choose(text: str, gan: GAN) -> list[str]:
  """'truncation,mixing' -> the names; '' -> all figures that the model has.

  Raises:
    UserError: an unknown name, or a figure that the model does not have.
  """
  names = [name.strip() for name in text.split(',') if name.strip()]
  for name in names:
    if name not in FIGURES:
      raise UserError(
        f'--figures={text}: there is no figure {name!r}{did_you_mean(name, FIGURES)}; '
        f'figures are {", ".join(FIGURES)}.'
      )
    if reason := FIGURES[name].lacking(gan):
      raise UserError(f'--figures={text}: {name} {reason}; --list shows those it has.')
  return list(dict.fromkeys(names)) or [
    name for name, entry in FIGURES.items() if not entry.lacking(gan)
  ]
