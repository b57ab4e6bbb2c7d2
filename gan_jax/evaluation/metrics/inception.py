"""Inception-v3, the network behind FID, IS and KID; its weights are the user's file.

Szegedy et al. 2016, arXiv:1512.00567. Scores in the literature come from the weights
of TensorFlow's 2015 graph, which pytorch-fid publishes as pt_inception-2015-12-05;
names are torchvision's. Nothing is downloaded.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import (
  FeatureNetwork,
  fingerprint,
  make_extractor,
  read_weights,
)

SIDE = 299  # pixels of the network's input
ENVIRONMENT = 'GAN_JAX_INCEPTION'  # where the file of weights is, unless a flag says
BN_EPS = 1e-3


# Preparing images.


def _triangle(x: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
  """Keys' cubic with a = -1/2."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x**2 + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0))


def resize_matrix(
  size: int,
  wanted: int,
  kernel: Callable[[np.ndarray], np.ndarray] = _triangle,
  *,
  align: str = 'halves',
  antialias: bool = False,
) -> np.ndarray:
  """Linear resampling of one axis as a matrix, float64 [wanted, size].

  Args:
    align: where an output pixel looks: 'halves', centre to centre of half pixels;
      'first', the first pixels coincide (TF1); 'ends', the first and the last do.
    antialias: widens the kernel when shrinking and renormalises it at the border, as
      PIL; otherwise the border pixel is repeated.
  """
  scale = size / wanted
  out = np.arange(wanted)
  if align == 'halves':
    at = (out + 0.5) * scale - 0.5
  elif align == 'first':
    at = out * scale
  else:
    at = out * (size - 1) / max(wanted - 1, 1)
  if antialias:
    width = max(scale, 1)
    weights = kernel((np.arange(size) - at[:, None]) / width)
    return weights / weights.sum(1, keepdims=True)
  at = np.clip(at, 0, size - 1)
  return kernel(np.arange(size) - at[:, None])


class Resizing(NamedTuple):
  """How a tool brings uint8 images to the network: x -> (resized - shift) / scale."""

  matrix: Callable[[int, int], np.ndarray]
  shift: Any = 127.5
  scale: Any = 127.5


_IMAGENET_MEAN = 255 * np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
_IMAGENET_STD = 255 * np.array([[[[0.229, 0.224, 0.225]]]], np.float32)

RESIZINGS = {
  # pytorch-fid and StudioGAN's `legacy`: torch's bilinear, without antialiasing
  'torch': Resizing(resize_matrix),
  # torch-fidelity and the original TensorFlow graph: TF1's bilinear
  'tf1': Resizing(partial(resize_matrix, align='first'), 128.0, 128.0),
  # clean-fid (Parmar et al. 2022): PIL's bicubic with antialiasing, not clipped
  'clean': Resizing(partial(resize_matrix, kernel=_cubic, antialias=True)),
  # StudioGAN's `friendly`: PIL's bilinear with antialiasing
  'friendly': Resizing(partial(resize_matrix, antialias=True)),
  # BigGAN-PyTorch, for the torchvision network
  'biggan': Resizing(
    partial(resize_matrix, align='ends'), _IMAGENET_MEAN, _IMAGENET_STD
  ),
}


def resized(images: Array, how: Resizing, side: int = SIDE) -> Array:
  """uint8 [n, h, w, c] -> float32 [n, side, side, 3] in 0..255; grey is repeated."""
  x = images.astype(jnp.float32)
  if x.shape[-1] == 1:
    x = jnp.broadcast_to(x, (*x.shape[:-1], 3))
  for axis in (2, 1):
    if x.shape[axis] != side:
      matrix = jnp.asarray(how.matrix(x.shape[axis], side), jnp.float32)
      x = jnp.tensordot(x, matrix, ((axis,), (1,)), precision=lax.Precision.HIGHEST)
      x = jnp.moveaxis(x, -1, axis)
  return x


def prepared(images: Array, how: Resizing, side: int = SIDE) -> Array:
  """uint8 [n, h, w, c] -> what a network takes, [n, side, side, 3]."""
  return (resized(images, how, side) - how.shift) / how.scale


# The network.


class ConvRelu(nn.Module):
  """Convolution, its batch norm folded into kernel and bias, and ReLU."""

  features: int
  kernel: tuple[int, int]
  stride: int = 1
  same: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
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
  return nn.max_pool(x, (3, 3), (2, 2))


