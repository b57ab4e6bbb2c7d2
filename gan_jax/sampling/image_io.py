"""Writing images: image grids, animations, arrays, folders of PNGs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8, UInt32
from PIL import Image
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.storage.files import atomic_path

ANIMATIONS = ('.gif', '.webp', '.mp4')
GAP = 2  # white pixels between the images of a grid, and around it
MIN_ANIMATION_SIZE = 256  # pixels; smaller frames are enlarged


def to_pil(image: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """One image, gray where it has one channel."""
  return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def image_grid(images: UInt8[np.ndarray, 'n h w c'], columns: int) -> Image.Image:
  """The images row by row, with white gaps. A single image gets no margin."""
  n, h, w, c = images.shape
  if n == 1:
    return to_pil(images[0])
  rows = -(-n // columns)
  size = rows * (h + GAP) + GAP, columns * (w + GAP) + GAP
  grid = np.full((*size, c), 255, np.uint8)
  for i, image in enumerate(images):
    y, x = (i // columns) * (h + GAP) + GAP, (i % columns) * (w + GAP) + GAP
    grid[y : y + h, x : x + w] = image
  return to_pil(grid)


def check_output(out: Path, fps: int) -> None:
  """Checks what `write_images` needs, before anything is computed.

  Raises:
    UserError: unknown file name extension, or `fps` not above 0.
  """
  allowed = ('.png', '.npz', *ANIMATIONS)
  if out.suffix not in ('', *allowed):
    raise UserError(f'--out={out}: end it in {", ".join(allowed)}, or name a folder.')
  if not fps > 0:
    raise UserError(f'--fps={fps}: it must be above 0.')


def write_images(
  out: Path,
  images: Iterator[UInt8[np.ndarray, 'b h w c']],
  classes: Float[np.ndarray, 'n classes'],
  seeds: UInt32[np.ndarray, ' n'],
  columns: int,
  fps: int,
) -> None:
  """Writes the format that the extension of `out` names; a file atomically.

  .png: an image grid. .gif, .webp, .mp4: an animation. .npz: `images` uint8
  [n, h, w, c], `labels` int32 [n], `seeds` uint32 [n]. No extension: a folder of PNGs.

  Args:
    images: batches of the n images.
    classes: class weights, of which .npz gets the largest.
    columns: of the grid.
    fps: frames per second of the animation.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  images = _with_progress(images, len(classes))
  if not out.suffix:
    _write_folder(out, images)
    return
  all_images = np.concatenate(list(images))
  with atomic_path(out) as part:
    if out.suffix == '.png':
      image_grid(all_images, columns).save(part)
    elif out.suffix in ANIMATIONS:
      write_animation(part, all_images, fps)
    else:
      labels = classes.argmax(-1).astype(np.int32)
      np.savez(part, images=all_images, labels=labels, seeds=seeds)


def _with_progress(images: Iterator[np.ndarray], total: int) -> Iterator[np.ndarray]:
  with tqdm(total=total, unit='img', disable=total < 256) as progress:
    for batch in images:
      progress.update(len(batch))
      yield batch


def _write_folder(out: Path, images: Iterator[np.ndarray]) -> None:
  out.mkdir(exist_ok=True)
  number = 0
  for batch in images:
    for image in batch:
      to_pil(image).save(out / f'{number:06d}.png')
      number += 1


def write_animation(out: Path, images: UInt8[np.ndarray, 'n h w c'], fps: int) -> None:
  """Writes a .gif, .webp or .mp4; small images are enlarged by a whole factor.

  Raises:
    UserError: the package that writes .mp4 is not installed.
  """
  factor = max(1, -(-MIN_ANIMATION_SIZE // images.shape[1]))
  frames = np.broadcast_to(images, (*images.shape[:3], max(images.shape[3], 3)))
  frames = frames.repeat(factor, 1).repeat(factor, 2)
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
