"""Perceptual path length, PPL (Karras et al. 2019, arXiv:1812.04948, section 4.1).

The mean LPIPS distance between the images of two latents that are a small step apart,
divided by the square of the step.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt32

from gan_jax import UserError
from gan_jax.evaluation.metrics.transparency import composite
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.image_size import halvings
from gan_jax.runtime.mesh import AXIS
from gan_jax.sampling import samplers

MAX_SIDE = 256  # pixels; larger images are downsampled to it before LPIPS
MIN_SIDE = 16  # pixels; VGG-16 halves the side four times
EPSILON = 1e-4  # the step, as a share of the path
BATCH = 16  # paths that are measured together, more if devices do not divide it

# Images a, b [n, h, w, 3] in [-1, 1] -> their distances [n]
ImageDistance = Callable[[Array, Array], Array]


class Path(NamedTuple):
  """Paths between pairs of latents, and which of their points are measured."""

  space: Literal['z', 'w']  # spherical interpolation in z, or linear in w
  sampling: Literal['full', 'end']  # uniformly along the path, or at its start


PATHS = {
  'ppl_z_full': Path('z', 'full'),
  'ppl_w_full': Path('w', 'full'),
  'ppl_z_end': Path('z', 'end'),
  'ppl_w_end': Path('w', 'end'),
}


class Endpoints(NamedTuple):
  """A batch of paths: both ends, the position on the path, the class, and the seed."""

  z0: Float[np.ndarray, 'b dim_z']
  z1: Float[np.ndarray, 'b dim_z']
  t: Float[np.ndarray, 'b 1']
  labels: np.ndarray  # int32 [b]
  seeds: np.ndarray  # uint32 [b]


def slerp(
  a: Float[Array, 'n d'], b: Float[Array, 'n d'], t: Float[Array, 'n 1']
) -> Float[Array, 'n d']:
  """Interpolates directions on the great circle; the result has unit length."""
  unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
  a, b = unit(a), unit(b)
  dot = (a * b).sum(-1, keepdims=True)
  orthogonal = unit(b - dot * a)
  angle = t * jnp.arccos(jnp.clip(dot, -1, 1))
  return unit(a * jnp.cos(angle) + orthogonal * jnp.sin(angle))


def check_path(path: Path, gan: GAN) -> None:
  """Raises a UserError for a path in w of a family without w."""
  if path.space == 'w' and gan.style_based is None:
    raise UserError(
      f'ppl in w needs a StyleGAN, and this is a {type(gan).__name__}: take ppl_z_full '
      'or ppl_z_end.'
    )


def check_side(side: int, crop: bool) -> None:
  """Raises a UserError for images that are too small for LPIPS, cropped or not."""
  least = 2 * MIN_SIDE if crop else MIN_SIDE
  if side < least:
    raise UserError(
      f'ppl{" of the face crop" if crop else ""} needs images of at least {least} '
      f'pixels, and those of this model have {side}.'
    )


def path_batch(mesh: Mesh) -> int:
  """Paths that are measured together, and share noise if it is fresh."""
  return -(-BATCH // mesh.size) * mesh.size


def make_path_length(
  gan: GAN,
  path: Path,
  distance: ImageDistance,
  mesh: Mesh,
  epsilon: float = EPSILON,
  *,
  crop: bool = False,
  fresh_noise: bool = False,
) -> Callable[..., Array]:
  """Compiles (g, *Endpoints) -> distance / epsilon^2 [n], sharded over the mesh.

  g holds the variables of the generator.

  Args:
    crop: compare rows 3/8 to 7/8 and columns 1/4 to 3/4 only, where StyleGAN's code
      expects the face.
    fresh_noise: draw the noise of a StyleGAN's layers for each batch, all of whose
      images share it; otherwise take the noise that is stored with the weights.

  Raises:
    UserError: as `check_path`.
  """
  check_path(path, gan)
  style = gan.style_based
  sharded, replicated = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
  # The length of normal latents is about the root of their dimension.
  spherical = lambda z0, z1, t: slerp(z0, z1, t) * gan.dim_z**0.5

  def images_along(
    g: Variables, z0: Array, z1: Array, labels: Array, seeds: Array
  ) -> Callable[[Array], Array]:
    """Positions on the paths [b, 1] -> images [b, h, w, c]."""
    if style is None:
      return lambda t: gan.generate(g, spherical(z0, z1, t), labels)
    noise = None
    if fresh_noise:
      noise = style.fresh_noise(samplers.noise_keys(seeds[:1]), gan.res)
    draw = lambda w: style.synthesize(g, style.truncate(g, w, 1.0), noise)
    if path.space == 'z':
      return lambda t: draw(style.w(g, spherical(z0, z1, t), labels))
    w0, w1 = style.w(g, z0, labels), style.w(g, z1, labels)
    return lambda t: draw(w0 + (w1 - w0) * t)

  def lengths(
    g: Variables, z0: Array, z1: Array, t: Array, labels: Array, seeds: Array
  ) -> Array:
    images = images_along(g, z0, z1, labels, seeds)
    a = lpips_input(images(t), crop)
    b = lpips_input(images(t + epsilon), crop)
    return distance(a, b) / epsilon**2

  shardings = (replicated, *(sharded for _ in Endpoints._fields))
  return jax.jit(lengths, in_shardings=shardings, out_shardings=sharded)


def lpips_input(x: Array, crop: bool = False) -> Array:
  """Images [n, h, w, c] as LPIPS takes them: at most 256 pixels, three channels."""
  x = composite(x)
  if crop:
    rows, columns = (side // 8 for side in x.shape[1:3])
    x = x[:, 3 * rows : 7 * rows, 2 * columns : 6 * columns]
  n, h, w, c = x.shape
  factor = halvings((h, w), MAX_SIDE)
  if factor > 1:
    x = x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
  return jnp.broadcast_to(x, (*x.shape[:3], 3))


def sample_endpoints(
  gan: GAN, path: Path, seeds: UInt32[np.ndarray, ' n'], batch: int
) -> Iterator[tuple[Endpoints, int]]:
  """Yields the paths of the seeds in batches of one size, and how many are valid."""
  for start in range(0, len(seeds), batch):
    n = len(seeds[start : start + batch])
    rows = np.minimum(np.arange(start, start + batch), start + n - 1)
    first = seeds[rows]
    z0 = samplers.latents(first, gan.dim_z)
    # The seeds of the other ends count down from the largest one: no overlap.
    z1 = samplers.latents(np.uint32(2**32 - 1) - first, gan.dim_z)
    t = np.zeros((batch, 1), np.float32)
    if path.sampling == 'full':
      rngs = [np.random.Generator(np.random.Philox(int(seed))) for seed in first]
      t[:, 0] = [rng.random(dtype=np.float32) for rng in rngs]
    labels = samplers.labels_from_seeds(first, gan.n_classes)
    yield Endpoints(np.asarray(z0), np.asarray(z1), t, np.asarray(labels), first), n


def trimmed_mean(lengths: Float[np.ndarray, ' n']) -> float:
  """Mean of the values between the 1st and the 99th percentile, as StyleGAN's code."""
  low = np.percentile(lengths, 1, method='lower')
  high = np.percentile(lengths, 99, method='higher')
  return float(lengths[(lengths >= low) & (lengths <= high)].mean(dtype=np.float64))


def path_length(
  gan: GAN,
  g: Variables,
  path: Path,
  distance: ImageDistance,
  seeds: UInt32[np.ndarray, ' n'],
  mesh: Mesh,
  batch: int = 0,
  **how: bool,
) -> float:
  """The perceptual path length over one pair of latents per seed.

  Args:
    batch: paths measured together; 0 for `path_batch`.
    how: `crop` and `fresh_noise` of `make_path_length`.

  Raises:
    UserError: as `make_path_length`; or a length is non-finite.
  """
  batch = -(-batch // mesh.size) * mesh.size or path_batch(mesh)
  compiled = make_path_length(gan, path, distance, mesh, **how)
  lengths = np.concatenate(
    [
      np.asarray(compiled(g, *endpoints))[:n]
      for endpoints, n in sample_endpoints(gan, path, seeds, batch)
    ]
  )
  if not np.isfinite(lengths).all():
    seed = seeds[np.argmin(np.isfinite(lengths))]
    raise UserError(
      f'ppl: the path length of seed {seed} is non-finite: the generator or the '
      'weights of LPIPS hold NaN or infinity.'
    )
  return trimmed_mean(lengths)
