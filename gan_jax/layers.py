"""Layers of the three families. Images are NHWC, kernels HWIO, embeddings [n, dim]."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from gan_jax import UserError

AXIS = 'data'  # the mesh axis that carries the batch

ModuleDef = Callable[..., Any]
Init = Callable[..., Array]
Tree = Mapping[str, Any]


def widened(dtype: Any) -> Any:
  """The type for sums and statistics: float32, or float64 where that is computed in."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


# Resampling.


def upsample(x: Array) -> Array:
  """Nearest neighbour, [b, h, w, c] -> [b, 2h, 2w, c]."""
  b, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
  return x.reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
  """Mean over 2x2 boxes, [b, h, w, c] -> [b, h/2, w/2, c]."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


_NHWC = ('NHWC', 'HWIO', 'NHWC')


def conv(x: Array, kernel: Array) -> Array:
  """Stride 1, zero padding to the same size; a 1x1 kernel is a matrix product."""
  if kernel.shape[:2] == (1, 1):
    return x @ kernel[0, 0]
  return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=_NHWC)


def up_conv(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` for a 3x3 kernel, with 4/9 of the multiplications.

  Every output pixel of one parity sees only two distinct input rows and columns,
  so the 3x3 kernel folds into a 2x2 kernel for each parity. A 1x1 kernel commutes
  with the repetition.
  """
  if kernel.shape[:2] == (1, 1):
    return upsample(conv(x, kernel))
  k0, k1, k2 = kernel
  rows = jnp.stack([jnp.stack([k0, k1 + k2]), jnp.stack([k0 + k1, k2])])
  k0, k1, k2 = jnp.moveaxis(rows, 2, 0)
  folded = jnp.stack([jnp.stack([k0, k1 + k2], 2), jnp.stack([k0 + k1, k2], 2)], 1)
  return _interleaved(x, folded)


def down_conv(x: Array, kernel: Array) -> Array:
  """`downsample(conv(x, kernel))` for a 3x3 kernel, as one strided 4x4 convolution."""
  if kernel.shape[:2] == (1, 1):
    return conv(downsample(x), kernel)
  padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  shifted = [padded[i : i + 4, j : j + 4] for i in range(2) for j in range(2)]
  return _strided(x, sum(shifted[1:], shifted[0]) / 4)


def _interleaved(x: Array, kernels: Array) -> Array:
  """[b, h, w, c] -> [b, 2h, 2w, o]: pixels of parity (i, j) by the 2x2 kernels[i, j].

  Parity 0 looks one row (column) back, parity 1 one ahead.
  """
  b, h, w, _ = x.shape

  def phase(i: int, j: int) -> Array:
    pads = ((1 - i, i), (1 - j, j))
    return lax.conv_general_dilated(
      x, kernels[i, j], (1, 1), pads, dimension_numbers=_NHWC
    )

  rows = [jnp.stack([phase(i, 0), phase(i, 1)], 3) for i in range(2)]
  return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, kernels.shape[-1])


@jax.custom_vjp
def _strided(x: Array, kernel: Array) -> Array:
  """A 4x4 convolution of stride 2; its input gradient is the transposed one, which
  runs fastest as four 2x2 convolutions rather than as one over dilated zeros."""
  pads = ((1, 1), (1, 1))
  return lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=_NHWC)


def _strided_forward(x, kernel):
  return _strided(x, kernel), (x, kernel)


def _strided_backward(saved, g):
  x, kernel = saved
  taps = kernel.swapaxes(2, 3)
  phases = [
    jnp.stack([taps[1 - i :: 2, 1 - j :: 2][::-1, ::-1] for j in range(2)])
    for i in range(2)
  ]
  pads = ((1, 1), (1, 1))
  _, by_kernel = jax.vjp(
    lambda k: lax.conv_general_dilated(x, k, (2, 2), pads, dimension_numbers=_NHWC),
    kernel,
  )
  return _interleaved(g, jnp.stack(phases)), by_kernel(g)[0]


_strided.defvjp(_strided_forward, _strided_backward)


# Weighted layers.


