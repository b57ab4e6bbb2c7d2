"""The pipe of ADA (Karras et al. 2020, arXiv:2006.06676): draws and transforms.

Each transform is applied to an image with probability p. Its value is drawn first, then
a gate. Ranges and order are those of NVlabs/stylegan2-ada-pytorch, training/augment.py.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gan_jax.models.augmentation import geometry, wavelets

BLIT = ('xflip', 'rotate90', 'xint')
GEOM = ('scale', 'rotate', 'aniso', 'xfrac')
COLOR = ('brightness', 'contrast', 'lumaflip', 'hue', 'saturation')
PIPES = {
  'blit': BLIT,
  'geom': GEOM,
  'color': COLOR,
  'filter': ('imgfilter',),
  'noise': ('noise',),
  'cutout': ('cutout',),
  'bg': BLIT + GEOM,
  'bgc': BLIT + GEOM + COLOR,
  'bgcf': BLIT + GEOM + COLOR + ('imgfilter',),
  'bgcfn': BLIT + GEOM + COLOR + ('imgfilter', 'noise'),
  'bgcfnc': BLIT + GEOM + COLOR + ('imgfilter', 'noise', 'cutout'),
}
MIN_FILTERED = 22  # pixels that the reflection of the image filter needs
EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of images, in each band

# Numbers that each value takes; the order is that of the draws.
UNIFORM = dict(
  xflip=1, rotate90=1, xint=2, rotate_pre=1, rotate_post=1, lumaflip=1, hue=1, cutout=2
)
NORMAL = dict(
  scale=1,
  aniso=1,
  xfrac=2,
  brightness=1,
  contrast=1,
  saturation=1,
  imgfilter=wavelets.BANDS,
  noise=1,
)
VALUES = UNIFORM | NORMAL
# In the order in which they are applied; the rotations are one transform of a pipe.
_GEOMETRIC = (*BLIT, 'scale', 'rotate_pre', 'aniso', 'rotate_post', 'xfrac')
GATES = dict.fromkeys((*_GEOMETRIC, *COLOR), 1) | dict(
  imgfilter=wavelets.BANDS, noise=1, cutout=1
)


@dataclasses.dataclass(frozen=True)
class Ranges:
  """How far each transform goes; the defaults are the original's."""

  xint_max: float = 0.125  # of the side
  scale_std: float = 0.2  # of the binary logarithm
  rotate_max: float = 1.0  # of half a turn
  aniso_std: float = 0.2  # of the binary logarithm
  xfrac_std: float = 0.125  # of the side
  brightness_std: float = 0.2
  contrast_std: float = 0.5  # of the binary logarithm
  hue_max: float = 1.0  # of half a turn
  saturation_std: float = 1.0  # of the binary logarithm
  imgfilter_bands: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # multiply p
  imgfilter_std: float = 1.0  # of the binary logarithm
  noise_std: float = 0.1
  cutout_size: float = 0.5  # of the side


DEFAULT_RANGES = Ranges()


class Draws(NamedTuple):
  """Raw draws: a value is in [0, 1) or N(0, 1), a gate in [0, 1); scalars are [b]."""

  values: dict[str, Array]
  gates: dict[str, Array]
  noise: Float[Array, 'b h w c'] | None = None  # N(0, 1), if the pipe has noise


def draw(
  keys: PRNGKeyArray, pipe: tuple[str, ...], shape: tuple[int, int, int]
) -> Draws:
  """Draws from one key per image [b]; every pipe draws the same numbers.

  Args:
    shape: [h, w, c] of an image.
  """

  def one(key: PRNGKeyArray) -> Draws:
    uniform, normal, noise = jax.random.split(key, 3)
    sizes = {**UNIFORM, **{f'{name}/gate': n for name, n in GATES.items()}}
    drawn = _split(jax.random.uniform(uniform, (sum(sizes.values()),)), sizes)
    gates = {name: drawn.pop(f'{name}/gate') for name in GATES}
    drawn |= _split(jax.random.normal(normal, (sum(NORMAL.values()),)), NORMAL)
    field = jax.random.normal(noise, shape) if 'noise' in pipe else None
    return Draws(drawn, gates, field)

  return jax.vmap(one)(keys)


def _split(numbers: Array, sizes: dict[str, int]) -> dict[str, Array]:
  """Consecutive parts of an array [n]; those of size 1 are scalars."""
  parts, start = {}, 0
  for name, size in sizes.items():
    parts[name] = numbers[start] if size == 1 else numbers[start : start + size]
    start += size
  return parts


