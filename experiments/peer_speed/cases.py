"""The cases that are timed: configs, sizes of their networks, and FLOPs.

No framework is imported here, so that both sides read the same cases.
"""

from typing import Any

Case = dict[str, Any]  # JSON: `config` is gan_jax's, `nets` the networks in numbers

SAMPLES = 16  # images sampled at once


def biggan32(batch: int, tiny: bool = False) -> Case:
  """configs/biggan_cifar10.py with one D step; D stops pooling at 8x8."""
  ch = 4 if tiny else 64
  model = dict(res=32, n_classes=10, dim_z=128, shared_dim=0, hier=False, sn_eps=1e-8)
  return case(
    dict(family='biggan', g_ch=ch, d_ch=ch, g_init='N02', d_init='N02', **model),
    dict(
      g_widths=[4 * ch] * 4,
      d_widths=[4 * ch] * 4,
      downs=2,
      g_attention=[],
      d_attention=[],
      bn_eps=1e-5,
      **model,
    ),
    dict(batch=4 if tiny else batch, g_lr=2e-4, d_lr=2e-4, ema=0.9999),
    dict(beta1=0.0, beta2=0.999, eps=1e-8),
    ortho=0.0,
  )


def biggan128(batch: int, tiny: bool = False) -> Case:
  """configs/biggan_imagenet.py at a third of its channels, in float32."""
  g_units, d_units = (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)
  res, attended, ch = 128, 64, 32
  if tiny:
    g_units, d_units, res, attended, ch = (4, 4, 2, 1), (1, 2, 4, 4), 32, 16, 16
  model = dict(res=res, n_classes=1000, dim_z=120, shared_dim=128, hier=True)
  model |= dict(sn_eps=1e-4, bn_eps=1e-4)
  return case(
    dict(
      family='biggan',
      g_ch=ch,
      d_ch=ch,
      g_widths=g_units,
      d_widths=d_units,
      g_attention=[attended],
      d_attention=[attended],
      rgb_bn_eps=1e-4,
      **model,
    ),
    dict(
      g_widths=[ch * w for w in g_units],
      d_widths=[ch * w for w in d_units],
      downs=len(d_units) - 1,
      g_attention=[len(g_units) - 3],  # after the last block but one
      d_attention=[0],
      **model,
    ),
    dict(batch=4 if tiny else batch, g_lr=5e-5, d_lr=2e-4, ema=0.9999),
    dict(beta1=0.0, beta2=0.999, eps=1e-6),
    ortho=1e-4,
  )