def orthogonal_rows(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Orthogonal initialisation of a kernel seen as [everything else, outputs]."""
  return nn.initializers.orthogonal()(key, shape, dtype)


def _fan_uniform(fan_in: int) -> Init:
  bound = fan_in**-0.5

  def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Conv(nn.Module):
  """Convolution with bias; `apply` is `conv`, `up_conv` or `down_conv`.

  The bias starts uniform in +-1/sqrt(fan in), as in BigGAN-PyTorch.
  """

  features: int
  size: int = 3
  bias: bool = True
  apply_kernel: Callable[[Array, Array], Array] = conv
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x = self.apply_kernel(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.bias:
      init = _fan_uniform(self.size**2 * shape[2])
      x += self.param('bias', init, (1, 1, 1, self.features)).astype(self.dtype)
    return x


class Dense(nn.Module):
  """x @ kernel + bias, [b, in] -> [b, features]."""

  features: int
  bias: bool = True
  init_kernel: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.init_kernel, shape)
    x = x.astype(self.dtype) @ kernel.astype(self.dtype)
    if self.bias:
      init = _fan_uniform(shape[0])
      x += self.param('bias', init, (1, self.features)).astype(self.dtype)
    return x


class Embed(nn.Module):
  """Row lookup; labels are integers [b], or weights over the classes [b, n]."""

  features: int
  n: int
  init_embedding: Init = orthogonal_rows
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, labels: Array) -> Array:
    table = self.param('embedding', self.init_embedding, (self.n, self.features))
    table = table.astype(self.dtype)
    if labels.ndim == 2:
      return labels.astype(self.dtype) @ table
    return table[labels]


# Spectral normalisation: a function on the variables, not on the layers, so that a
# network is normalised once per update however often it is applied, and a weight
# without a `u` is simply used as it is.


def init_spectral(
  key: Array, params: Tree, names: tuple[str, ...], vectors: int = 1
) -> dict[str, Any]:
  """A `u` [vectors, rows] ~ N(0, 1) and a log of sigma for every weight in `names`."""
  spectral = {}
  for i, (name, sub) in enumerate(sorted(params.items())):
    if not isinstance(sub, Mapping):
      continue
    found = [sub[n] for n in names if n in sub]
    if found:
      rows = found[0].shape[0] if 'embedding' in sub else found[0].shape[-1]
      u = jax.random.normal(jax.random.fold_in(key, i), (vectors, rows))
      spectral[name] = {'u': u, 'sigma': jnp.ones(vectors)}
    else:
      inner = init_spectral(jax.random.fold_in(key, i), sub, names, vectors)
      if inner:
        spectral[name] = inner
  return spectral


def spectral_normalize(
  params: Tree, spectral: Tree, *, eps: float, iterations: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Divides each weight that has a `u` by its largest singular value.

  Power iteration as in BigGAN-PyTorch layers.py: the refreshed u already enters
  sigma; u and v are constants to the gradient, sigma is not. Further rows of u
  follow the next singular values (Gram-Schmidt) and are only logged: no gradient
  passes them, and beyond the rank of a weight they become 0.

  Returns:
    The parameters with normalised weights, and `spectral` one iteration later.
  """
  params, after = dict(params), {}
  for name, entry in spectral.items():
    sub = params[name]
    if 'u' not in entry:
      params[name], after[name] = spectral_normalize(
        sub, entry, eps=eps, iterations=iterations
      )
      continue
    weight = 'kernel' if 'kernel' in sub else 'embedding'
    w = sub[weight]
    matrix = w.reshape(-1, w.shape[-1]) if weight == 'kernel' else w.T
    u = entry['u']
    for _ in range(iterations):
      u, sigma = _power_iteration(matrix, u, eps)
    params[name] = {**sub, weight: w / sigma[0]}
    after[name] = {'u': u, 'sigma': lax.stop_gradient(sigma)}
  return params, after


def _power_iteration(matrix: Array, u: Array, eps: float) -> tuple[Array, Array]:
  """One iteration for a matrix [rest, rows]; u [n, rows] -> u, sigma [n]."""
  fixed = lax.stop_gradient(matrix)
  us: list[Array] = []
  vs: list[Array] = []
  sigmas = []
  for i, row in enumerate(u):
    v = _normalized(_orthogonalized(fixed @ row, vs, eps), eps)
    vs.append(v)
    stretched = v @ (fixed if i else matrix)
    us.append(_normalized(_orthogonalized(lax.stop_gradient(stretched), us, eps), eps))
    sigmas.append(stretched @ us[-1])
  return jnp.stack(us), jnp.stack(sigmas)


def _normalized(x: Array, eps: float) -> Array:
  return x / jnp.maximum(jnp.linalg.norm(x), eps)


def _orthogonalized(x: Array, others: list[Array], eps: float) -> Array:
  for y in others:
    x = x - (x @ y) / jnp.maximum(y @ y, eps) * y
  return x


# Normalisation of activations.


class BatchNorm(nn.Module):
  """Normalises by the statistics of the whole mesh's batch, or of groups of devices.

  In training the stored statistics move by `momentum` towards the batch's; with
  momentum 1 they *are* the batch's, which is what standing statistics average.
  `ddof` is 1 for torch's stored variance, 0 for the one of BigGAN-PyTorch's `mybn`.
  """

  eps: float = 1e-5
  momentum: float = 0.1
  ddof: int = 1
  group: int = 0  # devices that share statistics; 0: all

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    shape = (1, 1, 1, x.shape[-1])
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    dtype = widened(x.dtype)
    if train and not self.is_initializing():
      wide = x.astype(dtype)
      axis, devices = (0, 1, 2), lax.axis_size(AXIS)
      moments = jnp.stack(
        [wide.mean(axis, keepdims=True), jnp.square(wide).mean(axis, keepdims=True)]
      )
      groups = None
      if self.group and self.group < devices:
        groups = [list(range(i, i + self.group)) for i in range(0, devices, self.group)]
        devices = self.group
      m, square = lax.pmean(moments, AXIS, axis_index_groups=groups)
      v = square - jnp.square(m)
      count = x.size // x.shape[-1] * devices
      stored = v * (count / max(count - self.ddof, 1))
      mean.value = (1 - self.momentum) * mean.value + self.momentum * m
      var.value = (1 - self.momentum) * var.value + self.momentum * stored
    else:
      m, v = mean.value, var.value
    scale = lax.rsqrt(v + self.eps)
    return (x.astype(dtype) - m) * scale


class Norm(nn.Module):
  """Batch norm, then a gain and bias per channel: learned, or told by a condition.

  `project(features, name=...)` turns the condition into 1 + gain and bias
  (BigGAN, appendix C); without it both are plain parameters.
  """

  stats: ModuleDef
  project: ModuleDef | None = None

  @nn.compact
  def __call__(self, x: Array, condition: Array | None, train: bool) -> Array:
    dtype, c = x.dtype, x.shape[-1]
    x = self.stats(name='stats')(x, train)
    if self.project is None:
      gain = self.param('gain', nn.initializers.ones, (1, 1, 1, c))
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, c))
    else:
      gain = 1 + self.project(c, name='gain')(condition)[:, None, None]
      bias = self.project(c, name='bias')(condition)[:, None, None]
    return (x * gain.astype(x.dtype) + bias.astype(x.dtype)).astype(dtype)


