"""Figures that need no more than a generator.

Layouts and values are those of the papers: StyleGAN's are in generate_figures.py of
NVlabs/stylegan, BigGAN's interpolations in utils.py of BigGAN-PyTorch.
"""

import itertools

import numpy as np
from PIL import Image

from gan_jax.figures.source import Figure, Source, drawn
from gan_jax.runtime.image_size import format_side
from gan_jax.sampling.layout import (
  GAP,
  LINE,
  WHITE,
  enlarge,
  enlargement,
  table,
  write,
)
from gan_jax.sampling.planning import row_major
from gan_jax.sampling.style_mixing import style_ranges

LODS = (0, 0, 1, 1, 2, 2, 3, 3)  # columns of the uncurated grid, as powers of 1/2
UNCURATED_ROWS = 3
SMALLEST = 8  # pixels of an image of the uncurated grid
PSIS = (-1.0, -0.5, 0.0, 0.5, 0.7, 1.0)  # StyleGAN, figure 8
THRESHOLDS = (0.04, 0.5, 1.0, 2.0, float('inf'))  # BigGAN, figure 2
SOURCE_ROWS, SOURCE_COLUMNS = 2, 6  # of the style mixing grid
REALIZATIONS = 100  # of noise, StyleGAN, figure 4
SHOWN_REALIZATIONS = 4
MIDPOINTS = 8  # BigGAN-PyTorch
PATHS = 6  # rows of an interpolation


