"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948, section 4.1).

How far pictures move, to LPIPS with VGG-16 (Zhang et al. 2018, arXiv:1801.03924), for
a small step in latent space. The weights of VGG-16 and of LPIPS are the user's files,
under torchvision's names (`features.0.weight`) and LPIPS's (`lin0.model.1.weight`).
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import fingerprint, read_weights
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.mesh import AXIS
from gan_jax.sampling import samplers

ENVIRONMENT = 'GAN_JAX_LPIPS'  # where the files of weights are, unless a flag says
SIDE = 256  # larger pictures are averaged down to this
EPSILON = 1e-4

# VGG-16's convolutions by their place in torchvision's `features`, in the five stages
# after each of which LPIPS looks; all but the first stage begin with a max pool.
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_SHIFT = np.array([[[[-0.030, -0.088, -0.188]]]], np.float32)
_SCALE = np.array([[[[0.458, 0.448, 0.450]]]], np.float32)


class Lpips(NamedTuple):
  """Kernels HWIO and biases of VGG-16 by stage, and what each channel weighs."""

  stages: tuple[tuple[tuple[Array, Array], ...], ...]
  weights: tuple[Array, ...]  # [channels] of each stage


def lpips_of(arrays: Mapping[str, np.ndarray], source: str) -> Lpips:
  """Arrays under torchvision's and LPIPS's names as an Lpips.

  Raises:
    UserError: one is missing.
  """
  # LPIPS's own checkpoints call the network's slices net.slice1.0 and so on.
  known = {re.sub(r'^net\.slice\d\.', 'features.', k): v for k, v in arrays.items()}

  def take(name: str) -> np.ndarray:
    if name not in known:
      raise UserError(
        f'{source}: {name} is missing; ppl needs the weights of VGG-16 and of LPIPS, '
        "under torchvision's and LPIPS's names, in one or several files."
      )
    return np.asarray(known[name], np.float32)

  stages = tuple(
    tuple(
      (
        jnp.asarray(np.moveaxis(take(f'features.{i}.weight'), (0, 1), (3, 2))),
        jnp.asarray(take(f'features.{i}.bias').reshape(1, 1, 1, -1)),
      )
      for i in stage
    )
    for stage in _STAGES
  )
  weights = tuple(
    jnp.asarray(take(f'lin{i}.model.1.weight').reshape(-1)) for i in range(len(stages))
  )
  return Lpips(stages, weights)


