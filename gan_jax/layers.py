"""Layers of the three families. Images are NHWC, kernels HWIO, embeddings [n, dim]."""

import math
from collections.abc import Callable, Iterator, Mapping
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


def platform() -> str:
  """Of the devices of the mesh that is traced for, such as 'cpu', 'tpu' or 'gpu'.

  Outside a mesh this machine's; '' under a mesh of no devices in particular, for
  which every layer takes the form it is defined by.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.default_backend()
  device = mesh.abstract_device
  return device.platform if device else ''


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
  """`conv(upsample(x), kernel)` for a 3x3 kernel, in the form that suits the device.

  Every output pixel of one parity sees only two distinct input rows and columns, so
  the 3x3 kernel folds into a 2x2 kernel for each parity: 4/9 of the multiplications.
  A 1x1 kernel commutes with the repetition, or writes four pixels itself.
  """
  if kernel.shape[:2] == (1, 1):
    if platform() == 'tpu':
      return _four_times(x, kernel)
    return upsample(conv(x, kernel))
  if up_form(platform(), x.shape[2]) == 'plain':
    return conv(upsample(x), kernel)
  return _phased(x, kernel)


def down_conv(x: Array, kernel: Array) -> Array:
  """`downsample(conv(x, kernel))`, in the form that suits the device; folded it is one
  strided convolution, whose kernel is the mean of four shifted ones."""
  if kernel.shape[:2] == (1, 1):
    if platform() != 'tpu':
      return conv(downsample(x), kernel)
    four = jnp.broadcast_to(kernel / 4, (2, 2, *kernel.shape[2:]))
    return _strided_conv(x, four, 0)
  form = down_form(platform(), x.shape[2])
  if form == 'plain':
    return downsample(conv(x, kernel))
  folded = _shifted_sum(kernel) / 4
  return _strided(x, folded) if form == 'phases' else _strided_conv(x, folded, 1)


def up_form(device: str, size: int) -> str:
  """The fastest form of `up_conv` for an input of this width on this kind of device.

  Folding pays where pictures outweigh kernels, which are the larger the smaller the
  map is. On a CPU it always does (experiments/throughput); on a TPU as estimated by
  its compiler (experiments/step_speed).
  """
  if device == 'cpu' or (device == 'tpu' and size > 8):
    return 'phases'
  return 'plain'


def down_form(device: str, size: int) -> str:
  """As `up_form`, for the input of `down_conv`."""
  if device == 'cpu':
    return 'phases'
  return 'strided' if device == 'tpu' and size > 16 else 'plain'


def _shifted_sum(kernel: Array) -> Array:
  """3x3 -> 4x4: the kernel after nearest-2x, or four times that before a 2x2 mean."""
  padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  shifted = [padded[i : i + 4, j : j + 4] for i in range(2) for j in range(2)]
  return sum(shifted[1:], shifted[0])


def _parity_kernels(kernel: Array) -> Array:
  """3x3 -> [2, 2, 2, 2, c, o]: for each parity (i, j) of an output pixel its 2x2."""
  k0, k1, k2 = kernel
  rows = jnp.stack([jnp.stack([k0, k1 + k2]), jnp.stack([k0 + k1, k2])])
  k0, k1, k2 = jnp.moveaxis(rows, 2, 0)
  return jnp.stack([jnp.stack([k0, k1 + k2], 2), jnp.stack([k0 + k1, k2], 2)], 1)


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

  if platform() == 'tpu':  # where adding zeros is cheaper than moving pixels
    zero = jnp.zeros((), x.dtype)
    none = (0, 0, 0)
    spread = [
      lax.pad(phase(i, j), zero, (none, (i, 1 - i, 1), (j, 1 - j, 1), none))
      for i in range(2)
      for j in range(2)
    ]
    return sum(spread[1:], spread[0])
  rows = [jnp.stack([phase(i, 0), phase(i, 1)], 3) for i in range(2)]
  return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, kernels.shape[-1])


@jax.custom_vjp
def _phased(x: Array, kernel: Array) -> Array:
  """`conv(upsample(x), kernel)` by the four parities of its pixels.

  It is the transpose of a 4x4 convolution of stride 2, which its gradients are by.
  """
  return _interleaved(x, _parity_kernels(kernel))


def _phased_forward(x, kernel):
  return _phased(x, kernel), (x, kernel)


def _phased_backward(saved, g):
  x, kernel = saved

  def transposed(kernel):
    turned = _shifted_sum(kernel)[::-1, ::-1].swapaxes(2, 3)
    return _strided_conv(g, turned, 1)

  by_x, by_kernel = jax.vjp(transposed, kernel)
  return by_x, by_kernel(x)[0]


_phased.defvjp(_phased_forward, _phased_backward)


@jax.custom_vjp
def _four_times(x: Array, kernel: Array) -> Array:
  """`upsample(conv(x, kernel))` for a 1x1 kernel, which writes four pixels itself."""
  pads = ((1, 1), (1, 1))
  four = jnp.broadcast_to(kernel, (2, 2, *kernel.shape[2:]))
  return lax.conv_general_dilated(
    x, four, (1, 1), pads, (2, 2), dimension_numbers=_NHWC
  )


def _four_times_forward(x, kernel):
  return _four_times(x, kernel), (x, kernel)


def _four_times_backward(saved, g):
  return jax.vjp(conv, *saved)[1](4 * downsample(g))


_four_times.defvjp(_four_times_forward, _four_times_backward)


def _strided_conv(x: Array, kernel: Array, pad: int) -> Array:
  pads = ((pad, pad), (pad, pad))
  return lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=_NHWC)


@jax.custom_vjp
def _strided(x: Array, kernel: Array) -> Array:
  """A 4x4 convolution of stride 2; its input gradient is the transposed one, which
  a CPU runs fastest as four 2x2 convolutions rather than as one over dilated zeros."""
  return _strided_conv(x, kernel, 1)


def _strided_forward(x, kernel):
  return _strided(x, kernel), (x, kernel)


def _strided_backward(saved, g):
  x, kernel = saved
  taps = kernel.swapaxes(2, 3)
  phases = [
    jnp.stack([taps[1 - i :: 2, 1 - j :: 2][::-1, ::-1] for j in range(2)])
    for i in range(2)
  ]
  _, by_kernel = jax.vjp(lambda k: _strided_conv(x, k, 1), kernel)
  return _interleaved(g, jnp.stack(phases)), by_kernel(g)[0]


_strided.defvjp(_strided_forward, _strided_backward)


# Weighted layers.


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
  """x [..., c] + bias [1, ..., c]; the bias's gradient adds up as a matrix product."""
  return x + bias


