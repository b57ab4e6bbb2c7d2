"""The BigGAN-deep generators of pytorch-pretrained-BigGAN (Hugging Face).

Its weights are stored before spectral normalization, whose vectors are constant in
evaluation; they are imported already divided, so that our generator has none. Batch
statistics are a table with one row per truncation. Each norm is conditioned on
(z, class); ours is conditioned on (class, z). The discriminator was not published.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.importers.biggan_names import to_flax_layout, to_torch_layout
from gan_jax.importers.biggan_pytorch import SCRIPT_SETTINGS, biggan_training_config
from gan_jax.importers.name_mapping import Arrays, fill_variables
from gan_jax.importers.network_states import NetworkState, assign_roles
from gan_jax.importers.published_model import (
  PublishedModel,
  check_settings,
)
from gan_jax.models.base import Variables, variable_shapes
from gan_jax.models.biggan import BigGAN
from gan_jax.models.biggan_config import parse_blocks
from gan_jax.storage import weights
from gan_jax.storage.file_kinds import IMPORTED
from gan_jax.storage.nested import flatten

WEIGHT_FILES = ('pytorch_model.bin', 'model.safetensors', 'model.npz')
CONFIG_FILE = 'config.json'
_CONFIG_KEYS = {
  'output_dim', 'z_dim', 'class_embed_dim', 'channel_width', 'num_classes', 'layers',
  'attention_layer_position', 'eps', 'n_stats',
}  # fmt: skip


def huggingface_file(folder: Path) -> Path | None:
  """The weights of a folder that has one of the WEIGHT_FILES and a config."""
  if not (folder / CONFIG_FILE).is_file():
    return None
  paths = (folder / name for name in WEIGHT_FILES)
  return next((path for path in paths if path.is_file()), None)


def read_config(weight_file: Path) -> dict[str, Any]:
  """The config beside a file of weights.

  'biggan-deep-128-pytorch_model.bin' may have its own, 'biggan-deep-128-config.json'.

  Raises:
    UserError: there is none, or it is not the config of a BigGAN.
  """
  name = re.sub(r'pytorch_model\.bin$|model\.\w+$', CONFIG_FILE, weight_file.name)
  paths = [weight_file.with_name(n) for n in (name, CONFIG_FILE)]
  path = next((p for p in paths if p.is_file() and p != weight_file), None)
  if path is None:
    raise UserError(
      f'{weight_file} is of a Hugging Face model: put its {CONFIG_FILE} beside it.'
    )
  try:
    config = json.loads(path.read_text())
  except ValueError:
    weights.check_kind(path)
    config = None
  if not isinstance(config, dict):
    raise UserError(
      f'{path} is not the config of a Hugging Face model: fetch it again.'
    )
  if lacking := sorted(_CONFIG_KEYS - config.keys()):
    kinds = [config.get(key) for key in ('model_type', '_class_name', 'architectures')]
    kind = next((str(k)[:60] for k in kinds if k), None)
    if kind:
      raise UserError(f'{path.parent} is a Hugging Face model {kind!r}: {IMPORTED}.')
    raise UserError(
      f'{path} is not the config of a BigGAN: it lacks {", ".join(lacking[:3])} and '
      f'{len(lacking) - 3} more keys, so fetch it again.'
      if len(lacking) > 3
      else f'{path} lacks {", ".join(lacking)}, so fetch it again.'
    )
  check_settings(config)
  return config


def read_huggingface(
  path: Path,
  weight_file: Path,
  networks: Sequence[NetworkState],
  notes: tuple[str, ...],
) -> PublishedModel:
  """The generator of a file of weights with its config.

  Raises:
    UserError: weights and config that do not fit together.
  """
  config = read_config(weight_file)
  roles = assign_roles(weight_file, networks)
  states = [roles[role].arrays for role in ('G', 'G_ema') if role in roles]
  g = convert_huggingface(states[0], config)
  ema = convert_huggingface(states[1], config) if len(states) > 1 else g
  settings = {**SCRIPT_SETTINGS, 'G_ortho': 1e-4}
  return PublishedModel(
    path=path,
    kind='pytorch-pretrained-BigGAN',
    gan=huggingface_gan(config),
    g=g,
    ema=ema,
    d=None,
    d_expected=False,
    training_config=lambda gan: biggan_training_config(gan, settings, step=0),
    notes=(*notes, 'D and the optimizers are not published: they start anew'),
  )


def huggingface_gan(config: Mapping[str, Any]) -> BigGAN:
  """The BigGAN of a config.json; D gets the channels of G.

  Raises:
    UserError: a first layer of another width than 16 channels, in units of `g_ch`.
  """
  layers = config['layers']
  if layers[0][1] != 16:
    raise UserError(f'the first layer has {layers[0][1]} channels: it needs 16.')
  blocks = [str(layers[0][1])]
  for i, (upsample, _, width) in enumerate(layers):
    before_next = i + 1 == config['attention_layer_position'] < len(layers)
    attention = ' attention' if before_next else ''
    blocks.append(f'{"up " if upsample else ""}{width}{attention}')
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


def convert_huggingface(state: Arrays, config: Mapping[str, Any]) -> Variables:
  """Variables of the generator of `huggingface_gan(config)`.

  Args:
    state: arrays in PyTorch's layouts by official name.
    config: contents of config.json.

  Raises:
    UserError: an array without a place in the network, a missing array or a wrong
      shape.
  """
  like, _ = variable_shapes(huggingface_gan(config))
  layers = _layers(config)
  arrays, unknown = {}, []
  for name, value in state.items():
    module, _, leaf = name.rpartition('.')
    layer = layers.get(module)
    if layer and leaf in ('weight_u', 'weight_v'):
      continue
    if layer and leaf == 'weight_orig':
      value = value / _spectral_norm(state, module)
    converted = _convert_leaf(layer, leaf, value, config['z_dim']) if layer else None
    if converted is None:
      unknown.append(name)
    else:
      path, value = converted
      arrays[path] = value
  return fill_variables(arrays, unknown, like, flatten(like, '/'))


def _layers(config: Mapping[str, Any]) -> dict[str, str]:
  """Official module -> path of our layer. Attention counts as a layer there."""
  attention = config['attention_layer_position']
  layers = {'embeddings': 'shared', 'generator.gen_z': 'linear'}
  for i in range(len(config['layers'])):
    if i == attention:
      module, ours = f'generator.layers.{i}', f'attention{i - 1}'
      layers[module] = ours
      for projection in ('theta', 'phi', 'g'):
        layers[f'{module}.snconv1x1_{projection}'] = f'{ours}/{projection}'
      layers[f'{module}.snconv1x1_o_conv'] = f'{ours}/o'
    module = f'generator.layers.{i + (i >= attention)}'
    for n in range(4):
      norm = f'block{i}/bn{n + 1}'
      layers[f'{module}.bn_{n}'] = norm
      layers[f'{module}.bn_{n}.scale'] = f'{norm}/gain'
      layers[f'{module}.bn_{n}.offset'] = f'{norm}/bias'
      layers[f'{module}.conv_{n}'] = f'block{i}/conv{n + 1}'
  return {**layers, 'generator.bn': 'norm', 'generator.conv_to_rgb': 'rgb'}


def _spectral_norm(state: Arrays, module: str) -> np.ndarray:
  """u^T W v of the stored vectors, the constant norm of evaluation."""
  w = state[f'{module}.weight_orig']
  u, v = (state[f'{module}.weight_{side}'] for side in 'uv')
  return u @ w.reshape(w.shape[0], -1) @ v


def _convert_leaf(
  layer: str, leaf: str, value: np.ndarray, dim_z: int
) -> tuple[str, np.ndarray] | None:
  """Our path and layout of an array of the layer, or None if it is unknown."""
  if layer == 'rgb':
    value = value[:3]
  match leaf:
    case 'running_means':
      return f'batch_stats/{layer}/stats/mean', value
    case 'running_vars':
      return f'batch_stats/{layer}/stats/var', value
    case 'weight_orig':
      if _takes_latents(layer):
        value = np.concatenate([value[:, dim_z:], value[:, :dim_z]], 1)
      return f'params/{layer}/kernel', to_flax_layout('kernel', value)
    case _ if layer == 'shared':
      return 'params/shared/embedding', value.T
    case 'weight':
      return f'params/{layer}/gain', value
    case 'bias' | 'gamma':
      return f'params/{layer}/{leaf}', value
  return None


def _takes_latents(layer: str) -> bool:
  """Whether the inputs of a layer are z and the class."""
  return layer == 'linear' or layer.endswith(('/gain', '/bias'))


def huggingface_config(gan: BigGAN) -> dict[str, Any]:
  """The config.json of a generator: inverse of `huggingface_gan`.

  Args:
    gan: any BigGAN with `g_blocks`; whether the package can build it, comparing it with
      `huggingface_gan` of the result tells.
  """
  first, *blocks = parse_blocks(gan.g_blocks) or []
  widths = [block.width for block in (first, *blocks)]
  attention = [i for i, block in enumerate(blocks) if block.attention]
  return {
    'output_dim': gan.res,
    'z_dim': gan.dim_z,
    'class_embed_dim': gan.shared_dim,
    'channel_width': gan.g_ch,
    'num_classes': gan.n_classes,
    'layers': [
      [block.up, before, block.width]
      for before, block in zip(widths, blocks, strict=False)
    ],
    'attention_layer_position': attention[0] + 1 if attention else len(blocks) + 1,
    'eps': gan.bn_eps,
    'n_stats': gan.stats_rows,
  }


def huggingface_state(
  variables: Variables, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of a generator by official name: inverse of `convert_huggingface`.

  A kernel is stored with two vectors for which its spectral norm is 1, as in the
  package's evaluation mode; each has one entry, so that no rounding enters.

  Raises:
    UserError: a kernel has only zeros, which the package would divide by 0.
  """
  arrays = flatten(variables, '/')
  names = {'embedding': 'weight', 'gain': 'weight', 'bias': 'bias', 'gamma': 'gamma'}
  names |= {'mean': 'running_means', 'var': 'running_vars'}
  modules = {ours: official for official, ours in _layers(config).items()}
  state: dict[str, np.ndarray] = {}
  for path, x in arrays.items():
    layer, _, leaf = path.partition('/')[2].rpartition('/')
    layer = layer.removesuffix('/stats')
    module = modules[layer]
    value = np.asarray(x)
    if path.startswith('params/') and leaf != 'embedding':
      value = to_torch_layout(path, value)
      if layer == 'rgb':  # the package computes channel_width of them and keeps 3
        more = config['channel_width'] - len(value)
        value = np.pad(value, ((0, more), *((0, 0),) * (value.ndim - 1)))
    if leaf == 'kernel':
      if _takes_latents(layer):
        dim_class = value.shape[1] - config['z_dim']
        value = np.concatenate([value[:, dim_class:], value[:, :dim_class]], 1)
      u, v = _vectors_of_norm_one(path, value)
      state |= {f'{module}.weight_u': u, f'{module}.weight_v': v}
      name = f'{module}.weight_orig'
    elif leaf in ('mean', 'var'):
      value = value.reshape(len(value), -1)
      name = f'{module}.{names[leaf]}'
    else:
      value = value.T if leaf == 'embedding' else value
      value = value.reshape(1) if leaf == 'gamma' else value
      name = f'{module}.{names[leaf]}'
    state[name] = np.array(value, order='C')
  return state


def _vectors_of_norm_one(
  path: str, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """u and v with u^T W v = 1, exactly in float32."""
  w = kernel.reshape(len(kernel), -1)
  with np.errstate(divide='ignore', over='ignore', invalid='ignore'):
    factors = 1 / w
    exact = np.isfinite(factors) & (w * factors == 1)
  if not exact.any():
    raise UserError(
      f'{path} cannot be written with a spectral norm of 1, since its values are 0: '
      'the Hugging Face package divides by that norm.'
    )
  row, column = np.unravel_index(np.argmax(np.where(exact, np.abs(w), 0)), w.shape)
  u, v = np.zeros(w.shape[0], w.dtype), np.zeros(w.shape[1], w.dtype)
  u[row], v[column] = 1, factors[row, column]
  return u, v
