"""The official TensorFlow ProGAN and StyleGAN (NVIDIA), in both directions.

Names are those of tkarras/progressive_growing_of_gans and NVlabs/stylegan. Weights are
stored before the equalized-learning-rate factor, like ours. Layouts differ from ours
where a dense layer meets a feature map (CHW there) and in the fused up-convolution,
which is a transposed convolution: its kernel is rotated by 180 degrees.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.importers.name_mapping import Arrays, fill_variables
from gan_jax.importers.nvidia_settings import (
  Kwargs,
  progan_from_kwargs,
  stylegan_from_kwargs,
)
from gan_jax.importers.published_model import (
  UNKNOWN_DATASET,
  PublishedModel,
  RawConfig,
  check_settings,
  complete_config,
)
from gan_jax.models.base import GAN, Variables, variable_shapes
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN
from gan_jax.sampling.export import model_section
from gan_jax.storage.file_kinds import IMPORTED
from gan_jax.storage.nested import flatten
from gan_jax.storage.weights import PickledNetwork


def progressive_from_networks(
  path: Path, networks: Sequence[PickledNetwork]
) -> PublishedModel:
  """The networks of a pickle of (G, D, Gs) or (G, D).

  Raises:
    UserError: other networks, or weights and arguments that do not fit together.
  """
  functions = [network.func for network in networks]
  if any('stylegan2' in function or function == 'G_main' for function in functions):
    raise UserError(f'{path} has networks of StyleGAN2 in TensorFlow: {IMPORTED}.')
  if all(function.startswith('D_') for function in functions):
    raise UserError(
      f'{path} has a discriminator only ({functions[0]}), and a run needs a generator: '
      'give the pickle of (G, D, Gs).'
    )
  if len(networks) not in (2, 3):
    raise UserError(
      f'{path} holds {len(networks)} networks ({", ".join(functions)[:80]}): '
      '(G, D, Gs) are needed.'
    )
  g, d, gs = (*networks, networks[0])[:3]
  states = {'G': g.variables, 'D': d.variables, 'Gs': gs.variables}
  return progressive_from_states(path, states, g.kwargs, d.kwargs, g.library)


def progressive_from_states(
  path: Path, states: Mapping[str, Arrays], g_kwargs: Kwargs, d_kwargs: Kwargs,
  library: str,
) -> PublishedModel:  # fmt: skip
  """The ProGAN or StyleGAN of official variables and keyword arguments.

  Args:
    states: arrays by official name of 'G', 'Gs' and perhaps 'D'.
    library: see `convert_progressive`.
  """
  check_settings(g_kwargs)
  check_settings(d_kwargs)
  is_stylegan = any(name.startswith('G_synthesis/') for name in states['G'])
  from_kwargs = stylegan_from_kwargs if is_stylegan else progan_from_kwargs
  gan: ProGAN | StyleGAN = from_kwargs(g_kwargs, d_kwargs)
  like_g, like_d = variable_shapes(gan)
  g, ema = (
    convert_progressive(states[role], gan, 'G', g_kwargs, like_g, library)
    for role in ('G', 'Gs')
  )
  d = None
  if 'D' in states:
    d = convert_progressive(states['D'], gan, 'D', d_kwargs, like_d, library)
  lod = _level_of_detail(states['G'], gan.res)
  return PublishedModel(
    path=path,
    kind='StyleGAN' if is_stylegan else 'ProGAN',
    gan=gan,
    g=g,
    ema=ema,
    d=d,
    training_config=lambda changed: _training_config(changed, lod, gan.res),
    notes=('the optimizers are not published: they start anew',),
  )


def _level_of_detail(state: Arrays, res: int) -> float:
  """How many resolutions are missing up to `res`; a fraction while one fades in."""
  stored = [v for name, v in state.items() if name.rpartition('/')[2] == 'lod']
  lod = round(float(np.max(stored[0])), 5) if stored else 0.0
  highest = res.bit_length() - 3
  if not 0 <= lod <= highest:
    raise UserError(
      f'the level of detail is {lod:g}: {res} pixels have levels from 0 to {highest}.'
    )
  return lod


# Of the official runs on 8 GPUs: real images per step, and learning rates that are not
# 0.001, by resolution; images per stage and per transition.
_BATCH_SIZES = {4: 512, 8: 256, 16: 128, 32: 64, 64: 32}
_LEARNING_RATES = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}
_STAGE_IMAGES = 600_000


def _training_config(gan: GAN, lod: float, res: int) -> tuple[RawConfig, int]:
  """A raw config that continues at a level of detail, and the images seen.

  Args:
    gan: the published model, or one that grows to another resolution.
    lod: level of detail relative to `res`, the published resolution.
  """
  is_stylegan = gan.style_based is not None
  lod = max(lod + math.log2(gan.res / res), 0.0)
  first = 4 if not is_stylegan or lod > gan.res.bit_length() - 4 else min(8, gan.res)
  resolutions = [first << i for i in range((gan.res // first).bit_length())]
  images_seen = _images_at(len(resolutions) - 1 - lod)
  batch = [_BATCH_SIZES.get(size, 32) for size in resolutions]
  learning_rates = [_LEARNING_RATES.get(size, 0.001) for size in resolutions]
  adam = {'beta1': 0.0, 'beta2': 0.99, 'eps': 1e-8, 'tf_eps': True}
  sections = {
    'model': model_section(gan),
    'schedule': {
      'resolutions': resolutions,
      'batch': batch,
      'g_lr': learning_rates,
      'd_lr': learning_rates,
      **({'ema_half_life': 10_000} if is_stylegan else {'ema': 0.999}),
    },
    'g_adam': adam,
    'd_adam': dict(adam),
  }
  return complete_config(sections, UNKNOWN_DATASET, images_seen, batch[-1]), images_seen


def _images_at(stages: float) -> int:
  """Images seen after a number of stages; of a fraction, the transition is so far."""
  completed = math.floor(stages)
  images = 2 * _STAGE_IMAGES * completed
  if stages > completed:
    images += _STAGE_IMAGES + round((stages - completed) * _STAGE_IMAGES)
  return images


def convert_progressive(
  state: Arrays,
  gan: ProGAN | StyleGAN,
  side: str,
  kwargs: Kwargs,
  like: Variables,
  library: str = 'tfutil',
) -> Variables:
  """Variables of one network from its official variables.

  Args:
    state: arrays by official local name, such as '8x8/Conv1/weight'.
    side: 'G' or 'D'.
    kwargs: arguments of that network; `fused_scale` decides which kernels to rotate.
    like: variables of the network, or their shapes.
    library: 'tfutil', or 'dnnlib' for the copy of ProGAN in the StyleGAN repository,
      whose up-convolutions are stored [h, w, in, out] instead of [h, w, out, in].

  Raises:
    UserError: an array without a place in the network, a missing array or a wrong
      shape.
  """
  is_stylegan = isinstance(gan, StyleGAN)
  fused = _fused_scale(gan, kwargs)
  paths = _official_paths(gan, side, fused)
  arrays, unknown = {}, []
  for name, value in state.items():
    if name.rpartition('/')[2] == 'lod':
      continue  # part of our schedule
    path = paths.get(name)
    if path is None:
      unknown.append(name)
      continue
    if _is_rotated(path, fused):
      value = value[::-1, ::-1]
      if not is_stylegan and library == 'tfutil':
        value = value.swapaxes(2, 3)
    arrays[path] = _to_nhwc(path, value)
  return fill_variables(arrays, unknown, like, flatten(like, '/'))


def progressive_state(
  variables: Variables,
  gan: ProGAN | StyleGAN,
  side: str,
  kwargs: Kwargs,
  lod: float,
) -> dict[str, np.ndarray]:
  """Official variables of one network, of library 'tfutil' for a ProGAN.

  The inverse of `convert_progressive`.

  Args:
    kwargs: see `convert_progressive`.
    lod: level of detail, see `_level_of_detail`.
  """
  is_stylegan = isinstance(gan, StyleGAN)
  fused = _fused_scale(gan, kwargs)
  arrays = flatten(variables, '/')
  scopes = ('', 'G_synthesis/') if is_stylegan and side == 'G' else ('',)
  state = {f'{scope}lod': np.array(lod, np.float32) for scope in scopes}
  for name, path in _official_paths(gan, side, fused).items():
    if path not in arrays:
      continue  # of a layer that this model lacks, such as noise
    value = _to_nchw(path, np.asarray(arrays[path]))
    if _is_rotated(path, fused):
      value = value[::-1, ::-1]
      value = value if is_stylegan else value.swapaxes(2, 3)
    state[name] = np.array(value, order='C')
  return state


def _fused_scale(gan: ProGAN | StyleGAN, kwargs: Kwargs) -> bool | str:
  return kwargs.get('fused_scale', 'auto' if isinstance(gan, StyleGAN) else True)


def _is_rotated(path: str, fused: bool | str) -> bool:
  """Whether this is the kernel of a transposed convolution."""
  up = re.fullmatch(r'params/(?:synthesis/)?conv(\d+)_up/kernel', path)
  if not up:
    return False
  return int(up[1]) >= 128 if fused == 'auto' else bool(fused)


def _to_nhwc(path: str, value: np.ndarray) -> np.ndarray:
  """CHW to HWC for the constant input and where a dense layer meets the 4x4 map."""
  layer, _, leaf = path.rpartition('/')
  name = layer.rpartition('/')[2]
  if leaf == 'const':
    return value.transpose(0, 2, 3, 1)
  if leaf == 'kernel' and name == 'dense':
    return value.reshape(len(value), -1, 16).swapaxes(1, 2).reshape(len(value), -1)
  if leaf == 'kernel' and name == 'dense0' and 'mapping' not in path:
    outputs = value.shape[-1]
    return value.reshape(-1, 16, outputs).swapaxes(0, 1).reshape(-1, outputs)
  return value


def _to_nchw(path: str, value: np.ndarray) -> np.ndarray:
  """The inverse of `_to_nhwc`; vectors lose their axes of size 1."""
  layer, _, leaf = path.rpartition('/')
  name = layer.rpartition('/')[2]
  if leaf == 'const' or path.startswith('noise/'):
    return value.transpose(0, 3, 1, 2)
  if leaf in ('bias', 'strength', 'w_avg'):
    return value.reshape(-1)
  if leaf == 'kernel' and name == 'dense':
    return value.reshape(len(value), 16, -1).swapaxes(1, 2).reshape(len(value), -1)
  if leaf == 'kernel' and name == 'dense0' and 'mapping' not in path:
    outputs = value.shape[-1]
    return value.reshape(16, -1, outputs).swapaxes(0, 1).reshape(-1, outputs)
  return value


def _official_paths(
  gan: ProGAN | StyleGAN, side: str, fused: bool | str
) -> dict[str, str]:
  """Official name -> path of our variable, each of them once."""
  if side == 'D':
    return _discriminator_paths(gan.res, isinstance(gan, StyleGAN) or bool(fused))
  if isinstance(gan, StyleGAN):
    return _stylegan_paths(gan)
  return _progan_paths(gan.res, bool(fused))


def _sizes(res: int) -> list[tuple[int, int]]:
  """(size, level of detail) of the feature maps from 8x8 pixels."""
  bits = res.bit_length()
  return [(1 << i, bits - 1 - i) for i in range(3, bits)]


def _leaf_paths(layers: Mapping[str, str]) -> dict[str, str]:
  """Official layers -> our layers, extended to their weights and biases."""
  leaves = {'weight': 'kernel', 'bias': 'bias'}
  return {
    f'{official}/{leaf}': f'params/{ours}/{leaves[leaf]}'
    for official, ours in layers.items()
    for leaf in leaves
  }


def _discriminator_paths(res: int, down: bool) -> dict[str, str]:
  """
  Args:
    down: the second convolution of a block downsamples, which its name says.
  """
  layers = {'4x4/Conv': 'conv4', '4x4/Dense0': 'dense0', '4x4/Dense1': 'dense1'}
  layers[f'FromRGB_lod{res.bit_length() - 3}'] = 'rgb4'
  for size, lod in _sizes(res):
    layers[f'{size}x{size}/Conv0'] = f'conv{size}'
    name = 'Conv1_down' if down else 'Conv1'
    layers[f'{size}x{size}/{name}'] = f'conv{size}_down'
    layers[f'FromRGB_lod{lod}'] = f'rgb{size}'
  return _leaf_paths(layers)


def _progan_paths(res: int, up: bool) -> dict[str, str]:
  """
  Args:
    up: the first convolution of a block upsamples, which its name says.
  """
  layers = {'4x4/Dense': 'dense', '4x4/Conv': 'conv4'}
  layers[f'ToRGB_lod{res.bit_length() - 3}'] = 'rgb4'
  for size, lod in _sizes(res):
    layers[f'{size}x{size}/{"Conv0_up" if up else "Conv0"}'] = f'conv{size}_up'
    layers[f'{size}x{size}/Conv1'] = f'conv{size}'
    layers[f'ToRGB_lod{lod}'] = f'rgb{size}'
  return _leaf_paths(layers)


def _stylegan_paths(gan: StyleGAN) -> dict[str, str]:
  paths = {
    'dlatent_avg': 'moving/w_avg',
    'G_mapping/LabelConcat/weight': 'params/mapping/embedding',
    'G_synthesis/4x4/Const/const': 'params/synthesis/const',
  }
  layers = {
    f'G_mapping/Dense{i}': f'mapping/dense{i}' for i in range(gan.mapping_layers)
  }
  layers[f'G_synthesis/ToRGB_lod{gan.res.bit_length() - 3}'] = 'synthesis/rgb4'
  for size, lod in _sizes(gan.res):
    layers[f'G_synthesis/ToRGB_lod{lod}'] = f'synthesis/rgb{size}'
  for i, (official, convolution) in enumerate(_synthesis_layers(gan)):
    scope, layer = f'G_synthesis/{official}', f'synthesis/layer{i}'
    paths[f'G_synthesis/noise{i}'] = f'noise/layer{i}'
    if convolution:
      paths[f'{scope}/weight'] = f'params/synthesis/{convolution}/kernel'
    paths[f'{scope}/bias'] = f'params/{layer}/bias'
    paths[f'{scope}/Noise/weight'] = f'params/{layer}/strength'
    layers[f'{scope}/StyleMod'] = f'{layer}/style'
  return paths | _leaf_paths(layers)


def _synthesis_layers(gan: StyleGAN) -> list[tuple[str, str]]:
  """(official name, our convolution or '') of each layer that takes a w."""
  layers = [
    ('4x4/Const', '') if gan.const else ('4x4/Dense', 'dense'),
    ('4x4/Conv', 'conv4'),
  ]
  for size, _ in _sizes(gan.res):
    layers.append((f'{size}x{size}/Conv0_up', f'conv{size}_up'))
    layers.append((f'{size}x{size}/Conv1', f'conv{size}'))
  return layers