def apply(
  pipe: tuple[str, ...],
  images: Float[Array, 'b h w c'],
  draws: Draws,
  p: ArrayLike,
  ranges: Ranges = DEFAULT_RANGES,
) -> Float[Array, 'b h w c']:
  """The images after the transforms of a pipe.

  Args:
    images: about [-1, 1], with 1 or 3 channels if the pipe has colour transforms.
    p: probability of each transform; above 1 it counts as 1.
  """
  _, h, w, channels = images.shape
  if set(pipe) & {*BLIT, *GEOM}:
    images = geometry.warp(images, inverse_matrix(pipe, draws, p, h, w, ranges))
  if set(pipe) & {*COLOR}:
    images = apply_color(images, color_matrix(pipe, draws, p, ranges, channels))
  if 'imgfilter' in pipe:
    images = filter_bands(images, band_gains(draws, p, ranges))
  if 'noise' in pipe:
    sigma = noise_sigma(draws, p, ranges)[:, None, None, None]
    images = images + sigma * jnp.asarray(draws.noise, images.dtype)
  if 'cutout' in pipe:
    images = cut_out(images, draws, p, ranges)
  return images


def inverse_matrix(
  pipe: tuple[str, ...], draws: Draws, p: ArrayLike, h: int, w: int, ranges: Ranges
) -> geometry.Matrix:
  """Output -> input positions [b, 3, 3]; see `geometry`."""
  values, gates = draws.values, draws.gates
  # Either rotation happens with probability p.
  p_rotate = 1 - jnp.sqrt(jnp.clip(1 - jnp.asarray(p), 0, 1))
  zero = jnp.zeros_like(values['xflip'])
  matrix = geometry.scaling(zero + 1, zero + 1)
  for name in _GEOMETRIC:
    if name.removesuffix('_pre').removesuffix('_post') not in pipe:
      continue
    is_open = gates[name] < (p_rotate if name.startswith('rotate_') else p)
    step = _inverse_step(name, values[name], is_open, h, w, ranges)
    matrix = geometry.compose(matrix, step)
  return matrix


def _inverse_step(
  name: str, value: Array, is_open: Bool[Array, ' b'], h: int, w: int, ranges: Ranges
) -> geometry.Matrix:
  """The inverse of one transform; the identity where the gate is closed."""
  gated = lambda x: jnp.where(is_open if x.ndim == 1 else is_open[:, None], x, 0)
  sides = jnp.asarray([[w, h]], value.dtype)
  match name:
    case 'xflip':
      i = gated(jnp.floor(2 * value))
      return geometry.scaling(1 - 2 * i, jnp.ones_like(i))
    case 'rotate90':
      return geometry.rotation(math.pi / 2 * gated(jnp.floor(4 * value)))
    case 'xint':
      t = jnp.round(gated((2 * value - 1) * ranges.xint_max) * sides)
      return geometry.translation(-t[:, 0], -t[:, 1])
    case 'xfrac':
      t = gated(value * ranges.xfrac_std) * sides
      return geometry.translation(-t[:, 0], -t[:, 1])
    case 'scale':
      s = jnp.exp2(gated(value * ranges.scale_std))
      return geometry.scaling(1 / s, 1 / s)
    case 'aniso':
      s = jnp.exp2(gated(value * ranges.aniso_std))
      return geometry.scaling(1 / s, s)
  return geometry.rotation(gated((2 * value - 1) * math.pi * ranges.rotate_max))


def color_matrix(
  pipe: tuple[str, ...], draws: Draws, p: ArrayLike, ranges: Ranges, channels: int = 3
) -> Float[Array, 'b 4 4']:
  """Homogeneous colour matrices; a transform of hues is for three channels only."""
  values, gates = draws.values, draws.gates
  identity = jnp.eye(4, dtype=values['hue'].dtype)[None]
  gray = jnp.asarray([1, 1, 1, 0], identity.dtype) / math.sqrt(3)
  gray = (gray[:, None] * gray[None])[None]  # projects on equal channels
  matrix = jnp.broadcast_to(identity, (len(values['hue']), 4, 4))
  for name in COLOR:
    if name not in pipe or (name in ('hue', 'saturation') and channels == 1):
      continue
    gated = lambda x, name=name: jnp.where(gates[name] < p, x, 0)[:, None, None]
    value = values[name]
    if name == 'brightness':
      offset = jnp.zeros_like(identity).at[:, :3, 3].set(1)
      step = identity + gated(value * ranges.brightness_std) * offset
    elif name == 'contrast':
      c = jnp.exp2(gated(value * ranges.contrast_std))
      step = identity * jnp.where(jnp.arange(4)[None, :, None] < 3, c, 1)
    elif name == 'lumaflip':
      step = identity - 2 * gray * gated(jnp.floor(2 * value))
    elif name == 'hue':
      step = _rotate_hue(gray, gated((2 * value - 1) * math.pi * ranges.hue_max))
    else:
      s = jnp.exp2(gated(value * ranges.saturation_std))
      step = gray + (identity - gray) * s
    matrix = geometry.compose(step, matrix)
  return matrix