def load(paths: str | None) -> tuple[Lpips, dict[str, str]]:
  """LPIPS from files joined by commas, or from $GAN_JAX_LPIPS, and its stamp.

  Raises:
    UserError: no file is named, or something is missing.
  """
  paths = paths or os.environ.get(ENVIRONMENT)
  if not paths:
    raise UserError(
      'ppl needs the weights of VGG-16 and of LPIPS, which do not come with gan_jax: '
      f'name your files, joined by commas, with --lpips=FILES or ${ENVIRONMENT}.'
    )
  arrays: dict[str, np.ndarray] = {}
  for path in paths.split(','):
    arrays |= read_weights(path)
  net = lpips_of(arrays, paths)
  leaves = {f'{i:02d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(net))}
  stamp = {'network': 'lpips-vgg16', 'weights': fingerprint(leaves), 'dtype': 'float32'}
  return net, stamp


def _pictures(x: Array) -> Array:
  """Pictures [n, h, w, c] as VGG takes them: at most 256 pixels, three channels."""
  factor = x.shape[1] // SIDE
  if factor > 1:
    n, h, w, c = x.shape
    x = x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
  return jnp.broadcast_to(x, (*x.shape[:3], 3))


def distance(net: Lpips, a: Array, b: Array) -> Array:
  """LPIPS between pictures in [-1, 1], [n, h, w, 3] -> [n], at least 0."""
  x = jnp.concatenate([a, b])
  x = (x - _SHIFT) / _SCALE
  total = jnp.zeros(len(a))
  for i, stage in enumerate(net.stages):
    if i:
      n, h, w, c = x.shape
      x = x[:, : h // 2 * 2, : w // 2 * 2]
      x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    for kernel, bias in stage:
      x = lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=lax.Precision.HIGHEST,
      )
      x = jax.nn.relu(x + bias)
    unit = x / (jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + 1e-10)
    square = jnp.square(unit[: len(a)] - unit[len(a) :])
    total += (square @ net.weights[i]).mean((1, 2))
  return total


def slerp(a: Array, b: Array, t: Array) -> Array:
  """Along the great circle between the directions of a and b [n, d], t [n, 1]."""
  unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
  a, b = unit(a), unit(b)
  dot = (a * b).sum(-1, keepdims=True)
  across = unit(b - dot * a)
  angle = t * jnp.arccos(jnp.clip(dot, -1, 1))
  return unit(a * jnp.cos(angle) + across * jnp.sin(angle))


class Path(NamedTuple):
  """Which path: in z or w, from anywhere on it (`full`) or from its beginning."""

  space: str
  sampling: str


PATHS = {
  'ppl_z_full': Path('z', 'full'),
  'ppl_w_full': Path('w', 'full'),
  'ppl_z_end': Path('z', 'end'),
  'ppl_w_end': Path('w', 'end'),
}


def make_path_length(
  gan: GAN,
  path: Path,
  perceived: Callable[[Array, Array], Array],
  mesh: Mesh,
  epsilon: float = EPSILON,
) -> Callable[..., Array]:
  """Compiles (g, z0, z1 [n, dim_z], t [n, 1], labels [n]) -> d / epsilon^2 [n].

  Args:
    perceived: pictures a, b [n, h, w, 3] in [-1, 1] -> their distance [n].

  Raises:
    UserError: a path in w of a family without w.
  """
  style = gan.style_based
  if path.space == 'w' and style is None:
    raise UserError(
      f'ppl in w needs a StyleGAN, and this is a {type(gan).__name__}: take ppl_z_full '
      'or ppl_z_end.'
    )
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def lengths(g, z0, z1, t, labels):
    if path.space == 'w' and style is not None:
      w0, w1 = style.w(g, z0, labels), style.w(g, z1, labels)
      at = lambda t: w0 + (w1 - w0) * t
      draw = lambda w: style.synthesize(g, style.truncate(g, w, 1.0))
    else:
      # Back at the length that normal latents have.
      size = gan.dim_z**0.5
      at = lambda t: slerp(z0, z1, t) * size
      draw = lambda z: gan.generate(g, z, labels)
    a, b = _pictures(draw(at(t))), _pictures(draw(at(t + epsilon)))
    return perceived(a, b) / epsilon**2

  shardings = (whole, split, split, split, split)
  return jax.jit(lengths, in_shardings=shardings, out_shardings=split)


def draws(
  gan: GAN, path: Path, seeds: np.ndarray, batch: int
) -> Iterator[tuple[np.ndarray, ...]]:
  """z0, z1, t and labels of each seed, in batches of one size, and how many count."""
  for start in range(0, len(seeds), batch):
    n = len(seeds[start : start + batch])
    rows = np.minimum(np.arange(start, start + batch), start + n - 1)
    first = seeds[rows]
    z0 = samplers.latents(first, gan.dim_z)
    # The far end counts down from the top, where no other seed is.
    z1 = samplers.latents(np.uint32(2**32 - 1) - first, gan.dim_z)
    t = np.zeros((batch, 1), np.float32)
    if path.sampling == 'full':
      keys = [np.random.Generator(np.random.Philox(int(s))) for s in first]
      t[:, 0] = [key.random(dtype=np.float32) for key in keys]
    labels = samplers.labels_from_seeds(first, gan.n_classes)
    yield np.asarray(z0), np.asarray(z1), t, np.asarray(labels), np.array(n)


def trimmed_mean(lengths: np.ndarray) -> float:
  """Mean without what lies beyond the 1st and 99th percentile, as StyleGAN's."""
  low = np.percentile(lengths, 1, method='lower')
  high = np.percentile(lengths, 99, method='higher')
  return float(lengths[(lengths >= low) & (lengths <= high)].mean(dtype=np.float64))


def path_length(
  gan: GAN,
  g: Variables,
  path: Path,
  perceived: Callable[[Array, Array], Array],
  seeds: np.ndarray,
  mesh: Mesh,
  batch: int = 16,
) -> float:
  """The perceptual path length over one pair of latents for each seed."""
  batch = -(-batch // mesh.size) * mesh.size
  compiled: Any = make_path_length(gan, path, perceived, mesh)
  found = []
  for *args, n in draws(gan, path, seeds, batch):
    found.append(np.asarray(compiled(g, *args))[:n])
  lengths = np.concatenate(found)
  if not np.isfinite(lengths).all():
    seed = seeds[np.argmin(np.isfinite(lengths))]
    raise UserError(
      f'ppl: the path length of seed {seed} is not finite: the generator or the '
      'weights of LPIPS hold NaN or infinity.'
    )
  return trimmed_mean(lengths)
