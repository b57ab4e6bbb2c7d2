"""The options of a prepared set."""

import dataclasses

from gan_jax.data.decode import MAX_PIXELS
from gan_jax.data.depth import Ranges

MIN_RES = 4  # side of the lowest level, in pixels


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
  """Everything besides the source that the bytes of a prepared set depend on.

  Attributes:
    res: side of the full resolution in pixels, a power of two >= MIN_RES.
    channels: 1, 3 or 4.
    fit: how images that are not square become square: 'crop', 'pad', or '' to refuse
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

  res: int
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
  def levels(self) -> list[int]:
    """Resolutions that are written, the full one first."""
    return [self.res >> i for i in range((self.res // MIN_RES).bit_length())]