def growing(family: str, res: int, batch: int, tiny: bool = False) -> Case:
  """The last stage of a growing GAN at a quarter of the published widths."""
  res = 16 if tiny else res
  stages = range(res.bit_length() - 1)  # 1x1, 4x4, 8x8, ...
  widths = [min(8192 >> s, 512) // (64 if tiny else 4) for s in stages]
  model = dict(res=res, dim_z=512, g_widths=widths, d_widths=widths)
  adam = dict(beta1=0.0, beta2=0.99, eps=1e-8)
  return case(
    dict(family=family, **model),
    dict(**model),
    dict(
      resolutions=[res],
      batch=[4 if tiny else batch],
      stabilise=0,
      fade=0,
      g_lr=[1e-3],
      d_lr=[1e-3],
    ),
    dict(tf_eps=True, **adam),
    ortho=0.0,
  )


def case(model: dict, nets: dict, schedule: dict, adam: dict, ortho: float) -> Case:
  batch = schedule['batch']
  config = dict(
    model=model,
    schedule=schedule,
    g_adam=dict(ortho=ortho, **adam),
    d_adam=dict(adam),
    data=dict(name='synthetic'),
    train=dict(images=1),
    log=dict(metrics_every=1, grid_every=1, checkpoint_every=1),
  )
  nets = dict(family=model['family'], ortho=ortho, **nets)
  return {
    'config': config,
    'nets': nets,
    'batch': batch[0] if isinstance(batch, list) else batch,
  }


CASES = {
  'biggan32-16': lambda tiny=False: biggan32(16, tiny),
  'biggan32-32': lambda tiny=False: biggan32(32, tiny),
  'biggan128': lambda tiny=False: biggan128(8, tiny),
  'stylegan64': lambda tiny=False: growing('stylegan', 64, 4, tiny),
  'progan32': lambda tiny=False: growing('progan', 32, 8, tiny),
}


def deeper(family: str, res: int) -> Case:
  """A narrow network of the published depth, to see what compiling it takes."""
  if family != 'biggan':
    return growing(family, res, 4)
  model = dict(
    family='biggan', res=res, n_classes=10, dim_z=20 * (res.bit_length() - 2)
  )
  model |= dict(g_ch=8, d_ch=8, g_attention=[64], d_attention=[64])
  adam = dict(beta1=0.0, beta2=0.999)
  return case(model, {}, dict(batch=4), adam, ortho=1e-4)


# FLOPs as the layers are written down: two for each multiplication of a convolution, a
# dense layer or a product of attention, at the size at which the plain network does it
# (a shortcut of G after upsampling). What a side saves by algebra counts for it.


def conv_flops(size: int, before: int, after: int, kernel: int = 3) -> int:
  return 2 * kernel**2 * before * after * size**2


def attention_flops(size: int, c: int) -> int:
  pixels = size**2
  projections = conv_flops(size, c, 2 * (c // 8) + 2 * (c // 2), 1)
  return projections + 2 * pixels * (pixels // 4) * (c // 8 + c // 2)


def biggan_flops(nets: dict) -> tuple[int, int, int]:
  """Forward FLOPs per image of G, of D, and of the layers of D that read the image."""
  widths, chunk = nets['g_widths'], nets['dim_z']
  if nets['hier']:
    chunk //= len(widths)
  condition = chunk + nets['shared_dim'] if nets['hier'] else 0
  g = 2 * chunk * 16 * widths[0] + conv_flops(nets['res'], widths[-1], 3)
  for i, (before, after) in enumerate(zip(widths, widths[1:])):
    size = 8 << i
    g += conv_flops(size, before, after) + conv_flops(size, after, after)
    g += conv_flops(size, before, after, 1) + 4 * condition * (before + after)
    if i in nets['g_attention']:
      g += attention_flops(size, after)
  d, first, before, size = 0, 0, 3, nets['res']
  for i, after in enumerate(nets['d_widths']):
    down, inner = i < nets['downs'], size
    size //= 1 + down
    d += conv_flops(inner, before, after) + conv_flops(inner, after, after)
    if down or before != after:  # the first shortcut pools before its convolution
      d += conv_flops(inner if i else size, before, after, 1)
    if i == 0:
      first = conv_flops(inner, 3, after) + conv_flops(size, 3, after, 1)
    if i in nets['d_attention']:
      d += attention_flops(size, after)
    before = after
  return g, d + 2 * before, first


def growing_flops(nets: dict) -> tuple[int, int, int]:
  """As `biggan_flops`, of a growing GAN at its final resolution."""
  (hidden, *widths), res = nets['g_widths'], nets['res']
  g = d = conv_flops(res, widths[-1], 3, 1)
  first = d
  if nets['family'] == 'stylegan':
    mapping = 8 * 2 * 512 * 512
    styles = sum(2 * 512 * 2 * w for w in (*widths, *widths))
    g += 2 * mapping + styles  # twice, for mixing
  else:
    g += 2 * nets['dim_z'] * 16 * widths[0]
  g += conv_flops(4, widths[0], widths[0])
  d += conv_flops(4, widths[0] + 1, widths[0]) + 2 * 16 * widths[0] * hidden
  for i, (before, after) in enumerate(zip(widths, widths[1:])):
    both = conv_flops(8 << i, before, after) + conv_flops(8 << i, after, after)
    g, d = g + both, d + both
  return g, d + 2 * hidden, first


def ortho_flops(nets: dict) -> int:
  """Of G's orthogonal term on its 3x3 convolutions, which is nearly all of it."""
  if not nets['ortho']:
    return 0
  widths = nets['g_widths']
  convs = list(zip(widths, widths[1:])) + [(w, w) for w in widths[1:]]
  return sum(4 * after**2 * 9 * before for before, after in convs)


def flops(one: Case) -> tuple[int, int]:
  """FLOPs of a training iteration (a D and a G step), and of SAMPLES images.

  A backward pass costs two forward passes, less the gradient of the image where it is
  not needed. A penalty costs six: forward, gradient of the image, and the backward pass
  of both; R1 shares its forward pass with the loss on reals.
  """
  nets, family = one['nets'], one['nets']['family']
  g, d, first = (biggan_flops if family == 'biggan' else growing_flops)(nets)
  plain, penalised = 3 * d - first, 6 * d - first
  judged = {
    'biggan': 2 * plain,
    'stylegan': plain + penalised,
    'progan': 2 * plain + penalised,
  }[family]
  iteration = one['batch'] * (g + judged + 3 * g + 2 * d) + ortho_flops(nets)
  return iteration, SAMPLES * g
