"""LPIPS, a perceptual distance between images, with VGG-16 as its feature network.

Zhang et al. 2018, arXiv:1801.03924. The user supplies the weights of VGG-16, under
torchvision's names (`features.0.weight`), and of LPIPS, under its own names
(`lin0.model.1.weight`). Nothing is downloaded.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import fingerprint, read_weights

ENVIRONMENT = 'GAN_JAX_LPIPS'  # variable that names the files of weights

# VGG-16's convolutions by their index in torchvision's `features`. LPIPS compares the
# outputs of these five stages; all but the first one begin with a max pool.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_SHIFT = np.array([[[[-0.030, -0.088, -0.188]]]], np.float32)
_SCALE = np.array([[[[0.458, 0.448, 0.450]]]], np.float32)


class Lpips(NamedTuple):
  """Weights of VGG-16 and of LPIPS, by stage."""

  stages: tuple[tuple[tuple[Array, Array], ...], ...]  # (kernel HWIO, bias) per layer
  weights: tuple[Float[Array, ' channels'], ...]  # of the channels of each stage


def convert_weights(arrays: Mapping[str, np.ndarray], source: str) -> Lpips:
  """Weights of VGG-16 and LPIPS from arrays by name; other arrays are ignored.

  Args:
    source: the files of the arrays, for messages.

  Raises:
    UserError: an array is missing.
  """
  # LPIPS's own checkpoints call VGG's layers net.slice1.0 and so on.
  by_name = {re.sub(r'^net\.slice\d\.', 'features.', k): v for k, v in arrays.items()}

  def take(name: str) -> np.ndarray:
    if name not in by_name:
      raise UserError(
        f'{source}: {name} is missing; ppl needs the weights of VGG-16 and of LPIPS, '
        "under torchvision's and LPIPS's names, in one or several files."
      )
    return np.asarray(by_name[name], np.float32)

  stages = tuple(
    tuple(
      (
        jnp.asarray(np.moveaxis(take(f'features.{i}.weight'), (0, 1), (3, 2))),
        jnp.asarray(take(f'features.{i}.bias').reshape(1, 1, 1, -1)),
      )
      for i in stage
    )
    for stage in STAGES
  )
  weights = tuple(
    jnp.asarray(take(f'lin{i}.model.1.weight').reshape(-1)) for i in range(len(stages))
  )
  return Lpips(stages, weights)


def load(paths: str | None) -> tuple[Lpips, dict[str, str]]:
  """LPIPS from files joined by commas, or else from $GAN_JAX_LPIPS.

  Returns:
    The weights, and their part of a score's protocol.

  Raises:
    UserError: no file is named, or a weight is missing.
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
  lpips = convert_weights(arrays, paths)
  leaves = {f'{i:02d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(lpips))}
  stamp = {'network': 'lpips-vgg16', 'weights': fingerprint(leaves), 'dtype': 'float32'}
  return lpips, stamp


def distance(
  lpips: Lpips, a: Float[Array, 'n h w 3'], b: Float[Array, 'n h w 3']
) -> Float[Array, ' n']:
  """LPIPS between pairs of images in [-1, 1]; not negative."""
  x = jnp.concatenate([a, b])
  x = (x - _SHIFT) / _SCALE
  total = jnp.zeros(len(a))
  for i, stage in enumerate(lpips.stages):
    if i:
      x = _max_pool(x)
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
    total += (square @ lpips.weights[i]).mean((1, 2))
  return total


def _max_pool(x: Array) -> Array:
  """Maxima of 2 x 2 boxes; an odd last row or column is dropped."""
  n, h, w, c = x.shape
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
