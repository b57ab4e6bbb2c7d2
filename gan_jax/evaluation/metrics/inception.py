"""Inception-v3, the feature network of FID, IS and KID.

Szegedy et al. 2016, arXiv:1512.00567. Published scores use the weights of TensorFlow's
graph of 2015, which pytorch-fid distributes as pt_inception-2015-12-05. Parameters have
torchvision's names. The user supplies the file; nothing is downloaded.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import (
  FeatureNetwork,
  make_extractor,
  read_weights,
)
from gan_jax.evaluation.metrics.resize import PREPROCESSING, preprocess
from gan_jax.storage.nested import fingerprint

SIDE = 299  # pixels of the network's input
DIM = 2048  # length of a feature vector
ENVIRONMENT = 'GAN_JAX_INCEPTION'  # variable that names the file of weights
BN_EPS = 1e-3

Pool = Callable[[Array], Array]


class ConvRelu(nn.Module):
  """Convolution with its batch norm folded into kernel and bias, and ReLU."""

  features: int
  kernel: tuple[int, int]
  stride: int = 1
  same: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 features']:
    shape = (*self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.zeros, shape)
    bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, self.features))
    pads = [(k // 2, k // 2) if self.same else (0, 0) for k in self.kernel]
    x = lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=lax.Precision.HIGHEST,
    )
    return nn.relu(x + bias)


def max_pool(x: Array) -> Array:
  """3x3 maxima with stride 2, without padding."""
  return nn.max_pool(x, (3, 3), (2, 2))


def max_pool_same(x: Array) -> Array:
  """3x3 maxima with stride 1."""
  return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


def mean_pool_valid(x: Array) -> Array:
  """3x3 means that leave out the padding: TensorFlow's average pooling."""
  pads = ((1, 1), (1, 1))
  return nn.avg_pool(x, (3, 3), padding=pads, count_include_pad=False)


def mean_pool_padded(x: Array) -> Array:
  """3x3 means that include the zero padding: torchvision's average pooling."""
  return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)))


# The blocks below create ConvRelu modules of the InceptionV3 that calls them.


def _conv(
  x: Array, name: str, features: int, size: int | tuple[int, int] = 1, **options: Any
) -> Array:
  kernel = (size, size) if isinstance(size, int) else size
  return ConvRelu(features, kernel, name=name, **options)(x)


def _branch(x: Array, block: str, *layers: tuple) -> Array:
  """Convolutions (name, features, size) in sequence."""
  for name, *rest in layers:
    x = _conv(x, f'{block}.{name}', *rest)
  return x


def _concatenate(*branches: Array) -> Array:
  return jnp.concatenate(branches, -1)


def _mixed_35(x: Array, block: str, pool: Pool, pool_features: int) -> Array:
  """Mixed_5b to Mixed_5d, on maps of 35 x 35."""
  return _concatenate(
    _branch(x, block, ('branch1x1', 64)),
    _branch(x, block, ('branch5x5_1', 48), ('branch5x5_2', 64, 5)),
    _branch(
      x,
      block,
      ('branch3x3dbl_1', 64),
      ('branch3x3dbl_2', 96, 3),
      ('branch3x3dbl_3', 96, 3),
    ),
    _branch(pool(x), block, ('branch_pool', pool_features)),
  )


_STRIDED = {'stride': 2, 'same': False}


def _reduce_35(x: Array, block: str) -> Array:
  """Mixed_6a, from 35 x 35 to 17 x 17."""
  double = _branch(x, block, ('branch3x3dbl_1', 64), ('branch3x3dbl_2', 96, 3))
  return _concatenate(
    _conv(x, f'{block}.branch3x3', 384, 3, **_STRIDED),
    _conv(double, f'{block}.branch3x3dbl_3', 96, 3, **_STRIDED),
    max_pool(x),
  )


def _mixed_17(x: Array, block: str, pool: Pool, features: int) -> Array:
  """Mixed_6b to Mixed_6e, on maps of 17 x 17."""
  row, column = (1, 7), (7, 1)
  return _concatenate(
    _branch(x, block, ('branch1x1', 192)),
    _branch(
      x,
      block,
      ('branch7x7_1', features),
      ('branch7x7_2', features, row),
      ('branch7x7_3', 192, column),
    ),
    _branch(
      x,
      block,
      ('branch7x7dbl_1', features),
      ('branch7x7dbl_2', features, column),
      ('branch7x7dbl_3', features, row),
      ('branch7x7dbl_4', features, column),
      ('branch7x7dbl_5', 192, row),
    ),
    _branch(pool(x), block, ('branch_pool', 192)),
  )