def _add_bias_backward(bias, g):
  rows = g.reshape(-1, g.shape[-1])
  ones, wide = jnp.ones(len(rows), g.dtype), widened(g.dtype)
  highest = lax.Precision.HIGHEST
  by_bias = jnp.dot(ones, rows, precision=highest, preferred_element_type=wide)
  return g, by_bias.astype(bias.dtype).reshape(bias.shape)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_backward)


def _normalized_product(
  module: nn.Module, name: str, x: Array, weight: Array
) -> tuple[Array, Array]:
  """x and weight in the module's type, with the weight's spectral scale in either.

  The larger of the two is left as it is: for a few images on a chip that is the
  weight, which then is read by the product alone. For a batch of any size, as in an
  export, the weight is scaled.
  """
  dtype: Any = module.dtype
  if module.has_variable('scales', name):
    scale = module.get_variable('scales', name)
    if isinstance(x.size, int) and weight.size > x.size:
      x = x.astype(scale.dtype) * scale
    else:
      weight = weight * scale
  return x.astype(dtype), weight.astype(dtype)


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
    x = self.apply_kernel(*_normalized_product(self, 'kernel', x, kernel))
    if self.bias:
      init = _fan_uniform(self.size**2 * shape[2])
      bias = self.param('bias', init, (1, 1, 1, self.features))
      x = add_bias(x, bias.astype(self.dtype))
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
    x, kernel = _normalized_product(self, 'kernel', x, kernel)
    x @= kernel
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
    if labels.ndim == 2:
      rows = labels.astype(self.dtype) @ table.astype(self.dtype)
    else:
      rows = table[labels].astype(self.dtype)
    if self.has_variable('scales', 'embedding'):
      rows *= self.get_variable('scales', 'embedding').astype(self.dtype)
    return rows


