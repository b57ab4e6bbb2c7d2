"""How evaluation tools resize uint8 images to the input of a feature network."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

Filter = Callable[[np.ndarray], np.ndarray]


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
  out_size: int,
  filter: Filter = _triangle,
  *,
  align: Literal['half_pixels', 'first', 'corners'] = 'half_pixels',
  antialias: bool = False,
) -> Float[np.ndarray, 'out_size size']:
  """Linear resampling of one axis as a float64 matrix.

  Args:
    align: which positions coincide: 'half_pixels' aligns the outer edges, 'first' the
      centers of the first pixels (TF1), 'corners' those of the first and last pixels.
    antialias: widens the filter when downsampling and renormalizes it at the border,
      as PIL does. Otherwise the border pixel is repeated.
  """
  scale = size / out_size
  out = np.arange(out_size)
  if align == 'half_pixels':
    position = (out + 0.5) * scale - 0.5
  elif align == 'first':
    position = out * scale
  else:
    position = out * (size - 1) / max(out_size - 1, 1)
  if antialias:
    width = max(scale, 1)
    weights = filter((np.arange(size) - position[:, None]) / width)
    return weights / weights.sum(1, keepdims=True)
  position = np.clip(position, 0, size - 1)
  return filter(np.arange(size) - position[:, None])


class Preprocessing(NamedTuple):
  """How a tool prepares images for the network: x -> (resize(x) - shift) / scale."""

  matrix: Callable[[int, int], np.ndarray]  # sizes of input and output -> [out, in]
  shift: float | np.ndarray = 127.5
  scale: float | np.ndarray = 127.5
  clip: bool = False  # resized images to 0..255


_IMAGENET_MEAN = 255 * np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
_IMAGENET_STD = 255 * np.array([[[[0.229, 0.224, 0.225]]]], np.float32)

PREPROCESSING = {
  # pytorch-fid and StudioGAN's `legacy`: torch's bilinear, without antialiasing
  'torch': Preprocessing(resize_matrix),
  # torch-fidelity and the original TensorFlow graph: TF1's bilinear
  'tf1': Preprocessing(partial(resize_matrix, align='first'), 128.0, 128.0),
  # StudioGAN's `clean`: PIL's bicubic with antialiasing, not clipped
  'clean': Preprocessing(partial(resize_matrix, filter=_cubic, antialias=True)),
  # clean-fid itself (Parmar et al. 2022): clipped, and scaled as TensorFlow's graph
  'clean-fid': Preprocessing(
    partial(resize_matrix, filter=_cubic, antialias=True), 128.0, 128.0, clip=True
  ),
  # StudioGAN's `friendly`: PIL's bilinear with antialiasing
  'friendly': Preprocessing(partial(resize_matrix, antialias=True)),
  # BigGAN-PyTorch, for the torchvision network
  'biggan': Preprocessing(
    partial(resize_matrix, align='corners'), _IMAGENET_MEAN, _IMAGENET_STD
  ),
}


def resize_images(
  images: UInt8[Array, 'n h w c'], how: Preprocessing, side: int
) -> Float[Array, 'n side side 3']:
  """Resizes to side x side pixels in 0..255; a gray channel is repeated."""
  x = images.astype(jnp.float32)
  if x.shape[-1] == 1:
    x = jnp.broadcast_to(x, (*x.shape[:-1], 3))
  for axis in (2, 1):
    if x.shape[axis] != side:
      matrix = jnp.asarray(how.matrix(x.shape[axis], side), jnp.float32)
      x = jnp.tensordot(x, matrix, ((axis,), (1,)), precision=lax.Precision.HIGHEST)
      x = jnp.moveaxis(x, -1, axis)
  return jnp.clip(x, 0, 255) if how.clip else x


def preprocess(
  images: UInt8[Array, 'n h w c'], how: Preprocessing, side: int
) -> Float[Array, 'n side side 3']:
  """The input of a feature network: resized, shifted and scaled."""
  return (resize_images(images, how, side) - how.shift) / how.scale
