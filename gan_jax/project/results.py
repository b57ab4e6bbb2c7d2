"""What a projection writes: latents, a table of images, a film and numbers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from gan_jax.data.decode import area_downsample
from gan_jax.models.base import GAN
from gan_jax.project.projection import Batch, Progress
from gan_jax.runtime.image_size import halvings
from gan_jax.sampling.animation import write_animation
from gan_jax.sampling.image_io import arrange
from gan_jax.sampling.latents import Latents, Space
from gan_jax.sampling.layout import table, to_rgb
from gan_jax.storage.files import atomic_path

FPS = 24
FILMED = 8  # images, the first ones
FILM_SIDE = 256  # pixels of an image of the film; larger ones are halved to it
IN_FILES: dict[str, Space] = {'w': 'w', 'w+': 'w_plus', 'z': 'z'}

Images = UInt8[np.ndarray, 'n h w c']


def psnr(images: Images, targets: Images) -> Float[np.ndarray, ' n']:
  """The peak signal-to-noise ratio of each image in dB; inf where it is the target."""
  square = np.square(images.astype(np.float64) - targets).mean((1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10 * np.log10(255**2 / square)


def scores(
  batch: Batch, images: Images, targets: Images, distances: np.ndarray
) -> list[dict[str, float | None]]:
  """PSNR and the distance of each image, by name; an infinite PSNR is None."""
  name = 'pixels' if batch.compare.name == 'pixels' else 'lpips'
  return [
    {'psnr': float(p) if math.isfinite(p) else None, name: float(d)}
    for p, d in zip(psnr(images, targets), distances, strict=True)
  ]


def make_latents(batch: Batch, progress: Progress, model: str) -> Latents:
  """The projections as latents that `gan_jax.sample --latents` draws."""
  variables = jax.tree.map(lambda x: np.asarray(x)[: batch.n], progress.state.variables)
  latent, labels, space = variables['latent'], None, batch.render.space
  if space == 'w':
    latent = latent[:, 0]
  elif space == 'w+':
    latent = _filled(latent, batch.render.gan)
  elif space == 'z' and batch.render.gan.n_classes:
    labels = batch.labels
    if labels is None:
      labels = np.asarray(jax.nn.softmax(variables['classes']))
  return Latents(
    space=IN_FILES[space],
    values=latent,
    labels=labels,
    psi=1.0,
    noise=_all_noise(variables.get('noise', ()), batch.render.gan),
    model=model,
  )


def _filled(latent: np.ndarray, gan: GAN) -> np.ndarray:
  """w_plus of all layers; those of resolutions to come have the last w."""
  style = gan.style_based
  assert style is not None
  missing = style.layers(style.res) - latent.shape[1]
  return np.pad(latent, [(0, 0), (0, missing), (0, 0)], 'edge')


def _all_noise(noise: Sequence[np.ndarray], gan: GAN) -> tuple[np.ndarray, ...]:
  """Noise maps of all layers; those of resolutions to come are 0."""
  style = gan.style_based
  sizes = style.sizes(style.res)[len(noise) :] if style else []
  return (*noise, *(np.zeros((1, *size, 1), np.float32) for size in sizes))


def side_by_side(columns: dict[str, Images], rows: Sequence[dict]) -> Image.Image:
  """The targets and what they became, one image per row.

  Args:
    columns: images by caption, the first ones the targets.
    rows: scores of each image.
  """
  n = len(rows)
  cells = np.arange(len(columns) * n).reshape(len(columns), n).T
  images = to_rgb(np.concatenate(list(columns.values())))
  return table(images, cells, list(columns), [_caption(row) for row in rows])


def _caption(row: dict[str, Any]) -> str:
  name = 'lpips' if 'lpips' in row else 'pixels'
  decibels = 'equal' if row['psnr'] is None else f'{row["psnr"]:.1f} dB'
  return f'{decibels}\n{name} {row[name]:.3f}'


def film_frames(batch: Batch, progress: Progress, targets: Images) -> Images:
  """The first images over their targets, at the steps of the path.

  As in the original's film the noise maps are the last ones throughout.
  """
  noise = {k: v for k, v in progress.state.variables.items() if k == 'noise'}
  n, frames = min(batch.n, FILMED), []
  factor = halvings(targets.shape[1:3], FILM_SIDE)
  for i in range(len(progress.path['latent'])):
    here = batch.place({k: v[i] for k, v in progress.path.items()})
    images = np.concatenate([targets[:n], batch.draw({**noise, **here})[:n]])
    images = area_downsample(images, factor)
    page = np.asarray(arrange(images, np.arange(2 * n).reshape(2, n)))
    frames.append(page.reshape(*page.shape[:2], -1))
  return np.stack(frames)


def write_film(file: Path, frames: Images, description: str) -> None:
  """Writes the film, atomically."""
  with atomic_path(file) as part:
    write_animation(part, frames, FPS, description)
