"""Multi-scale structural similarity (MS-SSIM) between pairs of images.

Wang et al. 2003; used as a measure of variety by Karras et al. 2018, arXiv:1710.10196,
and matched to ms_ssim.py of the official ProGAN code. Images are in 0..255, NHWC.
"""

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from gan_jax import UserError
from gan_jax.runtime.image_size import Size, format_side

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])  # of the scales


def _gaussian_window(taps: int) -> np.ndarray:
  """A Gaussian [1, taps, taps, 1] of sum 1; sigma is 1.5 for 11 taps."""
  x = np.arange(taps) - (taps - 1) / 2
  gauss = np.exp(-(x**2) / (2 * (1.5 * taps / 11) ** 2))
  window = np.outer(gauss, gauss)
  return (window / window.sum())[None, :, :, None]


def ssim(
  a: Num[np.ndarray, 'n h w c'], b: Num[np.ndarray, 'n h w c']
) -> tuple[Float[np.ndarray, ' n'], Float[np.ndarray, ' n']]:
  """Structural similarity of each pair, and its contrast-structure factor.

  A Gaussian window of 11 taps and sigma 1.5, without padding; images smaller than 11
  pixels get a smaller window. k1 = 0.01, k2 = 0.03.
  """
  import scipy.signal  # not at the top: it loads slowly, and training does not use it

  window = _gaussian_window(min(11, *a.shape[1:3]))

  def blur(x: np.ndarray) -> np.ndarray:
    return scipy.signal.fftconvolve(x, window, mode='valid')

  # float32 as in the official code: its rounding shows in the sixth digit.
  a, b = a.astype(np.float32), b.astype(np.float32)
  mean_a, mean_b = blur(a), blur(b)
  var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
  covariance = blur(a * b) - mean_a * mean_b
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  contrast = (2 * covariance + c2) / (var_a + var_b + c2)
  luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  axes = (1, 2, 3)
  return (luminance * contrast).mean(axes), contrast.mean(axes)


def check_size(size: Size) -> None:
  """Checks that images can be downsampled for all scales.

  Raises:
    UserError: a side is not a multiple of 32.
  """
  if size[0] % 32 or size[1] % 32:
    raise UserError(
      f'msssim: images of {format_side(size)} pixels cannot be downsampled five times: '
      'sides must be multiples of 32.'
    )


def ms_ssim(
  a: Num[np.ndarray, 'n h w c'], b: Num[np.ndarray, 'n h w c']
) -> Float[np.ndarray, ' n']:
  """Multi-scale structural similarity of each pair, in [0, 1].

  Raises:
    UserError: a side is not a multiple of 32.
  """
  check_size(a.shape[1:3])
  a, b = a.astype(np.float32), b.astype(np.float32)
  result = np.ones(len(a))
  for scale, weight in enumerate(WEIGHTS):
    similarity, contrast = ssim(a, b)
    last = scale == len(WEIGHTS) - 1
    result *= np.maximum(similarity if last else contrast, 0) ** weight
    a, b = (box_downsample(x) for x in (a, b))
  return result


def box_downsample(
  x: Float[np.ndarray, 'n h w c'],
) -> Float[np.ndarray, 'n h//2 w//2 c']:
  """Means of 2 x 2 boxes."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


class PairSimilarity:
  """Mean MS-SSIM of the pairs (0, 1), (2, 3), ... of a stream; low means varied."""

  def __init__(self, max_images: int, first: int = 0):
    """
    Args:
      max_images: how many images of the stream are used.
      first: index in the stream of the first image that this instance receives.
    """
    self._remaining = max(max_images - first, 0)
    self.pairs, self.total = 0, 0.0
    self._unpaired: np.ndarray | None = None  # an image whose partner comes next

  def update(
    self,
    images: UInt8[np.ndarray, 'n h w c'],
    labels: Int[np.ndarray, ' n'] | None = None,
  ) -> None:
    """Adds images.

    Raises:
      UserError: as `ms_ssim`.
    """
    del labels
    images = images[: self._remaining]
    self._remaining -= len(images)
    if self._unpaired is not None:
      images = np.concatenate([self._unpaired, images])
    even = len(images) // 2 * 2
    self._unpaired = images[even:] if even < len(images) else None
    if even:
      values = ms_ssim(images[:even:2], images[1:even:2])
      self.total += float(values.sum())
      self.pairs += len(values)

  def merge(self, other: 'PairSimilarity') -> None:
    """Adds a stream that follows this one; no pair spans both streams."""
    self.pairs, self.total = self.pairs + other.pairs, self.total + other.total

  def result(self) -> float:
    """The mean, in [0, 1]; NaN without a pair."""
    return self.total / self.pairs if self.pairs else float('nan')

  def arrays(self) -> dict[str, np.ndarray]:
    """The state without an unpaired image, for an .npz file; inverse of `restore`."""
    return {'pairs': np.array(self.pairs), 'total': np.array(self.total)}

  @classmethod
  def restore(cls, arrays: dict[str, np.ndarray]) -> 'PairSimilarity':
    """The similarity that `arrays` described. Raises: KeyError."""
    similarity = cls(max_images=0)
    similarity.pairs, similarity.total = int(arrays['pairs']), float(arrays['total'])
    return similarity
