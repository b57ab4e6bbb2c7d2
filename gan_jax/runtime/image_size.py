"""Height and width of images in pixels, and how messages write them."""

Size = tuple[int, int]  # height and width
MOST = 32  # rows or columns of a first map; large maps then divide into blocks


def as_size(res: int | Size) -> Size:
  """Height and width of images; an integer is the side of square ones."""
  return (res, res) if isinstance(res, int) else res


def size_at(first_map: tuple[int, ...], res: int) -> Size:
  """Height and width of maps and images at a resolution of model.first_map."""
  height, width = first_map
  return height * res // 4, width * res // 4


def format_size(size: Size) -> str:
  """'256 x 144': width x height, as image viewers write it."""
  return f'{size[1]} x {size[0]}'


def format_side(size: Size) -> str:
  """'64' for square images, else '256 x 144'."""
  return f'{size[0]}' if size[0] == size[1] else format_size(size)


def same_shape(a: Size, b: Size) -> bool:
  """Whether images of both sizes have one aspect ratio."""
  return a[0] * b[1] == b[0] * a[1]


def halvings(size: Size, most: int) -> int:
  """The power of two by which images are halved so that a side has 1 to 2 x `most`.

  1 where the longer side has fewer already.
  """
  return 1 << max((max(size) // most).bit_length() - 1, 0)


def smaller(a: Size, b: Size) -> bool:
  """Whether an image of size a must be upsampled to fill one of size b."""
  return a[0] < b[0] or a[1] < b[1]
