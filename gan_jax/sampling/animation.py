"""Animations: .gif, .webp and .apng that play endlessly, and .mp4."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from gan_jax import UserError

ANIMATIONS = ('.gif', '.webp', '.mp4', '.apng')
MIN_SIZE = 256  # pixels; smaller frames are enlarged
MAX_FPS = {'.gif': 50, '.webp': 90, '.mp4': 1000, '.apng': 90}  # that browsers play
TRANSPARENT = 255  # palette index of transparent pixels of a .gif
BACKGROUND = 255  # white, behind transparent pixels of an .mp4

Frames = UInt8[np.ndarray, 'n h w c']


def check_animation(kind: str, fps: float) -> None:
  """Checks what `write_animation` needs, before anything is computed.

  Args:
    kind: one of ANIMATIONS.

  Raises:
    UserError: the package that writes .mp4 is not installed, or `fps` is too high.
  """
  if fps > MAX_FPS[kind]:
    raise UserError(
      f'--fps={fps:g}: a {kind} has at most {MAX_FPS[kind]} frames per second.'
    )
  if kind == '.mp4' and not all(map(importlib.util.find_spec, ('imageio', 'av'))):
    raise UserError(
      ".mp4 needs a package: pip install 'gan_jax[video]'; .webp and .gif do not."
    )


def png_description(text: str) -> PngInfo:
  """The metadata of a PNG with this description."""
  info = PngInfo()
  info.add_text('Description', text)
  return info


def write_animation(
  out: Path, images: Frames, fps: float, description: str = ''
) -> None:
  """Writes an animation of one of the formats in ANIMATIONS.

  Images of less than MIN_SIZE pixels are enlarged by a whole factor. Alpha is kept in
  .webp and .apng, is on or off in .gif, and becomes a white background in .mp4.

  Args:
    description: comment of a .gif or .mp4, Exif ImageDescription of a .webp, text
      'Description' of an .apng.
  """
  factor = max(1, -(-MIN_SIZE // min(images.shape[1:3])))
  frames = images.repeat(factor, 1).repeat(factor, 2)
  if frames.shape[-1] == 1:
    frames = frames.repeat(3, -1)
  kind = out.suffix.lower()
  if kind == '.mp4':
    _write_mp4(out, frames, fps, description)
    return
  settings: dict[str, Any] = {'save_all': True, 'loop': 0}
  if kind == '.gif':
    settings['comment'] = description
    if frames.shape[-1] == 4:
      settings |= {'disposal': 2, 'transparency': TRANSPARENT}
    pages = list(map(_gif_frame, frames))
  else:
    pages = [Image.fromarray(frame) for frame in frames]
    if kind == '.apng':
      info = png_description(description)
      settings |= {'format': 'PNG', 'blend': 0, 'pnginfo': info}
    elif description:
      settings['exif'] = exif = Image.Exif()
      exif[ExifTags.Base.ImageDescription] = description
  unit = 10 if kind == '.gif' else 1  # of time, in ms
  durations = [unit * n for n in durations_in(1000 / unit, fps, len(pages))]
  first, *rest = pages
  first.save(out, append_images=rest, duration=durations, **settings)


def durations_in(units: float, fps: float, n: int) -> list[int]:
  """Durations of n frames in whole units of time, whose sum is exact to half a unit.

  Args:
    units: per second.
  """
  ends = np.round(np.arange(n + 1) * units / fps).astype(int)
  return np.diff(ends).tolist()


def _gif_frame(frame: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """A frame with a palette of its own; alpha below one half is transparent."""
  if frame.shape[-1] == 3:
    return Image.fromarray(frame)
  hidden = frame[..., 3] < 128
  colors = np.where(hidden[..., None], 0, frame[..., :3])
  image = Image.fromarray(colors).quantize(TRANSPARENT)
  index = np.where(hidden, TRANSPARENT, np.asarray(image)).astype(np.uint8)
  page = Image.frombytes('P', image.size, index.tobytes())
  page.putpalette((image.getpalette() or []) + [0] * 3)
  page.info['transparency'] = TRANSPARENT
  return page


def _write_mp4(out: Path, frames: Frames, fps: float, description: str) -> None:
  """H.264 in yuv420p, which all players know; its width and height are even."""
  import imageio.v3 as iio

  frames = opaque(frames)
  odd = [(0, size % 2) for size in frames.shape[1:3]]
  frames = np.pad(frames, [(0, 0), *odd, (0, 0)], 'edge')
  with iio.imopen(out, 'w', plugin='pyav', extension='.mp4') as video:
    if description:
      video.container_metadata['comment'] = description
    settings: dict[str, Any] = dict(codec='libx264', out_pixel_format='yuv420p')
    video.write(frames, **settings | {'fps': float(fps)})


def opaque(frames: Frames) -> Frames:
  """RGB frames; those with alpha over BACKGROUND."""
  if frames.shape[-1] == 3:
    return frames
  alpha = frames[..., 3:].astype(np.float32) / 255
  return np.round(alpha * frames[..., :3] + (1 - alpha) * BACKGROUND).astype(np.uint8)
