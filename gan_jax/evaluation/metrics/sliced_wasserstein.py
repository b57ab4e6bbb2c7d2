"""Sliced Wasserstein distance between Laplacian pyramids of images (SWD).

Karras et al. 2018, arXiv:1710.10196, section 5; matched to sliced_wasserstein.py of
the official ProGAN code. Images are uint8 [n, h, w, c].
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from gan_jax import UserError
from gan_jax.runtime.image_size import Size, format_side

PATCH_SIZE = 7  # pixels
PATCHES_PER_IMAGE = 128  # of each pyramid level
COARSEST = 16  # pixels of the last pyramid level
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def _blur(x: np.ndarray, axis: int, gain: float) -> np.ndarray:
  """Binomial filter along an axis; borders are mirrored without their own pixel."""
  pads = [(0, 0)] * x.ndim
  pads[axis] = (2, 2)
  padded = np.moveaxis(np.pad(x, pads, mode='reflect'), axis, 0)
  n = x.shape[axis]
  out = sum(gain * tap * padded[i : i + n] for i, tap in enumerate(_BINOMIAL))
  return np.moveaxis(np.asarray(out), 0, axis)


def pyramid_down(
  x: Float[np.ndarray, 'n h w c'],
) -> Float[np.ndarray, 'n h//2 w//2 c']:
  """Blurs and keeps every other pixel."""
  return _blur(_blur(x, 1, 1.0)[:, ::2], 2, 1.0)[:, :, ::2]


def pyramid_up(x: Float[np.ndarray, 'n h w c']) -> Float[np.ndarray, 'n 2*h 2*w c']:
  """Inserts zeros between pixels and blurs; the brightness is preserved."""
  n, h, w, c = x.shape
  upsampled = np.zeros((n, 2 * h, 2 * w, c), np.float32)
  upsampled[:, ::2, ::2] = x
  return _blur(_blur(upsampled, 1, 2.0), 2, 2.0)


def laplacian_pyramid(
  images: UInt8[np.ndarray, 'n h w c'], levels: int
) -> list[Float[np.ndarray, 'n ? ? c']]:
  """Differences of each level from the next coarser one, finest first, in float32."""
  coarse = images.astype(np.float32)
  pyramid = []
  for _ in range(levels - 1):
    fine, coarse = coarse, pyramid_down(coarse)
    pyramid.append(fine - pyramid_up(coarse))
  return [*pyramid, coarse]


def level_sizes(size: Size) -> list[Size]:
  """Heights and widths of the pyramid levels, halved until the shorter side is 16.

  Raises:
    UserError: the shorter side is not 16 times a power of two.
  """
  sizes = [size]
  while min(size) > COARSEST and size[0] % 2 == size[1] % 2 == 0:
    size = size[0] // 2, size[1] // 2
    sizes.append(size)
  if min(size) != COARSEST:
    side = 'side' if size[0] == size[1] else 'shorter side'
    raise UserError(
      f'swd: images of {format_side(sizes[0])} pixels cannot be downsampled to '
      f'{COARSEST}: the {side} must be {COARSEST} times a power of two.'
    )
  return sizes


def extract_patches(
  level: Float[np.ndarray, 'n h w c'],
  x: Int[np.ndarray, ' n*k'],
  y: Int[np.ndarray, ' n*k'],
) -> Float[np.ndarray, 'n*k c size size']:
  """Square patches around the given centers, k per image, image after image.

  The last two axes of the result are x and y, in this order.
  """
  offsets = np.arange(PATCH_SIZE) - PATCH_SIZE // 2
  image = np.arange(len(x)) // (len(x) // len(level))
  rows = (y[:, None] + offsets)[:, None, :]
  columns = (x[:, None] + offsets)[:, :, None]
  patches = level[image[:, None, None], rows, columns]
  # The memory layout fixes the order of later float32 sums, which shows in the fifth
  # digit of a score.
  return np.ascontiguousarray(np.moveaxis(patches, -1, 1))


def sliced_distance(
  a: Float[np.ndarray, 'n d'],
  b: Float[np.ndarray, 'n d'],
  directions: Float[np.ndarray, 'repeats d k'],
) -> float:
  """Mean 1-D Wasserstein distance along directions, which need not have unit length."""
  total = 0.0
  for draws in directions:
    unit = (draws / np.sqrt(np.square(draws).sum(0, keepdims=True))).astype(np.float32)
    sorted_a, sorted_b = (np.sort((x @ unit).T, axis=1) for x in (a, b))
    total += float(np.abs(sorted_a - sorted_b).mean(dtype=np.float64))
  return total / len(directions)


class PatchStatistics:
  """Patches of every pyramid level of the first images of a stream."""

  def __init__(self, max_images: int, first: int = 0):
    """
    Args:
      max_images: how many images of the stream are used.
      first: index in the stream of the first image that this instance receives.
    """
    self.max_images, self.n = max_images, 0
    self._first = first
    self._levels: list[list[np.ndarray]] = []

  def update(
    self,
    images: UInt8[np.ndarray, 'n h w c'],
    labels: Int[np.ndarray, ' n'] | None = None,
  ) -> None:
    """Adds images. The positions of the patches depend on an image's index only.

    Raises:
      UserError: a resolution without a pyramid, see `level_sizes`.
    """
    del labels
    images = images[: max(self.max_images - self._first - self.n, 0)]
    if not len(images):
      return
    sizes = level_sizes(images.shape[1:3])
    indices = range(self._first + self.n, self._first + self.n + len(images))
    centers = [_patch_centers(index, sizes) for index in indices]
    patches = []
    for i, level in enumerate(laplacian_pyramid(images, len(sizes))):
      x, y = (np.concatenate([c[i, axis] for c in centers]) for axis in (0, 1))
      patches.append(extract_patches(level, x, y))
    self.add_patches(patches, len(images))

  def add_patches(self, patches: Sequence[np.ndarray], n: int) -> None:
    """Adds the patches [n * k, c, size, size] of n images, one array per level."""
    self._levels = self._levels or [[] for _ in patches]
    for stored, new in zip(self._levels, patches, strict=True):
      stored.append(new)
    self.n += n

  def merge(self, other: 'PatchStatistics') -> None:
    """Adds the patches of a stream that follows this one."""
    if other.n:
      self.add_patches([np.concatenate(level) for level in other._levels], other.n)

  def descriptors(self) -> list[Float[np.ndarray, 'patches features']]:
    """Flattened patches per level; channels normalized to mean 0 and variance 1."""
    out = []
    for stored in self._levels:
      level = np.concatenate(stored)
      level -= level.mean((0, 2, 3), keepdims=True)
      level /= np.maximum(level.std((0, 2, 3), keepdims=True), 1e-12)
      out.append(level.reshape(len(level), -1))
    return out

  def arrays(self) -> dict[str, np.ndarray]:
    """The complete state as arrays for an .npz file; `restore` is the inverse."""
    levels = {f'level{i}': np.concatenate(x) for i, x in enumerate(self._levels)}
    return {'n': np.array(self.n), 'keep': np.array(self.max_images), **levels}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'PatchStatistics':
    """The patches that `arrays` described. Raises: KeyError."""
    statistics = cls(int(arrays['keep']))
    statistics.n = int(arrays['n'])
    levels = sum(name.startswith('level') for name in arrays)
    statistics._levels = [[arrays[f'level{i}']] for i in range(levels)]
    return statistics


def _patch_centers(index: int, sizes: Sequence[Size]) -> np.ndarray:
  """Patch centers of the image with this index, [levels, 2, k]; x before y."""
  rng = np.random.Generator(np.random.Philox(index))
  margin = PATCH_SIZE // 2
  draw = lambda side: rng.integers(margin, side - margin, PATCHES_PER_IMAGE)
  return np.stack([[draw(width), draw(height)] for height, width in sizes])


def sliced_wasserstein_distances(
  real: PatchStatistics,
  fake: PatchStatistics,
  directions: Sequence[Float[np.ndarray, 'repeats d k']] | None = None,
) -> list[float]:
  """1000 times the sliced distance of each level, finest first, and then their mean.

  Args:
    directions: one array per level; by default 4 x 128 normal draws from a fixed seed.

  Raises:
    UserError: the numbers of real and generated images differ.
  """
  if real.n != fake.n:
    raise UserError(
      f'swd: {real.n} real and {fake.n} generated images; both sides need as many.'
    )
  distances = []
  for i, (a, b) in enumerate(zip(real.descriptors(), fake.descriptors(), strict=True)):
    if directions is None:
      draws = np.random.default_rng(i).standard_normal((4, a.shape[1], 128))
    else:
      draws = directions[i]
    distances.append(1e3 * sliced_distance(a, b, draws))
  return [*distances, float(np.mean(distances))]
