"""The first feature map, whose height and width decide the shape of the images.

Every family starts from a map of 4x4 and doubles it. With another first map, h x w,
each doubling keeps its shape: where a square model has res x res pixels, this one has
h * res / 4 x w * res / 4. A resolution names the number of doublings, so that widths,
schedules and batches are those of the square model.
"""

from typing import Any

from gan_jax import UserError
from gan_jax.runtime.image_size import MOST, Size, size_at
from gan_jax.runtime.keys import key

SQUARE: Size = (4, 4)


def first_map_key() -> Any:
  """The config key `model.first_map`."""
  return key(
    SQUARE,
    'height and width of the first feature map; images have first_map * res / 4 '
    'pixels: 3,4 with res=128 gives height 96 and width 128',
    at_least=1,
    at_most=MOST,
  )


def check_first_map(first_map: tuple[int, ...]) -> None:
  """Raises a UserError unless it has two entries."""
  if len(first_map) != 2:
    raise UserError(
      f'model.first_map has {len(first_map)} entries: it needs two, the height and the '
      'width of the first feature map, such as 3,4.'
    )


class ImageSize:
  """The part of the GAN protocol that says how large images are."""

  res: int
  first_map: tuple[int, ...]

  def size(self, res: int = 0) -> Size:
    """Height and width of images at a resolution; 0 for the final one."""
    return size_at(self.first_map, res or self.res)