def _reduce_17(x: Array, block: str) -> Array:
  """Mixed_7a, from 17 x 17 to 8 x 8."""
  single = _branch(x, block, ('branch3x3_1', 192))
  double = _branch(
    x,
    block,
    ('branch7x7x3_1', 192),
    ('branch7x7x3_2', 192, (1, 7)),
    ('branch7x7x3_3', 192, (7, 1)),
  )
  return _concatenate(
    _conv(single, f'{block}.branch3x3_2', 320, 3, **_STRIDED),
    _conv(double, f'{block}.branch7x7x3_4', 192, 3, **_STRIDED),
    max_pool(x),
  )


def _mixed_8(x: Array, block: str, pool: Pool) -> Array:
  """Mixed_7b and Mixed_7c, on maps of 8 x 8."""
  single = _branch(x, block, ('branch3x3_1', 384))
  double = _branch(x, block, ('branch3x3dbl_1', 448), ('branch3x3dbl_2', 384, 3))
  return _concatenate(
    _branch(x, block, ('branch1x1', 320)),
    _conv(single, f'{block}.branch3x3_2a', 384, (1, 3)),
    _conv(single, f'{block}.branch3x3_2b', 384, (3, 1)),
    _conv(double, f'{block}.branch3x3dbl_3a', 384, (1, 3)),
    _conv(double, f'{block}.branch3x3dbl_3b', 384, (3, 1)),
    _branch(pool(x), block, ('branch_pool', 192)),
  )


class InceptionV3(nn.Module):
  """Images [n, 299, 299, 3] in about [-1, 1] -> spatial means and logits by name.

  '64', '192', '768' and '2048' are the spatial means after four depths, named by their
  number of channels. 'logits_unbiased' omits the bias of the last layer, as
  torch-fidelity does for IS.

  The default pooling is that of TensorFlow's graph of 2015; torchvision's network pools
  differently.
  """

  classes: int = 1008
  mean_pool: Pool = mean_pool_valid
  last_pool: Pool = max_pool_same

  @nn.compact
  def __call__(self, x: Float[Array, 'n 299 299 3']) -> dict[str, Array]:
    spatial_mean = lambda x: x.mean((1, 2))
    out = {}
    x = _conv(x, 'Conv2d_1a_3x3', 32, 3, stride=2, same=False)
    x = _conv(x, 'Conv2d_2a_3x3', 32, 3, same=False)
    x = max_pool(_conv(x, 'Conv2d_2b_3x3', 64, 3))
    out['64'] = spatial_mean(x)
    x = _conv(x, 'Conv2d_3b_1x1', 80)
    x = max_pool(_conv(x, 'Conv2d_4a_3x3', 192, 3, same=False))
    out['192'] = spatial_mean(x)
    for block, features in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
      x = _mixed_35(x, block, self.mean_pool, features)
    x = _reduce_35(x, 'Mixed_6a')
    for block, features in zip('bcde', (128, 160, 160, 192), strict=True):
      x = _mixed_17(x, f'Mixed_6{block}', self.mean_pool, features)
    out['768'] = spatial_mean(x)
    x = _reduce_17(x, 'Mixed_7a')
    x = _mixed_8(x, 'Mixed_7b', self.mean_pool)
    x = _mixed_8(x, 'Mixed_7c', self.last_pool)
    out['2048'] = x = spatial_mean(x)
    kernel = self.param('fc.kernel', nn.initializers.zeros, (2048, self.classes))
    bias = self.param('fc.bias', nn.initializers.zeros, (1, self.classes))
    out['logits_unbiased'] = jnp.dot(x, kernel, precision=lax.Precision.HIGHEST)
    out['logits'] = out['logits_unbiased'] + bias
    return out


def fid_network() -> InceptionV3:
  """TensorFlow's network of 2015, which FID, IS and KID are defined with."""
  return InceptionV3()


