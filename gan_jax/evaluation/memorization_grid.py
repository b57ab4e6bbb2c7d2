"""The image grid of generated images beside their nearest training images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.metrics.memorization import most_suspicious
from gan_jax.evaluation.metrics.transparency import composite_bytes
from gan_jax.evaluation.real_images import real_order
from gan_jax.models.base import Variables
from gan_jax.sampling.image_io import to_pil
from gan_jax.storage.files import atomic_path

FILE = 'memorization.png'  # in a workdir
ROWS = 10  # generated images
MIN_SIDE, MAX_SIDE = 64, 128  # pixels of an image in the grid
GAP, MARGIN = 4, 20  # pixels between images, and between groups of columns
LINE = 14  # pixels of a line of text
DISTANCES = {  # by metric
  'memorization_pixels': 'pixels',
  'memorization_small': 'features',
  'memorization': 'Inception',
  'memorization_features': '--features',
}


class Group(NamedTuple):
  """Columns of training images that are nearest by one distance."""

  distance: str  # for example 'pixels'
  images: Sequence[UInt8[np.ndarray, 'k h w c']]  # per row, nearest first
  ratios: Float[np.ndarray, ' rows']


class Rows(NamedTuple):
  """What the grid shows, one row per generated image."""

  seeds: Int[np.ndarray, ' rows']
  generated: UInt8[np.ndarray, 'rows h w c']
  groups: list[Group]


def suspicious_rows(evaluator: Evaluator, g: Variables) -> Rows:
  """The generated images of the latest evaluation that are nearest to training images.

  They are generated again from their seeds.

  Args:
    g: the generator of that evaluation.
  """
  protocol, nearest = evaluator.protocol, evaluator.nearest
  chosen = most_suspicious(list(nearest.values()), ROWS)
  seeds = protocol.seeds[chosen]
  drawn = evaluator.generate(evaluator.replicate(g), protocol, seeds)
  batches = [images for images, _ in drawn]
  examples = evaluator.dataset.examples
  order = real_order(len(examples), protocol.reals)
  groups = [
    Group(
      DISTANCES[name],
      [
        composite_bytes(np.stack([examples[int(order[i])][0] for i in row]))
        for row in found.nearest[chosen]
      ],
      found.ratio[chosen],
    )
    for name, found in nearest.items()
  ]
  return Rows(seeds, composite_bytes(np.concatenate(batches)), groups)


def draw_grid(rows: Rows) -> Image.Image:
  """One row per generated image: its seed, itself, and its nearest training images.

  The ratios below each seed are those of `Memorization`.
  """
  side = shown_side(max(rows.generated.shape[1:3]))
  step, label = side + GAP, 8 * LINE
  shown = [min(len(images) for images in group.images) for group in rows.groups]
  widths = [n * step + MARGIN for n in shown]
  size = label + step + MARGIN + sum(widths), len(rows.seeds) * step + 2 * LINE
  grid = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(grid)
  draw.text((label, GAP), 'generated', fill='black')
  for y, (seed, image) in enumerate(zip(rows.seeds, rows.generated, strict=True)):
    top = 2 * LINE + y * step
    draw.text((GAP, top), f'seed {seed}', fill='black')
    for line, group in enumerate(rows.groups, 1):
      text = f'{group.distance}: {group.ratios[y]:.2f}'
      draw.text((GAP, top + line * LINE), text, fill='black')
    grid.paste(resized(image, side), (label, top))
  left = label + step + MARGIN
  for group, n, width in zip(rows.groups, shown, widths, strict=True):
    draw.text((left, GAP), f'nearest in {group.distance}', fill='black')
    for y, images in enumerate(group.images):
      for x, image in enumerate(images[:n]):
        grid.paste(resized(image, side), (left + x * step, 2 * LINE + y * step))
    left += width
  return grid


def shown_side(side: int) -> int:
  """Pixels at which an image of this side is shown: a multiple, or MAX_SIDE."""
  return min(side * -(-MIN_SIDE // side), MAX_SIDE)


def resized(image: UInt8[np.ndarray, 'h w c'], side: int) -> Image.Image:
  """An image with another longer side; pixels stay visible where it is enlarged."""
  (h, w), longer = image.shape[:2], max(image.shape[:2])
  larger = side > longer
  how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
  size = w * side // longer, h * side // longer
  return to_pil(image).convert('RGB').resize(size, how)


def write_grid(evaluator: Evaluator, g: Variables, path: Path) -> None:
  """Writes the image grid of the latest evaluation as a .png file, atomically."""
  grid = draw_grid(suspicious_rows(evaluator, g))
  with atomic_path(path) as part:
    grid.save(part)