class Attention(nn.Module):
  """Self-attention over a feature map (SAGAN); keys and values are max-pooled 2x2."""

  conv: ModuleDef

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape

    def project(features: int, name: str) -> Array:
      return self.conv(features, size=1, bias=False, name=name)(x)

    query = project(c // 8, 'theta').reshape(b, h * w, -1)
    key = nn.max_pool(project(c // 8, 'phi'), (2, 2), (2, 2)).reshape(b, h * w // 4, -1)
    value = nn.max_pool(project(c // 2, 'g'), (2, 2), (2, 2)).reshape(b, h * w // 4, -1)
    scores = jnp.einsum('bqc,bkc->bqk', query, key)
    wide = scores.astype(widened(scores.dtype))
    weights = jax.nn.softmax(wide).astype(scores.dtype)
    out = jnp.einsum('bqk,bkc->bqc', weights, value).reshape(b, h, w, c // 2)
    out = self.conv(c, size=1, bias=False, name='o')(out)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return x + gamma.astype(x.dtype) * out


# The growing GANs: learning rates equalized at run time, and their normalisations.


def leaky_relu(x: Array) -> Array:
  return jnp.where(x >= 0, x, 0.2 * x)


def _equalized(
  module: nn.Module, shape: tuple[int, ...], gain: float, lrmul: float, equalized: bool
) -> Array:
  """A kernel of standard deviation gain / sqrt(fan in): by a factor at run time, or,
  without `equalized`, from the start. Stored values are 1 / lrmul times as large."""
  he = gain * math.prod(shape[:-1]) ** -0.5
  start, factor = (1 / lrmul, he * lrmul) if equalized else (he / lrmul, lrmul)
  return module.param('kernel', nn.initializers.normal(start), shape) * factor


class EqualizedConv(nn.Module):
  """Convolution with equalized learning rate (ProGAN, section 4.1); bias from 0."""

  features: int
  size: int = 3
  gain: float = 2**0.5
  bias: bool = True
  apply_kernel: Callable[[Array, Array], Array] = conv
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = _equalized(self, shape, self.gain, 1.0, self.equalized)
    x = self.apply_kernel(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, self.features))
      x += bias.astype(self.dtype)
    return x


class EqualizedDense(nn.Module):
  """Dense layer with equalized learning rate, [b, in] -> [b, *features].

  Several features are a feature map, whose bias is one a channel. `lrmul` makes
  kernel and bias learn that much slower than the optimizer's rate.
  """

  features: tuple[int, ...]
  gain: float = 2**0.5
  lrmul: float = 1.0
  bias: bool = True
  equalized: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], math.prod(self.features))
    kernel = _equalized(self, shape, self.gain, self.lrmul, self.equalized)
    x = x.astype(self.dtype) @ kernel.astype(self.dtype)
    x = x.reshape(-1, *self.features)
    if self.bias:
      one = (1,) * len(self.features) + self.features[-1:]
      bias = self.param('bias', nn.initializers.zeros, one) * self.lrmul
      x += bias.astype(self.dtype)
    return x


def _root_mean_square(x: Array, axis: Any, eps: float = 1e-8) -> Array:
  """1 / sqrt(mean of squares + eps), at least in float32, as x's type."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  square = jnp.square(wide).mean(axis, keepdims=True)
  return lax.rsqrt(square + eps).astype(x.dtype)


def pixel_norm(x: Array) -> Array:
  """Channels to a root mean square of 1, at each pixel (ProGAN, section 4.2)."""
  return x * _root_mean_square(x, -1)


def instance_norm(x: Array) -> Array:
  """Each channel of each image to mean 0 and variance 1, [b, h, w, c]."""
  x = x - x.mean((1, 2), keepdims=True)
  return x * _root_mean_square(x, (1, 2))


def blur(x: Array, taps: tuple[int, ...] = (1, 2, 1)) -> Array:
  """A separable low-pass filter with zero padding to the same size, [b, h, w, c].

  By shifts and additions: XLA's depthwise convolutions are slow on CPU.
  """
  n, total = len(taps), sum(taps)
  for axis in (1, 2):
    pads = [((n - 1) // 2, n // 2) if a == axis else (0, 0) for a in range(4)]
    padded, size = jnp.pad(x, pads), x.shape[axis]
    shifted = [
      lax.slice_in_dim(padded, i, i + size, axis=axis) * (tap / total)
      for i, tap in enumerate(taps)
    ]
    x = sum(shifted[1:], shifted[0])
  return x


def minibatch_stddev(x: Array, group: int = 4, features: int = 1) -> Array:
  """Appends the mean standard deviation over groups of the batch as last channels.

  A group is `group` consecutive examples of the *global* batch, so that the number
  of devices changes nothing; a group that spans devices is gathered over the mesh
  axis. The original's groups are strided: the same function of a permuted batch.
  Each of `features` channels averages over its part of the channels and all pixels.
  """
  b, h, w, c = x.shape
  devices = lax.axis_size(AXIS)
  group = min(group, b * devices)
  if b * devices % group:
    raise UserError(
      f'a batch of {b * devices} does not divide into groups of {group} for the '
      'minibatch standard deviation (model.mbstd_group).'
    )
  spans = b % group != 0
  y = lax.all_gather(x, AXIS, tiled=True) if spans else x
  wide = y.astype(jnp.promote_types(x.dtype, jnp.float32))
  wide = wide.reshape(-1, group, h, w, features, c // features)
  variance = jnp.square(wide - wide.mean(1, keepdims=True)).mean(1)
  stddev = jnp.sqrt(variance + 1e-8).mean((1, 2, 4)).astype(x.dtype)
  stddev = jnp.repeat(stddev, group, axis=0)
  if spans:
    stddev = lax.dynamic_slice_in_dim(stddev, lax.axis_index(AXIS) * b, b)
  tiled = jnp.broadcast_to(stddev[:, None, None], (b, h, w, features))
  return jnp.concatenate([x, tiled], -1)