def torchvision_network() -> InceptionV3:
  """torchvision's network, which BigGAN-PyTorch uses; not comparable with FID."""
  return InceptionV3(
    classes=1000, mean_pool=mean_pool_padded, last_pool=mean_pool_padded
  )


_IGNORED = re.compile(r'AuxLogits\..*|.*\.num_batches_tracked')


def convert_weights(
  network: InceptionV3, weights: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
  """Variables of `network` from weights under torchvision's names.

  Every parameter must be found and every weight used, except for the auxiliary
  classifier.

  Args:
    source: the file of the weights, for messages.

  Raises:
    UserError: the weights are those of another network.
  """
  image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)['params']
  unused = {name for name in weights if not _IGNORED.fullmatch(name)}
  params: dict[str, Any] = {}

  def take(name: str) -> np.ndarray:
    if name not in weights:
      raise UserError(
        f'{source} does not hold the weights of Inception-v3: {name} is missing among '
        f'its {len(weights)} arrays; take pt_inception-2015-12-05 or a file with '
        "torchvision's names."
      )
    unused.discard(name)
    return np.asarray(weights[name], np.float64)

  for name, like in shapes.items():
    if name.startswith('fc.'):
      value = take('fc.weight').T if name == 'fc.kernel' else take('fc.bias')[None]
      params[name] = _check_shape(value, like, source, name)
      continue
    kernel = np.moveaxis(take(f'{name}.conv.weight'), (0, 1), (3, 2))
    mean, var = take(f'{name}.bn.running_mean'), take(f'{name}.bn.running_var')
    gain = take(f'{name}.bn.weight') / np.sqrt(var + BN_EPS)
    bias = take(f'{name}.bn.bias') - mean * gain
    params[name] = {
      'kernel': _check_shape(kernel * gain, like['kernel'], source, name),
      'bias': _check_shape(bias[None, None, None], like['bias'], source, name),
    }
  if unused:
    raise UserError(
      f'{source} holds weights that Inception-v3 does not have, for example '
      f'{min(unused)}: take pt_inception-2015-12-05 or a file with those names only.'
    )
  return {'params': params}


def _check_shape(value: np.ndarray, like: Any, source: str, name: str) -> np.ndarray:
  """`value` in float32. Raises: UserError for another shape than that of `like`."""
  if value.shape != like.shape:
    raise UserError(
      f'{source}: {name} has the shape {value.shape} where Inception-v3 needs '
      f'{like.shape}; fid needs the network of 2015 with 1008 classes.'
    )
  return value.astype(np.float32)


def load(
  path: str | Path | None, mesh: Mesh, *, resizing: str = 'torch', batch: int = 64
) -> FeatureNetwork:
  """FID's network with the weights in `path`, or else in $GAN_JAX_INCEPTION.

  Args:
    resizing: a key of PREPROCESSING.

  Raises:
    UserError: no file is named, it does not hold these weights, or `resizing` is
      unknown.
  """
  if resizing not in PREPROCESSING:
    raise UserError(f'--resizing={resizing}: allowed are {", ".join(PREPROCESSING)}.')
  path = path or os.environ.get(ENVIRONMENT)
  if not path:
    raise UserError(
      'fid, is, kid and prdc need the weights of Inception-v3, which do not come with '
      'gan_jax: name your file (pt_inception-2015-12-05-6726825d.pth) with '
      f'--inception=FILE or ${ENVIRONMENT}, or use the scores that end in _small.'
    )
  weights, network = read_weights(path), fid_network()
  variables = convert_weights(network, weights, str(path))
  used = {name: x for name, x in weights.items() if not _IGNORED.fullmatch(name)}
  how = PREPROCESSING[resizing]

  def apply(variables: Any, images: Array) -> tuple[Array, Array]:
    out = network.apply(variables, preprocess(images, how, SIDE))
    return out['2048'], out['logits_unbiased']

  stamp = {
    'network': 'inception-v3-2015',
    'weights': fingerprint(used),
    'preprocessing': f'{resizing} {SIDE}',
    'dtype': 'float32',
  }
  extract = make_extractor(apply, variables, mesh, batch)
  return FeatureNetwork('inception', DIM, 1008, stamp, extract)
