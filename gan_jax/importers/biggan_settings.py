"""The constructor arguments of BigGAN-PyTorch: given, inferred, or those of a model."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.importers.name_mapping import Arrays
from gan_jax.models.biggan import BigGAN
from gan_jax.models.biggan_networks import D_WIDTHS, FINAL_MAP

# At 32x32 pixels, BigGAN-PyTorch names D's feature maps of 16, 8, 8 and 8 pixels 16.
_ATTENTION_LABELS = {32: (16, 16, 16, 16)}


def biggan_from_kwargs(
  g: Mapping[str, Any], d: Mapping[str, Any], deep: bool
) -> BigGAN:
  """The BigGAN of BigGAN-PyTorch's constructor arguments; `g` or `d` may be empty."""
  either = {**d, **g}
  res, classes = either.get('resolution', 128), either.get('n_classes', 1000)
  dim_z, hier = g.get('dim_z', 128), bool(g.get('hier', False))
  shared_dim = (g.get('shared_dim', 0) or dim_z) if g.get('G_shared', True) else 0
  if hier and not deep:
    chunks = res.bit_length() - 2
    dim_z = dim_z // chunks * chunks
  return BigGAN(
    res=res,
    n_classes=classes,
    dim_z=dim_z,
    shared_dim=shared_dim,
    hier=hier or (deep and not g),
    g_ch=g.get('G_ch', 64),
    d_ch=d.get('D_ch', 64),
    g_attention=_parse_resolutions(g.get('G_attn', '64')),
    d_attention=_d_attention(res, _parse_resolutions(d.get('D_attn', '64')), deep),
    depth=either.get('G_depth', either.get('D_depth', 2)) if deep else 0,
    d_wide=bool(d.get('D_wide', True)),
    bn_eps=g.get('BN_eps', 1e-5),
    bn_ddof=0 if g.get('mybn') else 1,
    sn_eps=either.get('SN_eps', 1e-12),
    g_sn_iterations=g.get('num_G_SV_itrs', 1),
    d_sn_iterations=d.get('num_D_SV_itrs', 1),
    g_sn_vectors=g.get('num_G_SVs', 1),
    d_sn_vectors=d.get('num_D_SVs', 1),
    g_init=g.get('G_init', 'ortho'),
    d_init=d.get('D_init', 'ortho'),
  )


def official_settings(gan: BigGAN) -> dict[str, Any]:
  """Constructor arguments of a model: inverse of `biggan_from_kwargs`.

  Whether BigGAN-PyTorch can build it, comparing it with `biggan_from_kwargs` of the
  result tells.
  """
  d_attention = gan.d_attention
  if gan.res in _ATTENTION_LABELS and d_attention:
    d_attention = _ATTENTION_LABELS[gan.res][:1]
  depth = {side: gan.depth for side in ('G_depth', 'D_depth') if gan.depth}
  return {
    'model': 'BigGANdeep' if gan.depth else 'BigGAN',
    'resolution': gan.res,
    'n_classes': gan.n_classes,
    'dim_z': gan.dim_z,
    'hier': gan.hier,
    'G_shared': gan.shared_dim > 0,
    'shared_dim': gan.shared_dim,
    'G_ch': gan.g_ch,
    'D_ch': gan.d_ch,
    'G_attn': '_'.join(map(str, gan.g_attention)) or '0',
    'D_attn': '_'.join(map(str, d_attention)) or '0',
    **depth,
    'D_wide': gan.d_wide,
    'BN_eps': gan.bn_eps,
    'SN_eps': gan.sn_eps,
    'mybn': gan.bn_ddof == 0,
    'num_G_SV_itrs': gan.g_sn_iterations,
    'num_D_SV_itrs': gan.d_sn_iterations,
    'num_G_SVs': gan.g_sn_vectors,
    'num_D_SVs': gan.d_sn_vectors,
    'G_init': gan.g_init,
    'D_init': gan.d_init,
    'split_D': gan.split_d,
  }


def _parse_resolutions(text: str) -> tuple[int, ...]:
  """'16_32' -> (16, 32); '0' -> ()."""
  return tuple(int(part) for part in str(text).split('_') if int(part))


def _d_attention(res: int, named: tuple[int, ...], deep: bool) -> tuple[int, ...]:
  """Sizes of D's feature maps with attention, from BigGAN-PyTorch's names of them."""
  if res not in _ATTENTION_LABELS:
    return named
  blocks = len(D_WIDTHS[res]) - deep
  sizes = [max(res >> (i + 1), FINAL_MAP[res]) for i in range(blocks)]
  labels = _ATTENTION_LABELS[res][:blocks]
  return tuple(
    size for size, label in zip(sizes, labels, strict=True) if label in named
  )