def max_pool_same(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


def mean_of_inside(x: Array) -> Array:
  """3x3 means over the pixels there are: TensorFlow's average pooling."""
  pads = ((1, 1), (1, 1))
  return nn.avg_pool(x, (3, 3), padding=pads, count_include_pad=False)


def mean_with_padding(x: Array) -> Array:
  """3x3 means that count the zeros around the map: torchvision's average pooling."""
  return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)))


class InceptionV3(nn.Module):
  """[n, 299, 299, 3] in about [-1, 1] -> spatial means of four depths, and logits.

  'logits_unbiased' leaves out the bias of the last layer, as torch-fidelity's IS does.
  The defaults are TensorFlow's graph of 2015; torchvision's own network pools
  otherwise.
  """

  classes: int = 1008
  mean_pool: Callable[[Array], Array] = mean_of_inside
  last_pool: Callable[[Array], Array] = max_pool_same

  @nn.compact
  def __call__(self, x: Array) -> dict[str, Array]:
    def conv(x, name, features, size=1, **options):
      kernel = (size, size) if isinstance(size, int) else size
      return ConvRelu(features, kernel, name=name, **options)(x)

    def chain(x, block, *layers):
      """Layers (name, features, size) of a branch, one after the other."""
      for name, *rest in layers:
        x = conv(x, f'{block}.{name}', *rest)
      return x

    join = lambda *branches: jnp.concatenate(branches, -1)
    mean = lambda x: x.mean((1, 2))
    out = {}

    x = conv(x, 'Conv2d_1a_3x3', 32, 3, stride=2, same=False)
    x = conv(x, 'Conv2d_2a_3x3', 32, 3, same=False)
    x = max_pool(conv(x, 'Conv2d_2b_3x3', 64, 3))
    out['64'] = mean(x)
    x = conv(x, 'Conv2d_3b_1x1', 80)
    x = max_pool(conv(x, 'Conv2d_4a_3x3', 192, 3, same=False))
    out['192'] = mean(x)

    for b, pooled in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
      x = join(
        chain(x, b, ('branch1x1', 64)),
        chain(x, b, ('branch5x5_1', 48), ('branch5x5_2', 64, 5)),
        chain(
          x,
          b,
          ('branch3x3dbl_1', 64),
          ('branch3x3dbl_2', 96, 3),
          ('branch3x3dbl_3', 96, 3),
        ),
        chain(self.mean_pool(x), b, ('branch_pool', pooled)),
      )

    b, shrink = 'Mixed_6a', {'stride': 2, 'same': False}
    double = chain(x, b, ('branch3x3dbl_1', 64), ('branch3x3dbl_2', 96, 3))
    x = join(
      conv(x, f'{b}.branch3x3', 384, 3, **shrink),
      conv(double, f'{b}.branch3x3dbl_3', 96, 3, **shrink),
      max_pool(x),
    )
    wide, tall = (1, 7), (7, 1)
    for b, c in (
      ('Mixed_6b', 128),
      ('Mixed_6c', 160),
      ('Mixed_6d', 160),
      ('Mixed_6e', 192),
    ):
      x = join(
        chain(x, b, ('branch1x1', 192)),
        chain(
          x,
          b,
          ('branch7x7_1', c),
          ('branch7x7_2', c, wide),
          ('branch7x7_3', 192, tall),
        ),
        chain(
          x,
          b,
          ('branch7x7dbl_1', c),
          ('branch7x7dbl_2', c, tall),
          ('branch7x7dbl_3', c, wide),
          ('branch7x7dbl_4', c, tall),
          ('branch7x7dbl_5', 192, wide),
        ),
        chain(self.mean_pool(x), b, ('branch_pool', 192)),
      )
    out['768'] = mean(x)

    b = 'Mixed_7a'
    short = chain(x, b, ('branch3x3_1', 192))
    long = chain(
      x,
      b,
      ('branch7x7x3_1', 192),
      ('branch7x7x3_2', 192, wide),
      ('branch7x7x3_3', 192, tall),
    )
    x = join(
      conv(short, f'{b}.branch3x3_2', 320, 3, **shrink),
      conv(long, f'{b}.branch7x7x3_4', 192, 3, **shrink),
      max_pool(x),
    )
    for b, pool in (('Mixed_7b', self.mean_pool), ('Mixed_7c', self.last_pool)):
      single = chain(x, b, ('branch3x3_1', 384))
      double = chain(x, b, ('branch3x3dbl_1', 448), ('branch3x3dbl_2', 384, 3))
      x = join(
        chain(x, b, ('branch1x1', 320)),
        conv(single, f'{b}.branch3x3_2a', 384, (1, 3)),
        conv(single, f'{b}.branch3x3_2b', 384, (3, 1)),
        conv(double, f'{b}.branch3x3dbl_3a', 384, (1, 3)),
        conv(double, f'{b}.branch3x3dbl_3b', 384, (3, 1)),
        chain(pool(x), b, ('branch_pool', 192)),
      )
    out['2048'] = x = mean(x)

    kernel = self.param('fc.kernel', nn.initializers.zeros, (2048, self.classes))
    bias = self.param('fc.bias', nn.initializers.zeros, (1, self.classes))
    out['logits_unbiased'] = jnp.dot(x, kernel, precision=lax.Precision.HIGHEST)
    out['logits'] = out['logits_unbiased'] + bias
    return out