def uncurated(source: Source) -> Figure:
  """Images of consecutive seeds: two columns for each size, halved from left to right.

  Smaller images are means of pixels. StyleGAN, figure 2 and appendix.
  """
  res = source.generator.resolution
  height, width = source.generator.gan.size(res)
  most = min(height, width) // SMALLEST
  fits = lambda n: n <= most and height % n == width % n == 0
  lods = [lod for lod in LODS if not lod or fits(1 << lod)]
  counts = [UNCURATED_ROWS << lod for lod in lods]
  seeds = source.seeds(sum(counts))
  images = iter(source.images(seeds=seeds, padded=True))  # whole, to be halved
  factor, strips = enlargement(min(height, width)), []
  for lod, count in zip(lods, counts, strict=True):
    column = np.stack(list(itertools.islice(images, count)))
    h, w = height >> lod, width >> lod
    blocks = column.reshape(count, h, 1 << lod, w, 1 << lod, 3)
    small = np.round(blocks.mean((2, 4))).astype(np.uint8)
    strips.append(enlarge(small, factor).reshape(count * h * factor, -1, 3))
  grid = Image.fromarray(np.concatenate(strips, 1))
  outer = (grid.width + 2 * GAP, grid.height + LINE + 2 * GAP)
  figure = Image.new('RGB', outer, WHITE)
  figure.paste(grid, (GAP, LINE + GAP))
  x = GAP
  for lod, group in itertools.groupby(lods):
    columns = len(list(group)) * (width >> lod) * factor
    shown = format_side((height >> lod, width >> lod))
    write(figure, f'{shown} px', (x + columns // 2, GAP + LINE // 2), 'mm')
    x += columns
  return Figure(figure, source.describe(seeds))


def truncation(source: Source) -> Figure:
  """The same latents from low to high truncation: psi of w, or the threshold of z."""
  seeds = source.seeds(4)
  name = 'psi' if source.generator.gan.truncation_space == 'w' else 'truncation'
  values = PSIS if name == 'psi' else THRESHOLDS
  columns = [source.images(seeds=seeds, **{name: value}) for value in values]
  images = np.concatenate(columns)
  captions = ['none' if np.isinf(v) else f'{v:g}' for v in values]
  captions[0] = f'{name} {captions[0]}'
  figure = table(images, np.arange(len(images)).reshape(-1, len(seeds)).T, captions)
  described = ','.join(f'{value:g}' for value in values)
  return Figure(figure, source.describe(seeds, **{name: described}))


def mixing(source: Source) -> Figure:
  """Each row's source with the styles of each column's in coarse, middle, fine layers.

  StyleGAN, figure 3.
  """
  seeds = source.seeds(SOURCE_ROWS + SOURCE_COLUMNS)
  mix = ','.join(map(str, seeds[SOURCE_ROWS:]))
  planned = source.plan(seeds=seeds[:SOURCE_ROWS], mix=mix)
  images = drawn(planned)
  style = source.generator.gan.style_based
  assert style is not None
  ranges = style_ranges(style, source.generator.resolution)
  bands = [name for name, layers in ranges.items() if layers]
  rows = [''] + [f'{name}\nstyles' for name in bands for _ in range(SOURCE_ROWS)]
  return Figure(
    table(images, planned.cells, rows=rows, gaps=(1,)), source.describe(seeds)
  )


def noise_std(source: Source) -> Figure:
  """Images with several realizations of the noise, and the standard deviation of many.

  The map is that of the grey value times four, as in figure 4 of the StyleGAN paper.
  """
  seeds, images = source.seeds(3), []
  for seed in seeds:
    drawn = np.concatenate(
      [source.images(seeds=[seed], noise_seed=i) for i in range(REALIZATIONS)]
    )
    deviation = np.clip(drawn.mean(-1).std(0) * 4 + 0.5, 0, 255).astype(np.uint8)
    images += [*drawn[:SHOWN_REALIZATIONS], deviation[..., None].repeat(3, -1)]
  columns = [f'noise {i}' for i in range(SHOWN_REALIZATIONS)] + ['std x 4']
  cells = row_major(len(images), len(columns))
  figure = table(np.stack(images), cells, columns, gaps=(SHOWN_REALIZATIONS,))
  return Figure(figure, source.describe(seeds, noise_seeds=f'0-{REALIZATIONS - 1}'))


def noise(source: Source) -> Figure:
  """Noise in all layers, in none, in fine and in coarse layers: StyleGAN, figure 5."""
  style, res = source.generator.gan.style_based, source.generator.resolution
  assert style is not None
  layers = style.layers(res)
  # The paper's fine layers are 8 to 17 of 18; a small model has no fine styles.
  first = style_ranges(style, res)['fine'].start
  first = first if 0 < first < layers else layers // 2
  fine, coarse = f'{first}-{layers - 1}', f'0-{first - 1}'
  seeds = source.seeds(3)
  columns = [
    source.images(seeds=seeds, **changes)
    for changes in (
      {},
      {'noise': 'off'},
      {'noise_layers': fine},
      {'noise_layers': coarse},
    )
  ]
  captions = ['all layers', 'no noise', f'layers {fine}', f'layers {coarse}']
  images = np.concatenate(columns)
  figure = table(images, np.arange(len(images)).reshape(-1, len(seeds)).T, captions)
  shown = f'all;none;{fine};{coarse}'
  return Figure(figure, source.describe(seeds, noise_layers=shown))


def interpolation_zy(source: Source) -> Figure:
  """z and the class change from left to right: BigGAN, figure 8."""
  pairs = _class_pairs(source)
  changes = [{'classes': f'#{a},#{b}'} for a, b in pairs]
  return _interpolation(source, 'z', changes, _captions(source, pairs))


def interpolation_z(source: Source) -> Figure:
  """z changes from left to right; each row has one class."""
  if not source.generator.n_classes:
    return _interpolation(source, 'z', [{}] * PATHS)
  pairs = [(a, a) for a, _ in _class_pairs(source)]
  changes = [{'classes': f'#{a}'} for a, _ in pairs]
  return _interpolation(source, 'z', changes, _captions(source, pairs))


def interpolation_y(source: Source) -> Figure:
  """The class changes from left to right; each row has one z."""
  pairs = _class_pairs(source)
  changes = [{'classes': f'#{a},#{b}'} for a, b in pairs]
  return _interpolation(source, 'class', changes, _captions(source, pairs))


def interpolation_w(source: Source) -> Figure:
  """w changes from left to right."""
  return _interpolation(source, 'w', [{}] * PATHS)


def _class_pairs(source: Source) -> list[tuple[int, int]]:
  """Two different classes for each row, all classes in turn."""
  n = source.generator.n_classes
  labels = itertools.cycle(range(n))
  pairs = []
  for _ in range(PATHS):
    first = next(labels)
    pairs.append((first, (first + max(1, n // 2)) % n))
  return pairs


def _captions(source: Source, pairs: list[tuple[int, int]]) -> list[str]:
  names = source.class_captions
  return [names[a] if a == b else f'{names[a]}\nto {names[b]}' for a, b in pairs]


def _interpolation(
  source: Source, kind: str, changes: list[dict], captions: list[str] | None = None
) -> Figure:
  """One path from end to end in each row."""
  per_path = 1 if kind == 'class' else 2
  seeds = source.seeds(PATHS * per_path)
  images = [
    source.images(
      seeds=seeds[i * per_path : (i + 1) * per_path],
      interpolate=kind,
      frames=MIDPOINTS + 1,
      **change,
    )
    for i, change in enumerate(changes)
  ]
  cells = row_major(len(images) * len(images[0]), len(images[0]))
  figure = table(np.concatenate(images), cells, rows=captions or [])
  return Figure(figure, source.describe(seeds, interpolate=kind))