def infer_settings(states: Mapping[str, Arrays]) -> dict[str, Any]:
  """Constructor arguments that the names and shapes of the weights determine.

  Args:
    states: state_dicts of 'G', 'G_ema' and 'D'; at least one of them.

  Raises:
    UserError: a number of blocks that BigGAN-PyTorch does not have.
  """
  settings: dict[str, Any] = {'deep': False}
  g = states.get('G') or states.get('G_ema')
  if g is not None:
    settings |= _infer_generator(g)
  if 'D' in states:
    of_d = _infer_discriminator(states['D'], settings.get('resolution'))
    deep = settings['deep'] or of_d['deep']
    settings = {**of_d, **settings, 'deep': deep}
  return settings


def _infer_generator(g: Arrays) -> dict[str, Any]:
  blocks = len({int(m[1]) for k in g if (m := re.match(r'blocks\.(\d+)\.0\.', k))})
  deep = 'blocks.0.0.conv4.weight' in g
  upsamplings = blocks // 2 if deep else blocks
  if not 3 <= upsamplings <= 7:
    raise UserError(
      f'G has {blocks} blocks, which upsample {upsamplings} times: BigGAN-PyTorch '
      'upsamples 3 to 7 times.'
    )
  attention = [
    int(m[1]) for k in g if (m := re.fullmatch(r'blocks\.(\d+)\.1\.gamma', k))
  ]
  sizes = [8 << (i // 2 if deep else i) for i in attention]
  return {
    'deep': deep,
    'resolution': 4 << upsamplings,
    'G_depth': 2,
    'G_ch': len(g['linear.weight']) // 16 // (4 if upsamplings == 3 else 16),
    'G_attn': '_'.join(map(str, sizes)) or '0',
    'num_G_SVs': sum(k.startswith('linear.u') for k in g),
    'mybn': any(k.endswith('.accumulation_counter') for k in g),
    **_infer_inputs(g, blocks, deep),
  }


def _infer_inputs(g: Arrays, blocks: int, deep: bool) -> dict[str, Any]:
  """Sizes of z and of the class embedding, and whether z is split into chunks."""
  inputs = g['linear.weight'].shape[1]
  gain = g['blocks.0.0.bn1.gain.weight'].shape
  if 'shared.weight' not in g:
    return {
      'G_shared': False,
      'n_classes': gain[0],
      'dim_z': inputs,
      'hier': False,
      'shared_dim': 0,
    }
  n_classes, shared_dim = g['shared.weight'].shape
  chunk = gain[1] - shared_dim
  if deep:
    dim_z = inputs - shared_dim
  else:
    dim_z = chunk * (blocks + 1) if chunk else inputs
  return {
    'G_shared': True,
    'n_classes': n_classes,
    'dim_z': dim_z,
    'hier': chunk > 0,
    'shared_dim': shared_dim,
  }


def _infer_discriminator(d: Arrays, res: int | None) -> dict[str, Any]:
  """Arguments of D; `res` is the resolution of G, if there is one."""
  pattern = r'blocks\.(\d+)\.(\d+)\.(conv1\.weight|gamma)'
  layers = [m.groups() for k in d if (m := re.fullmatch(pattern, k))]
  blocks = [(stage, block) for stage, block, kind in layers if kind != 'gamma']
  attention = [int(stage) for stage, _, kind in layers if kind == 'gamma']
  stages = len({stage for stage, _ in blocks})
  deep = 'input_conv.weight' in d
  res_by_stages = {i + 3 + (not deep): 32 << i for i in range(4)}
  if stages not in res_by_stages:
    raise UserError(
      f'D has {stages} stages: BigGAN-PyTorch has {min(res_by_stages)} to '
      f'{max(res_by_stages)}.'
    )
  res = res or res_by_stages[stages]
  stem: np.ndarray = d['input_conv.weight' if deep else 'blocks.0.0.conv2.weight']
  labels = {16} if res == 32 and attention else {res >> (i + 1) for i in attention}
  return {
    'deep': deep,
    'resolution': res,
    'n_classes': len(d['embed.weight']),
    'D_ch': len(stem) // (4 if res == 32 else 1),
    'D_depth': len({block for stage, block in blocks if stage == '0'}),
    'D_wide': deep or len(d['blocks.0.0.conv1.weight']) == len(stem),
    'D_attn': '_'.join(map(str, sorted(labels))) or '0',
    'num_D_SVs': sum(k.startswith('linear.u') for k in d),
  }
