"""Scores that need no network: sliced Wasserstein distance and MS-SSIM, as ProGAN's.

Karras et al. 2018, arXiv:1710.10196, section 5; matched to metrics/ of the official
code: sliced_wasserstein.py and ms_ssim.py. Images are uint8 [n, h, w, c].
"""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from gan_jax import UserError

SIDE = 7  # of a patch
PER_IMAGE = 128  # patches of each image and level
COARSEST = 16  # pixels of the last pyramid level
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


# Sliced Wasserstein distance.


def _blurred(x: np.ndarray, axis: int, gain: float) -> np.ndarray:
  """The binomial filter along an axis; the border mirrors without its own pixel."""
  pads = [(0, 0)] * x.ndim
  pads[axis] = (2, 2)
  padded = np.moveaxis(np.pad(x, pads, mode='reflect'), axis, 0)
  n = x.shape[axis]
  out = sum(gain * tap * padded[i : i + n] for i, tap in enumerate(_BINOMIAL))
  return np.moveaxis(np.asarray(out), 0, axis)


def pyramid_down(x: np.ndarray) -> np.ndarray:
  """Blurred, every other pixel: [n, h, w, c] -> [n, h/2, w/2, c]."""
  return _blurred(_blurred(x, 1, 1.0)[:, ::2], 2, 1.0)[:, :, ::2]


def pyramid_up(x: np.ndarray) -> np.ndarray:
  """Zeros between the pixels, then blurred, as bright as before: h, w -> 2h, 2w."""
  n, h, w, c = x.shape
  wide = np.zeros((n, 2 * h, 2 * w, c), np.float32)
  wide[:, ::2, ::2] = x
  return _blurred(_blurred(wide, 1, 2.0), 2, 2.0)


def laplacian_pyramid(images: np.ndarray, levels: int) -> list[np.ndarray]:
  """What each level adds to the next coarser one, finest first, float32."""
  coarse = images.astype(np.float32)
  pyramid = []
  for _ in range(levels - 1):
    fine, coarse = coarse, pyramid_down(coarse)
    pyramid.append(fine - pyramid_up(coarse))
  return [*pyramid, coarse]


