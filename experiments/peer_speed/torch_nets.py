"""The networks of cases.py in plain PyTorch, the way its users write them.

Layers and parameters have the names that they have in gan_jax, so that weights can be
lent; a `weight` is gan_jax's `kernel` or `embedding`.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# BigGAN, with the order of operations of BigGAN-PyTorch.


class Normalized(nn.Module):
  """A weight over its spectral norm: one power iteration with each forward pass."""

  def __init__(self, *shape: int, bias: bool = True, eps: float):
    super().__init__()
    self.weight = nn.Parameter(torch.empty(shape))
    nn.init.normal_(self.weight, std=0.02)
    self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
    self.register_buffer('u', torch.randn(shape[0]))
    self.eps = eps

  def normalized(self) -> Tensor:
    matrix = self.weight.flatten(1)
    with torch.no_grad():
      v = F.normalize(self.u @ matrix, dim=0, eps=self.eps)
    stretched = matrix @ v
    with torch.no_grad():
      u = F.normalize(stretched, dim=0, eps=self.eps)
      if self.training:
        self.u.copy_(u)
    return self.weight / (stretched @ u.clone())


class Conv(Normalized):
  def __init__(self, before: int, after: int, size: int = 3, **options):
    super().__init__(after, before, size, size, **options)

  def forward(self, x: Tensor) -> Tensor:
    padding = self.weight.shape[-1] // 2
    return F.conv2d(x, self.normalized(), self.bias, padding=padding)


class Dense(Normalized):
  def forward(self, x: Tensor) -> Tensor:
    return F.linear(x, self.normalized(), self.bias)


class NormalizedEmbedding(Normalized):
  def forward(self, labels: Tensor) -> Tensor:
    return F.embedding(labels, self.normalized())


class ConditionalNorm(nn.Module):
  """Batch norm with a gain and bias of the class, or of what `project` makes of it."""

  def __init__(self, c: int, project, eps: float):
    super().__init__()
    self.gain, self.bias = project(c), project(c)
    self.stats = nn.BatchNorm2d(c, eps=eps, affine=False)
    self.stats.num_batches_tracked = None

  def forward(self, x: Tensor, condition: Tensor) -> Tensor:
    gain = 1 + self.gain(condition)[:, :, None, None]
    return torch.addcmul(self.bias(condition)[:, :, None, None], self.stats(x), gain)


class FinalNorm(nn.Module):
  def __init__(self, c: int, eps: float):
    super().__init__()
    self.gain, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
    self.register_buffer('mean', torch.zeros(c))
    self.register_buffer('var', torch.ones(c))
    self.eps = eps

  def forward(self, x: Tensor) -> Tensor:
    state = self.mean, self.var, self.gain, self.bias
    return F.batch_norm(x, *state, self.training, 0.1, self.eps)


def class_embedding(c: int, classes: int) -> nn.Embedding:
  table = nn.Embedding(classes, c)
  nn.init.zeros_(table.weight)
  return table


class Attention(nn.Module):
  def __init__(self, c: int, eps: float):
    super().__init__()
    options = dict(size=1, bias=False, eps=eps)
    self.theta, self.phi = Conv(c, c // 8, **options), Conv(c, c // 8, **options)
    self.g, self.o = Conv(c, c // 2, **options), Conv(c // 2, c, **options)
    self.gamma = nn.Parameter(torch.zeros(()))

  def forward(self, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    query = self.theta(x).flatten(2)
    key = F.max_pool2d(self.phi(x), 2).flatten(2)
    value = F.max_pool2d(self.g(x), 2).flatten(2)
    weights = torch.softmax(torch.bmm(query.transpose(1, 2), key), -1)
    out = torch.bmm(value, weights.transpose(1, 2)).view(b, -1, h, w)
    return x + self.gamma * self.o(out)


class GBlock(nn.Module):
  def __init__(self, before: int, after: int, norm, eps: float):
    super().__init__()
    self.bn1, self.bn2 = norm(before), norm(after)
    self.conv1 = Conv(before, after, eps=eps)
    self.conv2 = Conv(after, after, eps=eps)
    self.conv_sc = Conv(before, after, 1, eps=eps)

  def forward(self, x: Tensor, condition: Tensor) -> Tensor:
    h = F.relu(self.bn1(x, condition), inplace=True)
    h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
    h = F.relu(self.bn2(self.conv1(h), condition), inplace=True)
    return self.conv2(h) + self.conv_sc(x)


class BigGenerator(nn.Module):
  def __init__(self, nets: dict):
    super().__init__()
    widths, eps = nets['g_widths'], nets['sn_eps']
    self.hier, self.blocks = nets['hier'], len(widths) - 1
    self.attention, self.width = nets['g_attention'], widths[0]
    chunk = nets['dim_z'] // len(widths) if self.hier else nets['dim_z']
    if self.hier:
      self.shared = nn.Embedding(nets['n_classes'], nets['shared_dim'])
      nn.init.orthogonal_(self.shared.weight)
      inputs = chunk + nets['shared_dim']
      project = lambda c: Dense(c, inputs, bias=False, eps=eps)
    else:
      project = lambda c: class_embedding(c, nets['n_classes'])
    norm = lambda c: ConditionalNorm(c, project, nets['bn_eps'])
    self.linear = Dense(16 * widths[0], chunk, eps=eps)
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
      self.add_module(f'block{i}', GBlock(before, after, norm, eps))
      if i in self.attention:
        self.add_module(f'attention{i}', Attention(after, eps))
    self.norm = FinalNorm(widths[-1], nets['bn_eps'])
    self.rgb = Conv(widths[-1], 3, eps=eps)

  def forward(self, z: Tensor, labels: Tensor) -> Tensor:
    conditions = [labels] * self.blocks
    if self.hier:
      shared = self.shared(labels)
      z, *chunks = z.chunk(self.blocks + 1, 1)
      conditions = [torch.cat([shared, c], 1) for c in chunks]
    x = self.linear(z).view(-1, 4, 4, self.width).permute(0, 3, 1, 2)
    for i, condition in enumerate(conditions):
      x = self.get_submodule(f'block{i}')(x, condition)
      if i in self.attention:
        x = self.get_submodule(f'attention{i}')(x)
    return torch.tanh(self.rgb(F.relu(self.norm(x), inplace=True)))


class DBlock(nn.Module):
  def __init__(self, before: int, after: int, down: bool, first: bool, eps: float):
    super().__init__()
    self.down, self.first = down, first
    self.conv1 = Conv(before, after, eps=eps)
    self.conv2 = Conv(after, after, eps=eps)
    self.shortcut = down or before != after
    if self.shortcut:
      self.conv_sc = Conv(before, after, 1, eps=eps)

  def forward(self, x: Tensor) -> Tensor:
    pool = (lambda x: F.avg_pool2d(x, 2)) if self.down else (lambda x: x)
    h = self.conv1(x if self.first else F.relu(x))
    h = pool(self.conv2(F.relu(h, inplace=True)))
    if self.first:
      return h + self.conv_sc(pool(x))
    return h + (pool(self.conv_sc(x)) if self.shortcut else x)


class BigDiscriminator(nn.Module):
  def __init__(self, nets: dict):
    super().__init__()
    eps, before = nets['sn_eps'], 3
    self.attention, self.blocks = nets['d_attention'], len(nets['d_widths'])
    for i, after in enumerate(nets['d_widths']):
      block = DBlock(before, after, i < nets['downs'], i == 0, eps)
      self.add_module(f'block{i}', block)
      if i in self.attention:
        self.add_module(f'attention{i}', Attention(after, eps))
      before = after
    self.linear = Dense(1, before, eps=eps)
    self.embed = NormalizedEmbedding(nets['n_classes'], before, bias=False, eps=eps)

  def forward(self, x: Tensor, labels: Tensor) -> Tensor:
    for i in range(self.blocks):
      x = self.get_submodule(f'block{i}')(x)
      if i in self.attention:
        x = self.get_submodule(f'attention{i}')(x)
    h = F.relu(x, inplace=True).sum((2, 3))
    return self.linear(h) + (self.embed(labels) * h).sum(1, keepdim=True)


# The growing GANs, at their final resolution and faded in.


class EqualizedConv(nn.Module):
  def __init__(
    self,
    before: int,
    after: int,
    size: int = 3,
    gain: float = 2**0.5,
    bias: bool = True,
  ):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(after, before, size, size))
    self.bias = nn.Parameter(torch.zeros(after)) if bias else None
    self.scale, self.padding = gain / math.sqrt(before * size**2), size // 2

  def forward(self, x: Tensor) -> Tensor:
    return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class PooledConv(EqualizedConv):
  """3x3 convolution, mean over 2x2, bias."""

  def forward(self, x: Tensor) -> Tensor:
    x = F.avg_pool2d(F.conv2d(x, self.weight * self.scale, padding=1), 2)
    return x + self.bias[:, None, None]


class EqualizedDense(nn.Module):
  def __init__(self, before: int, after: int, gain: float = 2**0.5, lrmul: float = 1.0):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(after, before) / lrmul)
    self.bias = nn.Parameter(torch.zeros(after))
    self.scale, self.lrmul = gain / math.sqrt(before) * lrmul, lrmul

  def forward(self, x: Tensor) -> Tensor:
    return F.linear(x, self.weight * self.scale, self.bias * self.lrmul)


class FirstMap(nn.Module):
  """z -> 4x4 with one bias a channel."""

  def __init__(self, before: int, after: int):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(16 * after, before))
    self.bias = nn.Parameter(torch.zeros(after))
    self.scale = 2**0.5 / 4 / math.sqrt(before)

  def forward(self, z: Tensor) -> Tensor:
    x = F.linear(z, self.weight * self.scale).view(len(z), 4, 4, -1) + self.bias
    return x.permute(0, 3, 1, 2)


def act(x: Tensor) -> Tensor:
  return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
  return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Blur(nn.Module):
  def __init__(self, c: int):
    super().__init__()
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = (taps[:, None] * taps / 16).expand(c, 1, 3, 3).contiguous()
    self.register_buffer('kernel', kernel, persistent=False)

  def forward(self, x: Tensor) -> Tensor:
    return F.conv2d(x, self.kernel, padding=1, groups=len(self.kernel))


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
  b, c, h, w = x.shape
  y = x.reshape(-1, group, c, h, w)
  deviation = (y.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
  deviation = deviation.repeat_interleave(group).view(b, 1, 1, 1)
  return torch.cat([x, deviation.expand(b, 1, h, w)], 1)


class GrowingDiscriminator(nn.Module):
  def __init__(self, nets: dict, blur: bool):
    super().__init__()
    hidden, *widths = nets['d_widths']
    self.sizes = [4 << i for i in range(len(widths))]
    for size, width in zip(self.sizes, widths):
      self.add_module(f'rgb{size}', EqualizedConv(3, width, 1))
    for size, below, width in zip(self.sizes[1:], widths, widths[1:]):
      self.add_module(f'conv{size}', EqualizedConv(width, width))
      self.add_module(f'blur{size}', Blur(width) if blur else nn.Identity())
      self.add_module(f'conv{size}_down', PooledConv(width, below))
    self.conv4 = EqualizedConv(widths[0] + 1, widths[0])
    self.dense0 = EqualizedDense(16 * widths[0], hidden)
    self.dense1 = EqualizedDense(hidden, 1, gain=1)

  def forward(self, x: Tensor) -> Tensor:
    layer = self.get_submodule
    x = act(layer(f'rgb{self.sizes[-1]}')(x))
    for size in self.sizes[:0:-1]:
      x = layer(f'blur{size}')(act(layer(f'conv{size}')(x)))
      x = act(layer(f'conv{size}_down')(x))
    x = act(self.conv4(minibatch_stddev(x)))
    x = x.permute(0, 2, 3, 1).flatten(1)
    return self.dense1(act(self.dense0(x)))


class ProgressiveGenerator(nn.Module):
  def __init__(self, nets: dict):
    super().__init__()
    widths = nets['g_widths'][1:]
    self.sizes = [4 << i for i in range(len(widths))]
    self.dense = FirstMap(nets['dim_z'], widths[0])
    self.conv4 = EqualizedConv(widths[0], widths[0])
    for size, width in zip(self.sizes, widths):
      self.add_module(f'rgb{size}', EqualizedConv(width, 3, 1, gain=1))
    for size, below, width in zip(self.sizes[1:], widths, widths[1:]):
      self.add_module(f'conv{size}_up', EqualizedConv(below, width))
      self.add_module(f'conv{size}', EqualizedConv(width, width))

  def forward(self, z: Tensor) -> Tensor:
    layer = self.get_submodule
    x = pixel_norm(act(self.dense(pixel_norm(z))))
    x = pixel_norm(act(self.conv4(x)))
    for size in self.sizes[1:]:
      x = F.interpolate(x, scale_factor=2)
      x = pixel_norm(act(layer(f'conv{size}_up')(x)))
      x = pixel_norm(act(layer(f'conv{size}')(x)))
    return layer(f'rgb{self.sizes[-1]}')(x)


class Epilogue(nn.Module):
  def __init__(self, c: int):
    super().__init__()
    self.strength = nn.Parameter(torch.zeros(c, 1, 1))
    self.bias = nn.Parameter(torch.zeros(c, 1, 1))
    self.style = EqualizedDense(512, 2 * c, gain=1)

  def forward(self, x: Tensor, noise: Tensor, w: Tensor) -> Tensor:
    x = act(torch.addcmul(x, noise, self.strength) + self.bias)
    scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
    return torch.addcmul(shift, F.instance_norm(x, eps=1e-8), scale + 1)


class Mapping(nn.Sequential):
  def __init__(self):
    super().__init__()
    for i in range(8):
      self.add_module(f'dense{i}', EqualizedDense(512, 512, lrmul=0.01))

  def forward(self, z: Tensor) -> Tensor:
    x = pixel_norm(z)
    for layer in self:
      x = act(layer(x))
    return x


class Synthesis(nn.Module):
  def __init__(self, widths: list[int]):
    super().__init__()
    self.sizes = [4 << i for i in range(len(widths))]
    self.const = nn.Parameter(torch.ones(1, widths[0], 4, 4))
    self.conv4 = EqualizedConv(widths[0], widths[0], bias=False)
    for i, (size, width) in enumerate(zip(self.sizes, widths)):
      self.add_module(f'layer{2 * i}', Epilogue(width))
      self.add_module(f'layer{2 * i + 1}', Epilogue(width))
      self.add_module(f'rgb{size}', EqualizedConv(width, 3, 1, gain=1))
    for size, below, width in zip(self.sizes[1:], widths, widths[1:]):
      self.add_module(f'conv{size}_up', EqualizedConv(below, width, bias=False))
      self.add_module(f'blur{size}', Blur(width))
      self.add_module(f'conv{size}', EqualizedConv(width, width, bias=False))

  def forward(self, ws: Tensor, noise: list[Tensor]) -> Tensor:
    layer = self.get_submodule
    finish = lambda x, i: layer(f'layer{i}')(x, noise[i], ws[:, i])
    x = finish(self.const.expand(len(ws), -1, -1, -1), 0)
    x = finish(self.conv4(x), 1)
    for i, size in enumerate(self.sizes[1:], 1):
      x = layer(f'conv{size}_up')(F.interpolate(x, scale_factor=2))
      x = finish(layer(f'blur{size}')(x), 2 * i)
      x = finish(layer(f'conv{size}')(x), 2 * i + 1)
    return layer(f'rgb{self.sizes[-1]}')(x)


class StyleGenerator(nn.Module):
  def __init__(self, nets: dict):
    super().__init__()
    self.mapping, self.synthesis = Mapping(), Synthesis(nets['g_widths'][1:])
    self.layers = 2 * len(self.synthesis.sizes)
    self.register_buffer('w_avg', torch.zeros(512))

  def forward(self, z: Tensor, z2: Tensor, cutoff: int, noise: list[Tensor]) -> Tensor:
    """In training, with styles mixed from the cutoff on."""
    w, w2 = self.mapping(z), self.mapping(z2)
    with torch.no_grad():
      self.w_avg.lerp_(w.mean(0), 1 - 0.995)
    below = torch.arange(self.layers)[None, :, None] < cutoff
    return self.synthesis(torch.where(below, w[:, None], w2[:, None]), noise)

  def draw(self, z: Tensor, noise: list[Tensor], psi: float) -> Tensor:
    """Truncated in the first eight layers."""
    w = self.mapping(z)[:, None]
    near = self.w_avg.lerp(w, psi).expand(-1, min(8, self.layers), -1)
    return self.synthesis(
      torch.cat([near, w.expand(-1, max(self.layers - 8, 0), -1)], 1), noise
    )


NETWORKS = {
  'biggan': (BigGenerator, BigDiscriminator),
  'progan': (ProgressiveGenerator, lambda nets: GrowingDiscriminator(nets, blur=False)),
  'stylegan': (StyleGenerator, lambda nets: GrowingDiscriminator(nets, blur=True)),
}


def build(nets: dict) -> tuple[nn.Module, nn.Module, nn.Module]:
  """G, D and the average of G."""
  generator, discriminator = NETWORKS[nets['family']]
  g, d = generator(nets), discriminator(nets)
  return g, d, copy.deepcopy(g).requires_grad_(False).eval()
