"""Feature maps as blocks of pixels: a layout that fills the lanes of a TPU.

A TPU works on 128 channels at a time, its lanes, and pads what has fewer. The maps of a
growing GAN have 16 at 1024 pixels. On a TPU a large map of few channels is therefore a
`PixelBlocks`: with blocks of 2x4 pixels [b, 1024, 1024, 16] is [b, 512, 256, 128], and
the channels of a block are those of its pixels, one after the other, row by row:

  pixel (r, s) of a block, channel k  ->  channel (4 r + s) * 16 + k

The other maps, and all maps on other devices, are plain arrays. Layers take a
`FeatureMap`, either of the two, and give the same numbers for both up to rounding:
`block_convolution` has the convolutions, and the functions here what layers do
otherwise. `block_size` decides which layout a map has. Images are plain arrays
everywhere; `image_to_blocks` and `blocks_to_image` are from-RGB and to-RGB.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gan_jax.ops import activations, image_products, reductions
from gan_jax.ops.reductions import accumulation_dtype

Size = tuple[int, int]  # height and width of a block in pixels
PIXEL: Size = (1, 1)


@partial(jax.tree_util.register_dataclass, data_fields=['values'], meta_fields=['size'])
@dataclasses.dataclass(frozen=True)
class PixelBlocks:
  """A feature map [b, h, w, c] as blocks of pixels.

  `values` are [b, h / size[0], w / size[1], size[0] * size[1] * c], channels last.
  """

  values: Array
  size: Size

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """Of the map: [b, h, w, c]."""
    b, h, w, n = self.values.shape
    rows, columns = self.size
    return b, h * rows, w * columns, n // (rows * columns)

  @property
  def dtype(self) -> Any:
    return self.values.dtype

  def astype(self, dtype: DTypeLike) -> 'PixelBlocks':
    return PixelBlocks(self.values.astype(dtype), self.size)


FeatureMap = Array | PixelBlocks
SMALLEST = 256  # width in pixels of the smallest maps in blocks


def block_size(device: str, height: int, width: int, channels: int) -> Size:
  """The size of the blocks that a map of a growing GAN is in; (1, 1): a plain array.

  A block fills the 128 lanes of a TPU, where a map is so large that this pays
  (experiments/step_speed). Images stay plain, as they have few channels.
  """
  if device != 'tpu' or min(height, width) < SMALLEST or channels < 8:
    return PIXEL
  if channels <= 16:
    return 2, 4
  if channels <= 32:
    return 2, 2
  return (1, 2) if channels <= 64 else PIXEL


def size_of(x: FeatureMap) -> Size:
  """The block of a map; (1, 1) for an array."""
  return x.size if isinstance(x, PixelBlocks) else PIXEL


def values_of(x: FeatureMap) -> Array:
  """The array that holds a map."""
  return x.values if isinstance(x, PixelBlocks) else x


def like(x: FeatureMap, values: Array) -> FeatureMap:
  """A map in the layout of x."""
  return PixelBlocks(values, x.size) if isinstance(x, PixelBlocks) else values


def to_blocks(x: Float[Array, 'b h w c'], size: Size) -> FeatureMap:
  """An array as blocks of a size; (1, 1) leaves it as it is."""
  if size == PIXEL:
    return x
  (b, h, w, c), (rows, columns) = x.shape, size
  x = x.reshape(b, h // rows, rows, w // columns, columns, c)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return PixelBlocks(x.reshape(b, h // rows, w // columns, -1), size)


def to_pixels(x: FeatureMap) -> Float[Array, 'b h w c']:
  """The array of a map."""
  if not isinstance(x, PixelBlocks):
    return x
  (b, h, w, c), (rows, columns) = x.shape, x.size
  values = x.values.reshape(b, h // rows, w // columns, rows, columns, c)
  return values.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)


def image_to_blocks(
  image: Float[Array, 'b h w k'],
  weight: Float[Array, 'k c'],
  size: Size,
  precision: lax.Precision | None = None,
  result: DTypeLike | None = None,
) -> PixelBlocks:
  """`image @ weight`, as blocks of a size; of the image's dtype or of another."""
  (b, h, w, _), (rows, columns) = image.shape, size
  # The columns stay in the lanes until the product with the weight.
  x = image_products.split_columns(image, columns)
  x = x.reshape(b, h // rows, rows, -1, columns, w // columns)
  wide = _at_each_pixel(weight, size).astype(x.dtype).reshape(*size, len(weight), -1)
  values = jnp.einsum(
    'birksj,rsko->bijo', x, wide, precision=precision, preferred_element_type=result
  )
  return PixelBlocks(values, size)


def blocks_to_image(
  x: PixelBlocks, weight: Float[Array, 'c k']
) -> Float[Array, 'b h w k']:
  """`to_pixels(x) @ weight`, for an image's few channels k."""
  (b, h, w, _), columns, k = x.shape, x.size[1], weight.shape[-1]
  wide = _at_each_pixel(weight, x.size).astype(x.dtype).reshape(-1, *x.size, k)
  y = jnp.einsum('bijo,orsk->birksj', x.values, wide)
  return image_products.join_columns(y.reshape(b, h, -1, columns, w // columns))


def _at_each_pixel(
  weight: Float[Array, 'k c'], size: Size
) -> Float[Array, 'pixels_k pixels_c']:
  """The matrix that applies the weight to each pixel of a block."""
  weight = weight.astype(accumulation_dtype(weight.dtype))
  return jnp.kron(jnp.eye(size[0] * size[1], dtype=weight.dtype), weight)


def map_values(f: Callable[..., Array], *maps: FeatureMap) -> FeatureMap:
  """f of maps of one layout, where f works on each value alone."""
  return like(maps[0], f(*map(values_of, maps)))


def repeat_channels(x: FeatureMap, a: Any) -> Array:
  """An array with one value per channel, for each channel of `values_of(x)`."""
  if not isinstance(x, PixelBlocks):
    return a
  return jnp.concatenate([a] * (x.size[0] * x.size[1]), -1)


def sum_pixels(x: FeatureMap, a: Float[Array, '... n']) -> Float[Array, '... c']:
  """Adds what belongs to each channel of x, in an array per channel of its values."""
  if not isinstance(x, PixelBlocks):
    return a
  return a.reshape(*a.shape[:-1], -1, x.shape[-1]).sum(-2)


def add_bias(x: FeatureMap, bias: Float[Array, '1 1 1 c']) -> FeatureMap:
  """`reductions.add_bias`."""
  return like(x, reductions.add_bias(values_of(x), repeat_channels(x, bias)))


def leaky_relu(x: Any) -> Any:
  """`activations.leaky_relu` of an array or a map."""
  return map_values(activations.leaky_relu, x)


def relu(x: Any) -> Any:
  """`activations.relu` of an array or a map."""
  return map_values(activations.relu, x)


def channel_means(x: FeatureMap, wide: Array) -> Array:
  """Means over the channels of each pixel, for each channel of `values_of(x)`.

  Args:
    x: the map, whose dtype is the precision that is needed.
    wide: values in its layout.
  """
  if not isinstance(x, PixelBlocks):
    return wide.mean(-1, keepdims=True)
  c = x.shape[-1]
  pixels = x.size[0] * x.size[1]
  mean = np.kron(np.eye(pixels), np.full((c, c), 1 / c)).astype(wide.dtype)
  return jnp.dot(wide, mean, precision=_precision(x.dtype))


def channel_products(x: FeatureMap, one: Array, weight: Float[Array, '1 c']) -> Array:
  """A map of one channel times a weight per channel, in the layout of x.

  Args:
    x: the map whose layout the product has.
    one: [b or 1, h, w, 1], an array.
    weight: one value per channel of x.
  """
  if not isinstance(x, PixelBlocks):
    return one @ weight
  one = one.astype(jnp.result_type(one, weight))
  return _products(one, weight, x.size, jnp.dtype(x.dtype))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _products(one: Array, weight: Array, size: Size, dtype: Any) -> Array:
  """`channel_products` in blocks, rounded to a dtype later.

  What is repeated over the channels is split into bfloat16 parts that add up to it, so
  that the repetition is exact in one pass of the matrix unit. The derivative is that of
  the product with the weight, which keeps no map for it.
  """
  parts = bfloat16_parts(one, dtype)
  ones = jnp.ones((parts.shape[-1], weight.shape[-1]), parts.dtype)
  repeated = image_to_blocks(parts, ones, size, result=one.dtype).values
  return repeated * jnp.tile(weight, size[0] * size[1])[None, None]


def _products_jvp(size: Size, dtype: Any, primals: Any, tangents: Any) -> Any:
  (one, weight), (d_one, d_weight) = primals, tangents
  # In training only the weight has a tangent, and a product with zeros is not free.
  terms = [
    image_to_blocks(*factors, size, _precision(dtype)).values
    for tangent, factors in ((d_weight, (one, d_weight)), (d_one, (d_one, weight)))
    if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
  ]
  return _products(one, weight, size, dtype), sum(terms[1:], terms[0])


_products.defjvp(_products_jvp, symbolic_zeros=True)


def bfloat16_parts(x: Float[Array, 'b h w 1'], dtype: DTypeLike) -> Array:
  """Arrays in bfloat16 whose sum is x as far as a dtype needs it, as channels.

  float32 has three such parts, bfloat16 one; float64 is its own part.
  """
  if jnp.finfo(x.dtype).bits > 32:
    return x
  parts = []
  for _ in range(1 if jnp.finfo(dtype).bits < 32 else 3):
    parts.append(x.astype(jnp.bfloat16))
    x = x - parts[-1].astype(x.dtype)
  return jnp.concatenate(parts, -1)


def _precision(dtype: DTypeLike) -> lax.Precision:
  """Of products whose result is rounded to a dtype."""
  narrow = jnp.finfo(dtype).bits < 32
  return lax.Precision.DEFAULT if narrow else lax.Precision.HIGHEST
