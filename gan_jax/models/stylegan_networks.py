"""The mapping and the synthesis network of StyleGAN (arXiv:1812.04948)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax.models.first_map import SQUARE
from gan_jax.models.progressive import blend_images, dtype_at
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef
from gan_jax.nn.norms import instance_norm, pixel_norm
from gan_jax.ops import blocks
from gan_jax.ops.block_convolution import up_conv
from gan_jax.ops.blocks import FeatureMap, leaky_relu, relu


class Mapping(nn.Module):
  """z [b, dim_z] and class weights [b, n] -> w [b, dim_w]; without layers z itself."""

  widths: tuple[int, ...]  # one per layer
  normalize_z: bool = True  # pixel norm of z and the embedded class together
  lrmul: float = 0.01
  relu: bool = False  # instead of leaky ReLU
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, z: Float[Array, 'b dim_z'], weights: Float[Array, 'b n']
  ) -> Float[Array, 'b dim_w']:
    x = z
    if weights.shape[-1]:
      shape = (weights.shape[-1], z.shape[-1])
      table = self.param('embedding', nn.initializers.normal(1.0), shape)
      x = jnp.concatenate([z, weights @ table], -1)
    if self.normalize_z:
      x = pixel_norm(x)
    for i, width in enumerate(self.widths):
      layer = EqualizedDense(
        (width,),
        lrmul=self.lrmul,
        equalized=self.equalized,
        dtype=self.dtype,
        name=f'dense{i}',
      )
      x = relu(layer(x)) if self.relu else leaky_relu(layer(x))
    return x


class Epilogue(nn.Module):
  """Noise, bias, activation, normalization and style after a convolution (figure 1b).

  noise [b or 1, h, w, 1] and w [b, dim_w] are None in a generator without them.
  """

  style: ModuleDef
  pixel_norm: bool = False
  instance_norm: bool = True
  relu: bool = False

  @nn.compact
  def __call__(self, x: FeatureMap, noise: Array | None, w: Array | None) -> FeatureMap:
    shape = (1, 1, 1, x.shape[-1])
    if noise is not None:
      strength = self.param('strength', nn.initializers.zeros, shape)
      noise = blocks.channel_products(x, noise, strength[0, 0])
      x = blocks.map_values(lambda x, n: x + n.astype(x.dtype), x, noise)
    bias = self.param('bias', nn.initializers.zeros, shape)
    x = blocks.add_bias(x, bias.astype(x.dtype))
    x = relu(x) if self.relu else leaky_relu(x)
    if self.pixel_norm:
      x = pixel_norm(x)
    gain: ArrayLike = 1
    shift: ArrayLike = 0
    if w is not None:
      style = self.style((2 * x.shape[-1],), gain=1.0, name='style')(w)
      scale, shift = jnp.split(style[:, None, None], 2, axis=-1)
      gain = scale + 1
      if not self.instance_norm:
        gain, shift = gain.astype(x.dtype), shift.astype(x.dtype)
        gain, shift = (blocks.repeat_channels(x, a) for a in (gain, shift))
    if self.instance_norm:
      return instance_norm(x, gain, shift)
    return blocks.map_values(lambda x: x * gain + shift, x)


class Synthesis(nn.Module):
  """w [b, layers, dim_w], noise, static res, alpha -> images [b, h, w, c].

  Each resolution from 4x4 on has two layers; `widths` are their channels. Noise is one
  array [b or 1, h, w, 1] per layer, or () for a generator without noise. Without styles
  only the first w is used, as the input of the traditional generator.
  """

  res: int  # final
  widths: tuple[int, ...]
  channels: int = 3
  first_map: tuple[int, ...] = SQUARE
  styles: bool = True
  const: bool = True  # start from a learned feature map instead of w
  pixel_norm: bool = False
  instance_norm: bool = True
  blur: tuple[int, ...] = (1, 2, 1)  # filter after upsampling; () for none
  relu: bool = False
  equalized: bool = True
  dtype: str = 'float32'
  bfloat16_from: int = 0  # resolution from which layers use bfloat16; 0: none

  @nn.compact
  def __call__(
    self,
    w: Float[Array, 'b layers dim_w'],
    noise: tuple[Array, ...],
    res: int,
    alpha: ArrayLike,
  ) -> Float[Array, 'b h w c']:
    at = partial(dtype_at, dtype=self.dtype, bfloat16_from=self.bfloat16_from)
    weights = dict(equalized=self.equalized, dtype=at(4))
    epilogue = partial(
      Epilogue,
      style=partial(EqualizedDense, **weights),
      pixel_norm=self.pixel_norm,
      instance_norm=self.instance_norm,
      relu=self.relu,
    )
    initializing = self.is_initializing()

    def finish(x: FeatureMap, layer: int) -> Any:
      return epilogue(name=f'layer{layer}')(
        x, noise[layer] if noise else None, w[:, layer] if self.styles else None
      )

    shape = (*self.first_map, self.widths[0])
    if self.const:
      start = self.param('const', nn.initializers.ones, (1, *shape))
      x = jnp.broadcast_to(start.astype(at(4)), (w.shape[0], *shape))
    else:
      dense = partial(EqualizedDense, gain=2**0.5 / 4, bias=False, **weights)
      x = dense(shape, name='dense')(w[:, 0])
    x = finish(x, 0)
    conv_ = partial(EqualizedConv, equalized=self.equalized)
    conv4 = conv_(shape[-1], bias=False, dtype=at(4), name='conv4')
    x = finish(conv4(x), 1)
    size, layer, images = 4, 2, []
    while True:
      if 2 * size >= res or initializing:
        name = f'rgb{size}'
        rgb = conv_(self.channels, size=1, gain=1.0, dtype=at(size), name=name)
        images.append(rgb(x))
      if size == (self.res if initializing else res):
        break
      size *= 2
      width = self.widths[size.bit_length() - 3]
      layer_ = partial(conv_, width, bias=False, dtype=at(size))
      up = partial(up_conv, taps=self.blur)
      x = finish(layer_(apply_kernel=up, name=f'conv{size}_up')(x), layer)
      x = finish(layer_(name=f'conv{size}')(x), layer + 1)
      layer += 2
    return blend_images(images, alpha)
