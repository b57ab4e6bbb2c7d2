"""The options of a prepared set."""

import dataclasses

from gan_jax.data.decode import MAX_PIXELS
from gan_jax.data.depth import Ranges
from gan_jax.runtime.image_size import Size, as_size

MIN_RES = 4  # side of the lowest level, in pixels


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
  """Everything besides the source that the bytes of a prepared set depend on.

  Attributes:
    res: side of the full resolution in pixels, a power of two >= MIN_RES; of images
      that are not square (height, width), halved to the levels while both are even.
    channels: 1, 3 or 4.
    fit: how images of another shape get that of `res`: 'crop', 'pad', or '' to refuse
      them.
    upscale: upsample images smaller than res instead of refusing them.
    background: RGB in 0..255, behind padding and transparency.
    png_level: zlib level 0..9; 0 writes raw PNGs.
    shard_images: number of source images for each file.
    range: kind of values of more than 8 bits -> [the value that becomes 0, the value
      that becomes 255]; without an entry each image is scaled by its own range.
    max_pixels: images that declare more pixels are refused.
    border: surround images smaller than res with `background` instead of refusing them.
  """

  res: int | Size
  channels: int
  fit: str
  upscale: bool
  background: tuple[int, int, int]
  png_level: int
  shard_images: int
  range: Ranges = dataclasses.field(default_factory=dict)
  max_pixels: int = MAX_PIXELS
  border: bool = False

  @property
  def size(self) -> Size:
    """Height and width of the full resolution."""
    return as_size(self.res)

  @property
  def levels(self) -> list[Size]:
    """Heights and widths that are written, the full ones first."""
    height, width = self.size
    sizes = [self.size]
    while max(height, width) > MIN_RES and height % 2 == width % 2 == 0:
      height, width = height // 2, width // 2
      sizes.append((height, width))
    return sizes


def level_name(size: Size) -> str:
  """The name of a level's folder: '64', or '96x64' for width x height."""
  height, width = size
  return f'{width}' if height == width else f'{width}x{height}'