def fid_network() -> InceptionV3:
  """TensorFlow's network of 2015: what FID, IS and KID are measured with."""
  return InceptionV3()


def torchvision_network() -> InceptionV3:
  """torchvision's own, which BigGAN-PyTorch measures with; not comparable to FID."""
  return InceptionV3(
    classes=1000, mean_pool=mean_with_padding, last_pool=mean_with_padding
  )


_IGNORED = re.compile(r'AuxLogits\..*|.*\.num_batches_tracked')


def parameters(
  network: InceptionV3, weights: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
  """Weights under torchvision's names as variables of `network`, total both ways.

  Args:
    source: the file they come from, for messages.

  Raises:
    UserError: another network's weights.
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
      params[name] = _fitting(value, like, source, name)
      continue
    kernel = np.moveaxis(take(f'{name}.conv.weight'), (0, 1), (3, 2))
    mean, var = take(f'{name}.bn.running_mean'), take(f'{name}.bn.running_var')
    gain = take(f'{name}.bn.weight') / np.sqrt(var + BN_EPS)
    bias = take(f'{name}.bn.bias') - mean * gain
    params[name] = {
      'kernel': _fitting(kernel * gain, like['kernel'], source, name),
      'bias': _fitting(bias[None, None, None], like['bias'], source, name),
    }
  if unused:
    raise UserError(
      f'{source} holds weights that Inception-v3 has no place for, such as '
      f'{min(unused)}: take pt_inception-2015-12-05 or a file with those names only.'
    )
  return {'params': params}


def _fitting(value: np.ndarray, like: Any, source: str, name: str) -> np.ndarray:
  if value.shape != like.shape:
    raise UserError(
      f'{source}: {name} has the shape {value.shape} where Inception-v3 needs '
      f'{like.shape}; fid wants the network of 2015 with 1008 classes.'
    )
  return value.astype(np.float32)


def load(
  path: str | Path | None, mesh: Mesh, *, resizing: str = 'torch', batch: int = 64
) -> FeatureNetwork:
  """FID's network with the weights in `path`, or in $GAN_JAX_INCEPTION.

  Args:
    resizing: a key of RESIZINGS.

  Raises:
    UserError: no file is named, or it does not hold these weights.
  """
  if resizing not in RESIZINGS:
    raise UserError(f'--resizing={resizing}: allowed are {", ".join(RESIZINGS)}.')
  path = path or os.environ.get(ENVIRONMENT)
  if not path:
    raise UserError(
      'fid, is and kid need the weights of Inception-v3, which do not come with '
      'gan_jax: name your file (pt_inception-2015-12-05-6726825d.pth) with '
      f'--inception=FILE or ${ENVIRONMENT}, or use the scores that end in _small.'
    )
  weights, network = read_weights(path), fid_network()
  variables = parameters(network, weights, str(path))
  used = {k: v for k, v in weights.items() if not _IGNORED.fullmatch(k)}
  how = RESIZINGS[resizing]

  def apply(variables, images):
    out = network.apply(variables, prepared(images, how))
    return out['2048'], out['logits_unbiased']

  stamp = {
    'network': 'inception-v3-2015',
    'weights': fingerprint(used),
    'preprocessing': f'{resizing} {SIDE}',
    'dtype': 'float32',
  }
  return FeatureNetwork(
    'inception', 2048, 1008, stamp, make_extractor(apply, variables, mesh, batch)
  )
