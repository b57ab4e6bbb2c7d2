"""The mapping and the synthesis network of StyleGAN (arXiv:1812.04948)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax.models.progressive import lerp
from gan_jax.nn.layers import EqualizedConv, EqualizedDense, ModuleDef
from gan_jax.nn.norms import instance_norm, pixel_norm
from gan_jax.ops.activations import leaky_relu, relu
from gan_jax.ops.reductions import add_bias
from gan_jax.ops.resampling import blur, up_conv, upsample


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
  def __call__(
    self, x: Float[Array, 'b h w c'], noise: Array | None, w: Array | None
  ) -> Float[Array, 'b h w c']:
    shape = (1, 1, 1, x.shape[-1])
    if noise is not None:
      strength = self.param('strength', nn.initializers.zeros, shape)
      x += (noise @ strength[0, 0]).astype(x.dtype)
    x = add_bias(x, self.param('bias', nn.initializers.zeros, shape).astype(x.dtype))
    x = relu(x) if self.relu else leaky_relu(x)
    if self.pixel_norm:
      x = pixel_norm(x)
    gain: ArrayLike = 1
    bias: ArrayLike = 0
    if w is not None:
      style = self.style((2 * x.shape[-1],), gain=1.0, name='style')(w)
      scale, bias = jnp.split(style[:, None, None], 2, axis=-1)
      gain = scale + 1
    return instance_norm(x, gain, bias) if self.instance_norm else x * gain + bias


class Synthesis(nn.Module):
  """w [b, layers, dim_w], noise, static res, alpha -> images [b, res, res, c].

  Each resolution from 4x4 on has two layers; `widths` are their channels. Noise is one
  array [b or 1, h, w, 1] per layer, or () for a generator without noise. Without styles
  only the first w is used, as the input of the traditional generator.
  """

  res: int  # final
  widths: tuple[int, ...]
  channels: int = 3
  styles: bool = True
  const: bool = True  # start from a learned 4x4 feature map instead of w
  pixel_norm: bool = False
  instance_norm: bool = True
  blur: tuple[int, ...] = (1, 2, 1)  # filter after upsampling; () for none
  relu: bool = False
  equalized: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self,
    w: Float[Array, 'b layers dim_w'],
    noise: tuple[Array, ...],
    res: int,
    alpha: ArrayLike,
  ) -> Float[Array, 'b h w c']:
    weights = dict(equalized=self.equalized, dtype=self.dtype)
    conv_ = partial(EqualizedConv, **weights)
    epilogue = partial(
      Epilogue,
      style=partial(EqualizedDense, **weights),
      pixel_norm=self.pixel_norm,
      instance_norm=self.instance_norm,
      relu=self.relu,
    )
    initializing = self.is_initializing()

    def finish(x: Array, layer: int) -> Array:
      return epilogue(name=f'layer{layer}')(
        x, noise[layer] if noise else None, w[:, layer] if self.styles else None
      )

    shape = (4, 4, self.widths[0])
    if self.const:
      start = self.param('const', nn.initializers.ones, (1, *shape))
      x = jnp.broadcast_to(start.astype(self.dtype), (w.shape[0], *shape))
    else:
      dense = partial(EqualizedDense, gain=2**0.5 / 4, bias=False, **weights)
      x = dense(shape, name='dense')(w[:, 0])
    x = finish(x, 0)
    x = finish(conv_(shape[-1], bias=False, name='conv4')(x), 1)
    size, layer, images = 4, 2, []
    while True:
      if 2 * size >= res or initializing:
        rgb = conv_(self.channels, size=1, gain=1.0, name=f'rgb{size}')
        images.append(rgb(x))
      if size == (self.res if initializing else res):
        break
      size *= 2
      layer_ = partial(conv_, self.widths[size.bit_length() - 3], bias=False)
      x = layer_(apply_kernel=up_conv, name=f'conv{size}_up')(x)
      if self.blur:
        x = blur(x, self.blur)
      x = finish(x, layer)
      x = finish(layer_(name=f'conv{size}')(x), layer + 1)
      layer += 2
    image = images[-1]
    if len(images) > 1:
      image = lerp(image, upsample(images[-2]), 1 - alpha)
    return image.astype(jnp.promote_types(image.dtype, jnp.float32))
