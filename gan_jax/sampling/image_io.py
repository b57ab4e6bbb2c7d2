"""Pictures become files: sheets, animations, arrays, folders of PNGs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.storage.files import atomic_path

ANIMATIONS = ('.gif', '.webp', '.mp4')


def image_grid(images: np.ndarray, columns: int) -> Image.Image:
  """uint8 [n, h, w, c] as one picture, row by row, two white pixels apart.

  A single one is the picture itself, with nothing around it.
  """
  n, h, w, c = images.shape
  if n == 1:
    return Image.fromarray(images[0].squeeze(-1) if c == 1 else images[0])
  rows = -(-n // columns)
  page = np.full((rows * (h + 2) + 2, columns * (w + 2) + 2, c), 255, np.uint8)
  for i, image in enumerate(images):
    y, x = (i // columns) * (h + 2) + 2, (i % columns) * (w + 2) + 2
    page[y : y + h, x : x + w] = image
  return Image.fromarray(page.squeeze(-1) if c == 1 else page)


def check_output(out: Path, fps: int) -> None:
  """Refuses what `write` cannot write, before anything is drawn.

  Raises:
    UserError: an ending that it does not know, no speed of a film.
  """
  allowed = ('.png', '.npz', *ANIMATIONS)
  if out.suffix not in ('', *allowed):
    raise UserError(f'--out={out}: end it in {", ".join(allowed)}, or name a folder.')
  if not fps > 0:
    raise UserError(f'--fps={fps}: it must be above 0.')


def write_images(
  out: Path,
  images: Iterator[np.ndarray],
  classes: Any,
  seeds: Any,
  columns: int,
  fps: int,
) -> None:
  """A sheet, an animation, an .npz or a folder of PNGs; whole or not at all."""
  total = len(classes)
  progress = tqdm(total=total, unit='img', disable=total < 256)

  def counted():
    for batch in images:
      progress.update(len(batch))
      yield batch

  out.parent.mkdir(parents=True, exist_ok=True)
  if out.suffix:
    everything = np.concatenate(list(counted()))
    with atomic_path(out) as part:
      if out.suffix == '.png':
        image_grid(everything, columns).save(part)
      elif out.suffix in ANIMATIONS:
        write_animation(part, everything, fps)
      else:
        labels = classes.argmax(-1).astype(np.int32)
        np.savez(part, images=everything, labels=labels, seeds=seeds)
  else:
    out.mkdir(exist_ok=True)
    number = 0
    for batch in counted():
      for image in batch:
        sheet_of_one = image.squeeze(-1) if image.shape[-1] == 1 else image
        Image.fromarray(sheet_of_one).save(out / f'{number:06d}.png')
        number += 1
  progress.close()


def write_animation(out: Path, images: np.ndarray, fps: int) -> None:
  """uint8 [n, h, w, c] as .gif, .webp or .mp4, enlarged to 256 pixels or a bit more.

  Raises:
    UserError: .mp4 without its package.
  """
  times = max(1, -(-256 // images.shape[1]))
  frames = np.broadcast_to(images, (*images.shape[:3], max(images.shape[3], 3)))
  frames = frames.repeat(times, 1).repeat(times, 2)
  if out.suffix == '.mp4':
    try:
      import imageio.v3 as iio

      iio.imwrite(out, frames[..., :3], plugin='pyav', fps=fps, codec='libx264')
    except ImportError as error:
      raise UserError(
        ".mp4 needs a package: pip install 'gan_jax[video]'; .webp and .gif do not."
      ) from error
  else:
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(out, save_all=True, append_images=rest, duration=1000 / fps, loop=0)