def _rotate_hue(
  gray: Float[Array, '1 4 4'], angle: Float[Array, 'b 1 1']
) -> Float[Array, 'b 4 4']:
  """Rotations about the axis of equal channels (Rodrigues)."""
  cross = jnp.asarray(
    [[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0] * 4], gray.dtype
  )
  rgb = jnp.diag(jnp.asarray([1, 1, 1, 0], gray.dtype))[None]
  rotated = gray + jnp.cos(angle) * (rgb - gray)
  rotated += jnp.sin(angle) / math.sqrt(3) * cross[None]
  return rotated + (jnp.eye(4, dtype=gray.dtype)[None] - rgb)


def apply_color(
  images: Float[Array, 'b h w c'], matrix: Float[Array, 'b 4 4']
) -> Float[Array, 'b h w c']:
  """Applies colour matrices; one channel takes the mean of the three rows."""
  matrix = matrix[:, None, None].astype(images.dtype)
  if images.shape[-1] == 1:
    gray = matrix[..., :3, :].mean(-2, keepdims=True)
    return images * gray[..., :3].sum(-1) + gray[..., 3]
  mixed = (images[..., None, :] * matrix[..., :3, :3]).sum(-1)
  return mixed + matrix[..., :3, 3]


def band_gains(draws: Draws, p: ArrayLike, ranges: Ranges) -> Float[Array, 'b 4']:
  """Gains of the bands of the image filter, which keep the expected power."""
  values = draws.values['imgfilter']
  power = jnp.asarray([EXPECTED_POWER], values.dtype)
  strengths = jnp.asarray([ranges.imgfilter_bands], values.dtype) * p
  t = jnp.exp2(
    jnp.where(draws.gates['imgfilter'] < strengths, values * ranges.imgfilter_std, 0)
  )
  gains = jnp.ones_like(t)
  for i in range(wavelets.BANDS):
    one = jnp.where(jnp.arange(wavelets.BANDS)[None] == i, t[:, i : i + 1], 1)
    gains *= one / jnp.sqrt((power * one**2).sum(-1, keepdims=True))
  return gains


def filter_bands(
  images: Float[Array, 'b h w c'], gains: Float[Array, 'b 4']
) -> Float[Array, 'b h w c']:
  """Scales the frequency bands, along rows and along columns."""
  _, h, w, _ = images.shape
  exact = lax.Precision.HIGHEST
  rows, columns = (
    jnp.einsum(
      'bk,kij->bij',
      gains.astype(images.dtype),
      jnp.asarray(wavelets.band_filters(n), images.dtype),
      precision=exact,
    )
    for n in (h, w)
  )
  images = jnp.einsum('bij,bhjc->bhic', columns, images, precision=exact)
  return jnp.einsum('bij,bjwc->biwc', rows, images, precision=exact)


def noise_sigma(draws: Draws, p: ArrayLike, ranges: Ranges) -> Float[Array, ' b']:
  """Standard deviations of the noise."""
  sigma = jnp.abs(draws.values['noise']) * ranges.noise_std
  return jnp.where(draws.gates['noise'] < p, sigma, 0)


def cutout_size(draws: Draws, p: ArrayLike, ranges: Ranges) -> Float[Array, ' b']:
  """Sides of the cutouts, as fractions of the image's."""
  gates = draws.gates['cutout']
  return jnp.where(gates < p, jnp.asarray(ranges.cutout_size, gates.dtype), 0)


def cut_out(
  images: Float[Array, 'b h w c'], draws: Draws, p: ArrayLike, ranges: Ranges
) -> Float[Array, 'b h w c']:
  """Sets a rectangle to 0 whose centre lies anywhere in the image."""
  _, h, w, _ = images.shape
  half = cutout_size(draws, p, ranges)[:, None] / 2
  center = draws.values['cutout']
  kept_columns, kept_rows = (
    jnp.abs((jnp.arange(n)[None] + 0.5) / n - center[:, i : i + 1]) >= half
    for i, n in enumerate((w, h))
  )
  kept = kept_rows[:, :, None, None] | kept_columns[:, None, :, None]
  return jnp.where(kept, images, jnp.zeros((), images.dtype))
