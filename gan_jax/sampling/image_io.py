"""Writing images: image grids, animations, arrays, folders of PNGs."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from tqdm import tqdm

from gan_jax.sampling.animation import (
  ANIMATIONS,
  png_description,
  write_animation,
)
from gan_jax.sampling.output import (
  WRITTEN_HERE,
  Existing,
  numbered_images,
  output_format,
)
from gan_jax.sampling.planning import PlannedImages, row_major
from gan_jax.storage.files import atomic_path

GAP = 2  # white pixels between the images of a grid, and around it


def to_pil(image: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """One image, gray where it has one channel."""
  return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def image_grid(images: UInt8[np.ndarray, 'n h w c'], columns: int) -> Image.Image:
  """The images row by row, with white gaps. A single image gets no margin."""
  return arrange(images, row_major(len(images), columns))


def arrange(
  images: UInt8[np.ndarray, 'n h w c'], cells: Int[np.ndarray, 'rows columns']
) -> Image.Image:
  """The image grid that has image number cells[y, x] in row y and column x.

  Args:
    cells: a negative number leaves the place white. A grid of one cell gets no margin.
  """
  _, h, w, c = images.shape
  if cells.size == 1:
    return to_pil(images[cells.item()])
  size = cells.shape[0] * (h + GAP) + GAP, cells.shape[1] * (w + GAP) + GAP
  grid = np.full((*size, c), 255, np.uint8)
  for (row, column), number in np.ndenumerate(cells):
    if number >= 0:
      y, x = row * (h + GAP) + GAP, column * (w + GAP) + GAP
      grid[y : y + h, x : x + w] = images[number]
  return to_pil(grid)


def write_images(
  out: Path, planned: PlannedImages, fps: float = 24, existing: Existing = ''
) -> None:
  """Writes the format that the ending of `out` names; a file atomically.

  .png: an image grid. .gif, .webp, .mp4, .apng: an animation. .npz: `images` uint8
  [n, h, w, c], `labels` int32 [n] of the largest class weight, `seeds` uint32 [n],
  `psi` and `truncation`, scalars. Otherwise: a folder of PNGs, 000000.png and so on.
  All but .npz state psi and the truncation in their description.

  Args:
    fps: frames per second of the animation.
    existing: 'append' numbers images of a folder after those that it holds, 'replace'
      removes those that an earlier call wrote.

  Raises:
    OSError: it cannot be written.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  images = _with_progress(planned.images, len(planned.seeds))
  kind = output_format(out)
  if not kind:
    _write_folder(out, images, existing, planned.description)
    return
  all_images = np.concatenate(list(images))
  with atomic_path(out) as part:
    if kind == '.png':
      info = png_description(planned.description)
      arrange(all_images, planned.cells).save(part, pnginfo=info)
    elif kind in ANIMATIONS:
      write_animation(part, all_images, fps, planned.description)
    else:
      labels = planned.classes.argmax(-1).astype(np.int32)
      with part.open('wb') as f:  # savez appends an ending to a name in upper case
        arrays = dict(images=all_images, labels=labels, seeds=planned.seeds)
        np.savez(f, **arrays, psi=planned.psi, truncation=planned.truncation)


def _with_progress(images: Iterator[np.ndarray], total: int) -> Iterator[np.ndarray]:
  with tqdm(total=total, unit='img', disable=total < 256) as progress:
    for batch in images:
      progress.update(len(batch))
      yield batch


def _write_folder(
  out: Path, images: Iterator[np.ndarray], existing: Existing, description: str
) -> None:
  first = next(images)  # before anything is removed
  out.mkdir(exist_ok=True)
  present = numbered_images(out)
  if existing == 'replace':
    for name in present:
      if WRITTEN_HERE.fullmatch(name):
        (out / name).unlink()
    present = []
  number = int(present[-1][:-4]) + 1 if present else 0
  for batch in itertools.chain([first], images):
    for image in batch:
      info = png_description(description)
      to_pil(image).save(out / f'{number:06d}.png', pnginfo=info)
      number += 1