# Spectral normalisation: a function on the variables, not on the layers, so that a
# network is normalised once per pass however often it is applied. It gives a scale for
# each weight that has a `u`; layers apply it to the weight or, where that is less
# work, to what the weight is multiplied with (the collection `scales`).


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


def spectral_scales(
  params: Tree,
  spectral: Tree,
  *,
  eps: float,
  iterations: int = 1,
  shared: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """1 / (the largest singular value) of each weight that has a `u`.

  Power iteration as in BigGAN-PyTorch layers.py: the refreshed u already enters
  sigma; u and v are constants to the gradient, sigma is not. Further rows of u
  follow the next singular values (Gram-Schmidt) and are only logged: no gradient
  passes them, and beyond the rank of a weight they become 0.

  Args:
    shared: under the mesh axis each device goes over its part of every weight only.

  Returns:
    The scales, named as the weights, and `spectral` one iteration later.
  """
  matrices: dict[tuple[str, ...], Array] = {}
  weights: dict[tuple[str, ...], str] = {}
  u: dict[tuple[str, ...], Array] = {}
  for path, entry in _entries(spectral):
    sub = params
    for name in path:
      sub = sub[name]
    weights[path] = 'kernel' if 'kernel' in sub else 'embedding'
    w = sub[weights[path]]
    u[path] = entry['u']
    matrices[path] = w.reshape(-1, w.shape[-1]) if 'kernel' in sub else w.T
  with jax.named_scope('spectral_norm'):
    fixed = lax.stop_gradient(matrices)
    iterate = _iterate_shared if shared else _iterate
    v = sigma = u
    for _ in range(iterations):
      u, v, sigma = iterate(fixed, u, eps)
  scales: dict[str, Any] = {}
  after: dict[str, Any] = {}
  for path, name in weights.items():
    first = _singular_value(matrices[path], u[path][0], v[path][0], sigma[path][0])
    _put(scales, path, {name: 1 / first})
    _put(after, path, {'u': u[path], 'sigma': sigma[path]})
  return scales, after


def _entries(spectral: Tree, path: tuple[str, ...] = ()) -> Iterator[Any]:
  for name, entry in spectral.items():
    if 'u' in entry:
      yield (*path, name), entry
    else:
      yield from _entries(entry, (*path, name))


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value


@jax.custom_vjp
def _singular_value(matrix: Array, u: Array, v: Array, sigma: Array) -> Array:
  """sigma = v W u, which is known; its gradient by W is v u^T and needs no W."""
  del matrix, u, v
  return sigma


def _singular_value_forward(matrix, u, v, sigma):
  return sigma, (u, v, sigma)


def _singular_value_backward(saved, g):
  u, v, sigma = saved
  by_matrix = (g * v)[:, None] * u[None]
  return by_matrix, jnp.zeros_like(u), jnp.zeros_like(v), jnp.zeros_like(sigma)


_singular_value.defvjp(_singular_value_forward, _singular_value_backward)


def _iterate(matrices, us, eps: float):
  """One power iteration of matrices [rest, rows], u [n, rows] -> u, v, sigma."""
  new_u, new_v, sigma = {}, {}, {}
  for path, matrix in matrices.items():
    found = _power_iteration(matrix, us[path], eps)
    new_u[path], new_v[path], sigma[path] = found
  return new_u, new_v, sigma


def _iterate_shared(matrices, us, eps: float):
  """As `_iterate`; each device reads some rows, and one all-reduce adds them up.

  v = W u needs all of u, and W^T v is a sum over rows; the length that v is divided by
  commutes with it. With several vectors, which Gram-Schmidt mixes, all read all.
  """
  devices, me = lax.axis_size(AXIS), lax.axis_index(AXIS)
  single = {path: m for path, m in matrices.items() if len(us[path]) == 1}
  others = {path: m for path, m in matrices.items() if path not in single}
  partial = {}
  for path, matrix in single.items():
    rest = matrix.shape[0]
    count = -(-rest // devices)
    start = jnp.minimum(me * count, rest - count)
    part = lax.dynamic_slice_in_dim(matrix, start, count)
    mine = start + jnp.arange(count) >= me * count  # the last parts may overlap
    v = jnp.where(mine, part @ us[path][0], 0)
    whole = jnp.zeros(rest, v.dtype)
    whole = lax.dynamic_update_slice_in_dim(whole, v, start, 0)
    partial[path] = whole, v @ part
  new_u, new_v, sigma = _iterate(others, us, eps)
  for path, (v, stretched) in lax.psum(partial, AXIS).items():
    length = jnp.maximum(jnp.linalg.norm(v), eps)
    stretched /= length
    u = _normalized(stretched, eps)
    new_u[path], new_v[path] = u[None], (v / length)[None]
    sigma[path] = (stretched @ u)[None]
  return new_u, new_v, sigma


def _power_iteration(matrix: Array, u: Array, eps: float) -> tuple[Array, Array, Array]:
  """One iteration for a matrix [rest, rows]; u [n, rows] -> u, v, sigma [n]."""
  us: list[Array] = []
  vs: list[Array] = []
  sigmas = []
  for row in u:
    v = _normalized(_orthogonalized(matrix @ row, vs, eps), eps)
    vs.append(v)
    stretched = v @ matrix
    us.append(_normalized(_orthogonalized(stretched, us, eps), eps))
    sigmas.append(stretched @ us[-1])
  return jnp.stack(us), jnp.stack(vs), jnp.stack(sigmas)


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
    out = attend(query, key, value).reshape(b, h, w, c // 2)
    out = self.conv(c, size=1, bias=False, name='o')(out)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return x + gamma.astype(x.dtype) * out


_SCORES = 2**22  # that are held at a time: those of 4096 queries and 1024 keys


def attend(query: Array, key: Array, value: Array) -> Array:
  """softmax(query key^T) value: [b, q, c], [b, k, c], [b, k, v] -> [b, q, v].

  A few images at a time, whose scores fit a processor's own memory, and which are
  computed again for the gradient (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
  A batch of any size, as in an export, is taken at once.
  """
  b, most = query.shape[0], max(_SCORES // (query.shape[1] * key.shape[1]), 1)
  if not isinstance(b, int) or b <= most:
    return _attended(query, key, value)
  n = next(i for i in range(most, 0, -1) if b % i == 0)
  some = [x.reshape(b // n, n, *x.shape[1:]) for x in (query, key, value)]
  return lax.map(lambda x: _attended(*x), some).reshape(*query.shape[:2], -1)


@jax.custom_vjp
def _attended(query: Array, key: Array, value: Array) -> Array:
  return _attended_forward(query, key, value)[0]


def _scores(query, key):
  wide = widened(query.dtype)
  return jnp.einsum('bqc,bkc->bqk', query, key, preferred_element_type=wide)


def _attended_forward(query, key, value):
  scores = _scores(query, key)
  most = scores.max(-1, keepdims=True)
  weights = jnp.exp(scores - most).astype(value.dtype)
  # Softmax's sum is one more channel of the values, which the same product adds up.
  value_1 = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
  out = jnp.einsum('bqk,bkc->bqc', weights, value_1, preferred_element_type=most.dtype)
  out, total = out[..., :-1] / out[..., -1:], out[..., -1:]
  out = out.astype(value.dtype)
  return out, (query, key, value, out, most + jnp.log(total))


def _attended_backward(saved, g):
  query, key, value, out, log_total = saved
  weights = jnp.exp(_scores(query, key) - log_total)
  along = jnp.sum(g * out, -1, keepdims=True, dtype=log_total.dtype)
  by_scores = weights * (_scores(g, value) - along)
  weights, by_scores = weights.astype(value.dtype), by_scores.astype(query.dtype)
  return (
    jnp.einsum('bqk,bkc->bqc', by_scores, key),
    jnp.einsum('bqk,bqc->bkc', by_scores, query),
    jnp.einsum('bqk,bqc->bkc', weights, g),
  )


_attended.defvjp(_attended_forward, _attended_backward)


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
