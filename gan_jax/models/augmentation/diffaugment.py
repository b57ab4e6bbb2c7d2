"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): color, translation and cutout.

Every image has its own draws, which its channels and pixels share. Nothing is clipped,
and what moves in from outside is 0. Ranges are those of the authors' code
(mit-han-lab/data-efficient-gans).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

TRANSFORMS = ('color', 'translation', 'cutout')
SHIFT = 0.125  # largest translation, as a fraction of the side
CUTOUT = 0.5  # side of the cutout, as a fraction of the side

# brightness, saturation, contrast: uniform in [0, 1); translation and cutout: integers
# [b, 2], of rows and of columns.
Draws = dict[str, Array]


def parse_policy(policy: str) -> tuple[str, ...]:
  """The entries of a comma list, in their order."""
  return tuple(part.strip() for part in policy.split(',')) if policy else ()


def draw(keys: PRNGKeyArray, h: int, w: int) -> Draws:
  """Draws of all transforms from one key per image [b]."""
  shift, side = _rounded((h, w), SHIFT), _rounded((h, w), CUTOUT)
  offsets = [size + 1 - c % 2 for size, c in zip((h, w), side, strict=True)]
  low = jnp.array([-s for s in shift] + [0, 0])
  high = jnp.array([s + 1 for s in shift] + offsets)

  def one(key: PRNGKeyArray) -> Draws:
    color, moves = jax.random.split(key)
    brightness, saturation, contrast = jax.random.uniform(color, (3,))
    integers = jax.random.randint(moves, (4,), low, high)
    return {
      'brightness': brightness,
      'saturation': saturation,
      'contrast': contrast,
      'translation': integers[:2],
      'cutout': integers[2:],
    }

  return jax.vmap(one)(keys)


def apply(
  policy: tuple[str, ...], images: Float[Array, 'b h w c'], draws: Draws
) -> Float[Array, 'b h w c']:
  """The images after the policy's transforms, in the order of the policy."""
  apply_one = {'color': color, 'translation': translate, 'cutout': cut_out}
  for name in policy:
    images = apply_one[name](images, draws)
  return images


def color(images: Float[Array, 'b h w c'], draws: Draws) -> Float[Array, 'b h w c']:
  """Brightness, then saturation, then contrast: all three in one sum of products."""
  brightness, saturation, contrast = (
    draws[name].astype(images.dtype)[:, None, None, None]
    for name in ('brightness', 'saturation', 'contrast')
  )
  gray = images.mean(-1, keepdims=True)
  mean = gray.mean((1, 2), keepdims=True)  # which saturation does not change
  saturation, contrast = 2 * saturation, contrast + 0.5
  shared = mean * (1 - contrast) + (brightness - 0.5)
  return images * (saturation * contrast) + (
    gray * ((1 - saturation) * contrast) + shared
  )


def translate(images: Float[Array, 'b h w c'], draws: Draws) -> Float[Array, 'b h w c']:
  """Moves the content up and left by the draws; 0 moves in.

  As products with matrices of zeros and ones: exact, and both passes are fast on every
  device, where a gather's gradient would be a scatter.
  """
  _, h, w, _ = images.shape
  rows, columns = (
    _selection(draws['translation'][:, i], n, images) for i, n in enumerate((h, w))
  )
  images = jnp.einsum('bij,bjwc->biwc', rows, images, precision=lax.Precision.HIGHEST)
  return jnp.einsum('bij,bhjc->bhic', columns, images, precision=lax.Precision.HIGHEST)


def cut_out(images: Float[Array, 'b h w c'], draws: Draws) -> Float[Array, 'b h w c']:
  """Sets a rectangle to 0, cut off at the border."""
  _, h, w, _ = images.shape
  rows, columns = (
    _covered(draws['cutout'][:, i], n, c)
    for i, (n, c) in enumerate(zip((h, w), _rounded((h, w), CUTOUT), strict=True))
  )
  cut = rows[:, :, None, None] & columns[:, None, :, None]
  return jnp.where(cut, jnp.zeros((), images.dtype), images)


def _rounded(sizes: tuple[int, int], fraction: float) -> tuple[int, int]:
  """A fraction of height and width in pixels; halves are rounded up."""
  h, w = sizes
  return int(h * fraction + 0.5), int(w * fraction + 0.5)


def _selection(shift: Int[Array, ' b'], n: int, images: Array) -> Float[Array, 'b n n']:
  """Matrices whose row i selects entry i + shift, or nothing."""
  i = jnp.arange(n)
  return (i[None, :, None] + shift[:, None, None] == i[None, None, :]).astype(
    images.dtype
  )


def _covered(offset: Int[Array, ' b'], n: int, side: int) -> Bool[Array, 'b n']:
  """Whether a row (or column) lies within the cutout."""
  distance = jnp.arange(n)[None] - (offset[:, None] - side // 2)
  return (distance >= 0) & (distance < side)
