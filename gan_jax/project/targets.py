"""The images that are projected: read, cropped and resized as in gan_jax.prepare."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gan_jax import UserError
from gan_jax.data.decode import PIL_MODES, UnusableImageError
from gan_jax.prepare.fit import fit_image
from gan_jax.prepare.options import PrepareOptions
from gan_jax.runtime.image_size import Size

Color = tuple[int, int, int]


class Targets(NamedTuple):
  """Images at the resolution of the generator."""

  names: tuple[str, ...]  # as the user gave them
  images: UInt8[np.ndarray, 'n h w channels']

  @property
  def digest(self) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(self.images.tobytes()).hexdigest()


def read_targets(
  paths: Sequence[Path], size: Size, channels: int, pad: bool, background: Color
) -> Targets:
  """`make_targets` of files.

  Raises:
    UserError: as `make_targets`, or a file cannot be read.
  """
  files = ((str(path), _content(path)) for path in paths)
  return make_targets(files, size, channels, pad, background)


def make_targets(
  files: Iterable[tuple[str, bytes]],
  size: Size,
  channels: int,
  pad: bool,
  background: Color,
) -> Targets:
  """Decodes images, each cropped or padded to the shape of the model and resized.

  Args:
    files: what each one is called, and its content.
    size: height and width of the model's images.
    pad: pad to their shape instead of cropping to the centered part.
    background: RGB in 0..255, behind padding and transparency.

  Raises:
    UserError: a file is no image, or has too many pixels; or the model has a number of
      channels that no image has.
  """
  if channels not in PIL_MODES:
    allowed = ', '.join(map(str, PIL_MODES))
    raise UserError(
      f'model.channels is {channels}, and images have {allowed}: they cannot be '
      'converted to the channels of this model.'
    )
  options = PrepareOptions(
    res=size,
    channels=channels,
    fit='pad' if pad else 'crop',
    upscale=True,
    background=background,
    png_level=0,
    shard_images=1,
  )
  names, images = [], []
  for name, content in files:
    try:
      images.append(fit_image(content, options)[1])
    except UnusableImageError as error:
      raise UserError(f'{name} {error}: give an image, such as a PNG.') from error
    names.append(name)
  return Targets(tuple(names), np.stack(images))


def _content(path: Path) -> bytes:
  """
  Raises:
    UserError: the file cannot be read.
  """
  if path.is_dir():
    raise UserError(f'{path} is a folder: give images, such as {path}/*.png.')
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error
