"""BigGAN-PyTorch and pytorch-pretrained-BigGAN -> our variables."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.importers.name_mapping import Table, fill_variables, path_of, translate
from gan_jax.models.base import Variables
from gan_jax.models.biggan import D_WIDTHS, FINAL_MAP, BigGAN, Generator

# BigGAN-PyTorch: the module part of a state_dict name -> the path of our layer.
BIGGAN_G: Table = (
  (r'shared|linear', r'\g<0>'),
  (r'blocks\.(\d+)\.0\.(conv\w+)', r'block\1/\2'),
  (r'blocks\.(\d+)\.0\.(bn\d)\.(gain|bias)', r'block\1/\2/\3'),
  (r'blocks\.(\d+)\.0\.(bn\d)(?:\.bn)?', r'block\1/\2'),
  (r'blocks\.(\d+)\.1\.(theta|phi|g|o)', r'attention\1/\2'),
  (r'blocks\.(\d+)\.1', r'attention\1'),
  (r'output_layer\.0(?:\.bn)?', 'norm'),
  (r'output_layer\.2', 'rgb'),
)
BIGGAN_D: Table = (
  (r'linear|embed', r'\g<0>'),
  (r'blocks\.(\d+)\.0\.(conv\w+)', r'block\1/\2'),
  (r'blocks\.(\d+)\.1\.(theta|phi|g|o)', r'attention\1/\2'),
  (r'blocks\.(\d+)\.1', r'attention\1'),
)
BIGGAN_DEEP_D: Table = (
  (r'linear|embed', r'\g<0>'),
  (r'input_conv', 'stem'),
  (r'blocks\.(\d+)\.(\d+)\.(conv\w+)', r'block\1_\2/\3'),
  (r'blocks\.(\d+)\.\d+\.(theta|phi|g|o)', r'attention\1/\2'),
  (r'blocks\.(\d+)\.\d+', r'attention\1'),
)
# ... and its last part -> collection, leaf.
BIGGAN_LEAVES = {
  'weight': ('params', 'kernel'),
  'bias': ('params', 'bias'),
  'gain': ('params', 'gain'),
  'gamma': ('params', 'gamma'),
  'stored_mean': ('batch_stats', 'stats/mean'),
  'stored_var': ('batch_stats', 'stats/var'),
  'running_mean': ('batch_stats', 'stats/mean'),  # of its cross-replica norm
  'running_var': ('batch_stats', 'stats/var'),
}

_ATTENTION_LABELS = {32: (16, 16, 16, 16)}  # its names for D's maps of 16, 8, 8, 8


def biggan_from_shapes(
  g: Mapping[str, Any], d: Mapping[str, Any], deep: bool
) -> BigGAN:
  """The BigGAN of BigGAN-PyTorch's constructor arguments; either side may be {}."""
  either = {**d, **g}
  res, classes = either.get('resolution', 128), either.get('n_classes', 1000)
  dim_z, hier = g.get('dim_z', 128), bool(g.get('hier', False))
  shared_dim = (g.get('shared_dim', 0) or dim_z) if g.get('G_shared', True) else 0
  if hier and not deep:
    slots = res.bit_length() - 2
    dim_z = dim_z // slots * slots
  return BigGAN(
    res=res,
    n_classes=classes,
    dim_z=dim_z,
    shared_dim=shared_dim,
    hier=hier or (deep and not g),
    g_ch=g.get('G_ch', 64),
    d_ch=d.get('D_ch', 64),
    g_attention=_resolutions(g.get('G_attn', '64')),
    d_attention=_d_attention(res, _resolutions(d.get('D_attn', '64')), deep),
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


def _resolutions(text: str) -> tuple[int, ...]:
  return tuple(int(part) for part in str(text).split('_') if int(part))


def _d_attention(res: int, named: tuple[int, ...], deep: bool) -> tuple[int, ...]:
  """True map sizes for the sizes that BigGAN-PyTorch names."""
  if res not in _ATTENTION_LABELS:
    return named
  blocks = len(D_WIDTHS[res]) - deep
  sizes = [max(res >> (i + 1), FINAL_MAP[res]) for i in range(blocks)]
  labels = _ATTENTION_LABELS[res][:blocks]
  return tuple(
    size for size, label in zip(sizes, labels, strict=True) if label in named
  )


def convert_biggan(
  state: Mapping[str, np.ndarray], table: Table, like: Variables
) -> Variables:
  """A BigGAN-PyTorch state_dict as our variables.

  Args:
    state: arrays by official name, in PyTorch's layouts.
    table: BIGGAN_G, BIGGAN_D or BIGGAN_DEEP_D.
    like: variables of the network (shapes suffice), which the result fills whole.

  Raises:
    UserError: a name without a place, a place without a name, or a shape.
  """
  shapes = {path_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(like)}
  found: dict[str, np.ndarray] = {}
  rows: dict[str, dict[int, np.ndarray]] = {}
  unused = []
  for name, value in state.items():
    module, _, leaf = name.rpartition('.')
    path = translate(module, table)
    if leaf in ('accumulation_counter', 'num_batches_tracked'):
      continue  # of standing statistics, which are ours to take anew
    vector = re.fullmatch(r'(u|sv)(\d+)', leaf)
    if path is None or not (vector or leaf in BIGGAN_LEAVES):
      unused.append(name)
    elif vector:
      kind, row = vector.groups()
      place = f'spectral/{path}/{"u" if kind == "u" else "sigma"}'
      if path == 'linear' and kind == 'u' and 'params/rgb/kernel' in shapes:
        value = _spatial_last(value.reshape(-1))
      rows.setdefault(place, {})[int(row)] = value.reshape(-1)
    else:
      collection, ours = BIGGAN_LEAVES[leaf]
      place = f'{collection}/{path}/{ours}'
      if place not in shapes and ours == 'kernel':
        place = f'{collection}/{path}/embedding'
      if path == 'linear' and 'params/rgb/kernel' in shapes:
        value = _spatial_last(value)
      found[place] = _layout(place, value)
  for place, parts in rows.items():
    if sorted(parts) != list(range(len(parts))):
      raise UserError(f'the singular vectors of {place} are not all there.')
    stacked = np.stack([parts[i] for i in range(len(parts))])
    found[place] = stacked if place.endswith('/u') else stacked.reshape(-1)
  return fill_variables(found, unused, like, shapes)


def huggingface_gan(config: Mapping[str, Any]) -> BigGAN:
  """The BigGAN of pytorch-pretrained-BigGAN's config.json.

  Weights come in divided by their spectral norm, so G has none of its own, and batch
  statistics are its table over truncations. D, which is not published, is BigGAN's of
  the same channels.
  """
  spot, layers = config['attention_layer_position'], config['layers']
  blocks = [str(layers[0][1])]
  for i, (up, _, width) in enumerate(layers):
    attention = ' attention' if i == spot - 1 else ''
    blocks.append(f'{"up " if up else ""}{width}{attention}')
  if layers[0][1] != 16:
    raise UserError(f'the first layer has {layers[0][1]} channels: it always has 16.')
  return BigGAN(
    res=config['output_dim'],
    n_classes=config['num_classes'],
    dim_z=config['z_dim'],
    shared_dim=config['class_embed_dim'],
    g_ch=config['channel_width'],
    d_ch=config['channel_width'],
    d_attention=(64,) if config['output_dim'] >= 128 else (),
    depth=2,
    g_blocks=tuple(blocks),
    bn_eps=config['eps'],
    rgb_bn_eps=config['eps'],
    sn_eps=config['eps'],
    g_sn_vectors=0,
    stats_rows=config['n_stats'],
  )


def convert_huggingface(
  state: Mapping[str, np.ndarray],
  config: Mapping[str, Any],
  truncation: float | None = None,
) -> tuple[Generator, Variables]:
  """The BigGAN-deep generator of pytorch-pretrained-BigGAN.

  Its spectral norm is a constant in evaluation, u^T W v of the stored vectors, so
  weights come in already divided. Its condition is (z, class); ours (class, z).

  Args:
    state: arrays by official name.
    config: its config.json.
    truncation: in (0, 1]; picks the rows of its table of batch statistics. None
      keeps the table, for `hugging_face(config)` to pick from as it draws.

  Raises:
    UserError: a name without a place, a place without a name, or a shape.
  """
  gan, dim = huggingface_gan(config), config['z_dim']
  spot = config['attention_layer_position']
  like, _ = jax.eval_shape(gan.init, jax.random.key(0))
  row = None
  if truncation is not None:
    row = statistics_row(truncation, config['n_stats'])
    drop = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    like = {**like, 'batch_stats': jax.tree.map(drop, like['batch_stats'])}
  shapes = {path_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(like)}
  table: Table = (
    (r'generator\.gen_z', 'linear'),
    (r'generator\.bn', 'norm'),
    (r'generator\.conv_to_rgb', 'rgb'),
    (r'generator\.layers\.(\d+)\.conv_(\d)', r'block\1/conv\2'),
    (r'generator\.layers\.(\d+)\.bn_(\d)\.scale', r'block\1/bn\2/gain'),
    (r'generator\.layers\.(\d+)\.bn_(\d)\.offset', r'block\1/bn\2/bias'),
    (r'generator\.layers\.(\d+)\.bn_(\d)', r'block\1/bn\2'),
    (r'generator\.layers\.(\d+)\.snconv1x1_(theta|phi|g|o)(?:_conv)?', r'attention/\2'),
    (r'generator\.layers\.(\d+)', 'attention'),
    (r'embeddings', 'shared'),
  )

  def ours(module: str) -> str | None:
    path = translate(module, table)
    if path is None:
      return None
    if path.startswith('attention'):
      return path.replace('attention', f'attention{spot - 1}', 1)
    block = re.match(r'block(\d+)(/(?:conv|bn))(\d)', path)
    if not block:
      return path
    layer, kind, n = block.groups()
    index = int(layer) - (int(layer) > spot)  # the attention takes a number too
    return f'block{index}{kind}{int(n) + 1}{path[block.end() :]}'

  found, unused = {}, []
  for name, value in state.items():
    module, _, leaf = name.rpartition('.')
    path = ours(module)
    if path is None:
      unused.append(name)
    elif leaf in ('running_means', 'running_vars'):
      stat = 'mean' if leaf == 'running_means' else 'var'
      found[f'batch_stats/{path}/stats/{stat}'] = (
        value if row is None else _mixed(value, row)
      )
    elif leaf in ('weight_u', 'weight_v'):
      continue
    elif leaf == 'weight_orig':
      w = value.reshape(value.shape[0], -1)
      u, v = (state[f'{module}.weight_{x}'] for x in 'uv')
      value = value / (u @ w @ v)
      if path == 'linear' or path.endswith(('/gain', '/bias')):
        value = np.concatenate([value[:, dim:], value[:, :dim]], 1)
      if path == 'rgb':
        value = value[:3]
      found[f'params/{path}/kernel'] = _layout('kernel', value)
    elif path == 'shared':
      found['params/shared/embedding'] = value.T
    elif leaf in ('weight', 'bias', 'gamma'):
      leaf = 'gain' if leaf == 'weight' else leaf
      found[f'params/{path}/{leaf}'] = value[:3] if path == 'rgb' else value
    else:
      unused.append(name)
  return gan.generator, fill_variables(found, unused, like, shapes)


def statistics_row(truncation: float, rows: int) -> tuple[int, float]:
  """Row and weight in Hugging Face's table of batch statistics.

  The table has `rows` rows for truncations 0..1. Between rows it gives the *lower*
  row the fractional weight, the other way round than linear interpolation does.
  """
  if not 0 < truncation <= 1:
    raise UserError(f'truncation is {truncation}: allowed are values in (0, 1].')
  part, whole = math.modf(truncation / (1 / (rows - 1)))
  return int(whole), part


def _mixed(table: np.ndarray, row: tuple[int, float]) -> np.ndarray:
  index, part = row
  if part == 0:
    return table[index]
  return table[index] * part + table[index + 1] * (1 - part)


def _layout(place: str, value: np.ndarray) -> np.ndarray:
  """PyTorch's [out, in, h, w] and [out, in] -> HWIO and [in, out]."""
  if not place.endswith('kernel'):
    return value
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _spatial_last(value: np.ndarray) -> np.ndarray:
  """Rows of G's first layer from (c, 4, 4) order to (4, 4, c)."""
  shape = value.shape[1:]
  return value.reshape(-1, 16, *shape).swapaxes(0, 1).reshape(-1, *shape)
