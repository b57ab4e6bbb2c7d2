"""The image grid that shows directions: a row for each, a column for each strength."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.layout import table, to_rgb
from gan_jax.sampling.options import SamplingOptions

MAX_ROWS = 40  # of the image, so that it stays readable


def draw_grid(
  generator: TrainedGenerator,
  names: Sequence[str],
  options: SamplingOptions,
  seeds: Sequence[int],
  strengths: Sequence[float],
) -> Image.Image:
  """Images of the seeds at each strength, seed by seed within each direction.

  Args:
    options: of all images; name the file of directions.
  """
  rows = [(name, seed) for name in names for seed in seeds][:MAX_ROWS]
  captions = [f'{name}\nseed {seed}' if len(seeds) > 1 else name for name, seed in rows]
  images = []
  for name, seed in rows:
    for strength in strengths:
      chosen = dataclasses.replace(
        options, seeds=str(seed), direction=f'{name}:{strength:g}', batch=1
      )
      images += list(generator.plan(chosen).images)
  cells = np.arange(len(images)).reshape(len(rows), len(strengths))
  return table(
    to_rgb(np.concatenate(images)), cells, [f'{x:g}' for x in strengths], captions
  )