def level_sizes(res: int) -> list[int]:
  """res, res / 2, ... down to 16.

  Raises:
    UserError: that is not 16 times a power of two.
  """
  sizes = [res]
  while sizes[-1] > COARSEST and sizes[-1] % 2 == 0:
    sizes.append(sizes[-1] // 2)
  if sizes[-1] != COARSEST:
    raise UserError(
      f'swd: images of {res} pixels cannot be halved down to {COARSEST}: the side must '
      f'be {COARSEST} times a power of two.'
    )
  return sizes


def patches(level: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Square patches about the centres x, y [n * per_image], image after image.

  Returns:
    float32 [n * per_image, c, side, side], the last two axes being (x, y).
  """
  reach = np.arange(SIDE) - SIDE // 2
  image = np.arange(len(x)) // (len(x) // len(level))
  rows = (y[:, None] + reach)[:, None, :]
  columns = (x[:, None] + reach)[:, :, None]
  found = level[image[:, None, None], rows, columns]
  # The order in memory is that of float32 sums over it, to the fifth digit of a score.
  return np.ascontiguousarray(np.moveaxis(found, -1, 1))


def sliced_distance(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
  """Mean 1-D Wasserstein distance over directions, of equally many points.

  Args:
    a, b: float32 [n, d].
    directions: [repeats, d, k], of any length.
  """
  total = 0.0
  for draws in directions:
    unit = (draws / np.sqrt(np.square(draws).sum(0, keepdims=True))).astype(np.float32)
    sorted_a, sorted_b = (np.sort((x @ unit).T, axis=1) for x in (a, b))
    total += float(np.abs(sorted_a - sorted_b).mean(dtype=np.float64))
  return total / len(directions)


class Patches:
  """Patches of every pyramid level of the first `keep` images of a stream."""

  def __init__(self, keep: int, first: int = 0):
    """`first`: the number in the stream of the first image that this one sees."""
    self.keep, self.n = keep, 0
    self._first = first
    self._levels: list[list[np.ndarray]] = []

  def update(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Takes in images uint8 [n, res, res, c]; the place of a patch is its image's."""
    del labels
    images = images[: max(self.keep - self._first - self.n, 0)]
    if not len(images):
      return
    sizes = level_sizes(images.shape[1])
    offsets = [
      self._centres(self._first + self.n + i, sizes) for i in range(len(images))
    ]
    found = []
    for i, level in enumerate(laplacian_pyramid(images, len(sizes))):
      x, y = (np.concatenate([o[i, axis] for o in offsets]) for axis in (0, 1))
      found.append(patches(level, x, y))
    self.add(found)
    self.n += len(images)

  def add(self, found: Sequence[np.ndarray]) -> None:
    """Takes in patches [n, c, side, side] of each level."""
    self._levels = self._levels or [[] for _ in found]
    for held, new in zip(self._levels, found, strict=True):
      held.append(new)

  def _centres(self, number: int, sizes: Sequence[int]) -> np.ndarray:
    """[levels, 2, per_image] of one image: x and y."""
    rng = np.random.Generator(np.random.Philox(number))
    reach = SIDE // 2
    return np.stack(
      [rng.integers(reach, size - reach, (2, PER_IMAGE)) for size in sizes]
    )

  def merge(self, other: 'Patches') -> None:
    """Takes in the patches of a stream that follows this one."""
    if other.n:
      self.add([np.concatenate(level) for level in other._levels])
      self.n += other.n

  def descriptors(self) -> list[np.ndarray]:
    """Per level [n * per_image, c * side * side], channels to mean 0, variance 1."""
    out = []
    for held in self._levels:
      level = np.concatenate(held)
      level -= level.mean((0, 2, 3), keepdims=True)
      level /= np.maximum(level.std((0, 2, 3), keepdims=True), 1e-12)
      out.append(level.reshape(len(level), -1))
    return out

  def arrays(self) -> dict[str, np.ndarray]:
    """All of it, to be saved; `restore` reads it back."""
    levels = {f'level{i}': np.concatenate(x) for i, x in enumerate(self._levels)}
    return {'n': np.array(self.n), 'keep': np.array(self.keep), **levels}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'Patches':
    held = cls(int(arrays['keep']))
    held.n = int(arrays['n'])
    levels = sum(name.startswith('level') for name in arrays)
    held._levels = [[arrays[f'level{i}']] for i in range(levels)]
    return held


def swd(
  real: Patches, fake: Patches, directions: Sequence[np.ndarray] | None = None
) -> list[float]:
  """Distance of each level, finest first, and their mean, times 1000.

  Args:
    directions: per level [repeats, d, k]; default: 4 x 128 normal draws, always the
      same ones.

  Raises:
    UserError: not equally many images on both sides.
  """
  if real.n != fake.n:
    raise UserError(
      f'swd: {real.n} real and {fake.n} generated images; both sides need as many.'
    )
  found = []
  for i, (a, b) in enumerate(zip(real.descriptors(), fake.descriptors(), strict=True)):
    if directions is None:
      draws = np.random.default_rng(i).standard_normal((4, a.shape[1], 128))
    else:
      draws = directions[i]
    found.append(1e3 * sliced_distance(a, b, draws))
  return [*found, float(np.mean(found))]


# Multi-scale structural similarity (Wang et al. 2003).

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def _window(taps: int) -> np.ndarray:
  """A Gaussian [1, taps, taps, 1] of sum 1; its sigma is 1.5 at the usual 11 taps."""
  at = np.arange(taps) - (taps - 1) / 2
  gauss = np.exp(-(at**2) / (2 * (1.5 * taps / 11) ** 2))
  plane = np.outer(gauss, gauss)
  return (plane / plane.sum())[None, :, :, None]


def ssim(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Similarity and its contrast-structure part, [n, h, w, c] in 0..255 -> [n] each.

  Gaussian window of sigma 1.5, only where it fits; k1 = 0.01, k2 = 0.03. Smaller
  images get a smaller window.
  """
  window = _window(min(11, *a.shape[1:3]))

  def blur(x):
    return scipy.signal.fftconvolve(x, window, mode='valid')

  # As the official code: its float32 images and transforms show in the sixth digit.
  a, b = a.astype(np.float32), b.astype(np.float32)
  mean_a, mean_b = blur(a), blur(b)
  var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
  covariance = blur(a * b) - mean_a * mean_b
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  contrast = (2 * covariance + c2) / (var_a + var_b + c2)
  light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  axes = (1, 2, 3)
  return (light * contrast).mean(axes), contrast.mean(axes)


def ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Multi-scale similarity of the images of two batches, [n] in 0..1.

  Raises:
    UserError: a side that five halvings do not divide.
  """
  h, w = a.shape[1:3]
  if h % 32 or w % 32:
    raise UserError(
      f'msssim: images of {h} x {w} pixels cannot be halved five times: sides must be '
      'multiples of 32.'
    )
  a, b = a.astype(np.float32), b.astype(np.float32)
  result = np.ones(len(a))
  for scale, weight in enumerate(WEIGHTS):
    whole, contrast = ssim(a, b)
    last = scale == len(WEIGHTS) - 1
    result *= np.maximum(whole if last else contrast, 0) ** weight
    a, b = (_halved(x) for x in (a, b))
  return result


def _halved(x: np.ndarray) -> np.ndarray:
  """Mean over 2x2 boxes."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


class Similarity:
  """Mean MS-SSIM of the pairs (0, 1), (2, 3), ... of a stream: low is varied."""

  def __init__(self, keep: int, first: int = 0):
    """
    Args:
      keep: how many images of the stream are looked at.
      first: the number in the stream of the first image that this one sees.
    """
    self._left = max(keep - first, 0)
    self.pairs, self.total = 0, 0.0
    self._odd: np.ndarray | None = None  # an image that waits for the next

  def update(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Takes in images uint8 [n, h, w, c]."""
    del labels
    images = images[: self._left]
    self._left -= len(images)
    if self._odd is not None:
      images = np.concatenate([self._odd, images])
    even = len(images) // 2 * 2
    self._odd = images[even:] if even < len(images) else None
    if even:
      values = ms_ssim(images[:even:2], images[1:even:2])
      self.total += float(values.sum())
      self.pairs += len(values)

  def merge(self, other: 'Similarity') -> None:
    """Takes in a stream that follows this one; no pair reaches across."""
    self.pairs, self.total = self.pairs + other.pairs, self.total + other.total

  def result(self) -> float:
    """In 0..1; NaN before the first pair."""
    return self.total / self.pairs if self.pairs else float('nan')

  def arrays(self) -> dict[str, np.ndarray]:
    """All of it but an image without its pair, to be saved."""
    return {'pairs': np.array(self.pairs), 'total': np.array(self.total)}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'Similarity':
    held = cls(keep=0)
    held.pairs, held.total = int(arrays['pairs']), float(arrays['total'])
    return held
