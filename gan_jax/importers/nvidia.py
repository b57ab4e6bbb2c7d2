"""The official TensorFlow ProGAN and StyleGAN -> our variables and settings.

Names are those of tkarras/progressive_growing_of_gans and NVlabs/stylegan, weights as
stored: before the equalizing factor. Layouts differ from ours where a dense layer
meets a feature map (theirs are CHW) and in the fused up-convolution, a transposed one,
which is ours with the kernel rotated by 180 degrees.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.config.schedules import ProgressiveSchedule
from gan_jax.importers.name_mapping import fill_variables, path_of
from gan_jax.models.base import Variables
from gan_jax.models.progan import ProGAN
from gan_jax.models.progressive import published_widths
from gan_jax.models.stylegan import StyleGAN

Kwargs = Mapping[str, Any]

# Arguments that say how the official graph is built or run, not which function it is.
_BUILD = ('structure', 'is_template_graph', 'force_clean_graph', 'dtype')
_RUN = (
  *('randomize_noise', 'dlatent_broadcast', 'is_training', 'is_validation'),
  *('truncation_psi', 'truncation_psi_val', 'truncation_cutoff_val'),
)
_WIDTHS = ('fmap_base', 'fmap_decay', 'fmap_max')
_SHARED = ('num_channels', 'resolution', 'label_size', 'use_wscale')
_PROGAN_G = (
  *('latent_size', 'normalize_latents', 'use_pixelnorm', 'pixelnorm_epsilon'),
  *('use_leakyrelu', 'fused_scale'),
)
_PROGAN_D = ('mbstd_group_size', 'fused_scale')
_STYLEGAN_G = (
  *('latent_size', 'dlatent_size', 'mapping_layers', 'mapping_fmaps'),
  *('mapping_lrmul', 'mapping_nonlinearity', 'normalize_latents', 'use_styles'),
  *('const_input_layer', 'use_noise', 'nonlinearity', 'use_pixel_norm'),
  *('use_instance_norm', 'fused_scale', 'blur_filter', 'dlatent_avg_beta'),
  *('style_mixing_prob', 'truncation_cutoff'),
)
_STYLEGAN_D = (
  *('mbstd_group_size', 'mbstd_num_features', 'fused_scale', 'blur_filter'),
  'nonlinearity',
)


def progan_from_kwargs(g: Kwargs, d: Kwargs) -> ProGAN:
  """The ProGAN of G_paper's and D_paper's keyword arguments."""
  _known(g, *_SHARED, *_WIDTHS, *_BUILD, *_PROGAN_G)
  _known(d, *_SHARED, *_WIDTHS, *_BUILD, *_PROGAN_D)
  if g.get('pixelnorm_epsilon', 1e-8) != 1e-8:
    raise UserError('pixelnorm_epsilon is fixed at 1e-8.')
  shared = _shared(g, d, num_channels=1, resolution=32)
  widths = _widths(g, shared['res'])
  return ProGAN(
    **shared,
    dim_z=g.get('latent_size') or widths[0],
    g_widths=widths,
    d_widths=_widths(d, shared['res']),
    normalize_z=g.get('normalize_latents', True),
    g_norm=g.get('use_pixelnorm', True),
    g_relu=not g.get('use_leakyrelu', True),
    d_fused=bool(d.get('fused_scale', True)),
    mbstd_group=d.get('mbstd_group_size', 4),
  )


def stylegan_from_kwargs(g: Kwargs, d: Kwargs) -> StyleGAN:
  """The StyleGAN of G_style's and D_basic's keyword arguments."""
  _known(g, *_SHARED, *_WIDTHS, *_BUILD, *_RUN, *_STYLEGAN_G)
  _known(d, *_SHARED, *_WIDTHS, *_BUILD, *_STYLEGAN_D)
  shared = _shared(g, d, num_channels=3, resolution=1024)
  return StyleGAN(
    **shared,
    dim_z=g.get('latent_size', 512),
    dim_w=g.get('dlatent_size', 512),
    g_widths=_widths(g, shared['res']),
    d_widths=_widths(d, shared['res']),
    mapping_layers=g.get('mapping_layers', 8),
    mapping_width=g.get('mapping_fmaps', 512),
    mapping_lrmul=g.get('mapping_lrmul', 0.01),
    mapping_relu=_relu(g.get('mapping_nonlinearity', 'lrelu')),
    normalize_z=g.get('normalize_latents', True),
    styles=g.get('use_styles', True),
    const=g.get('const_input_layer', True),
    noise=g.get('use_noise', True),
    g_norm=g.get('use_pixel_norm', False),
    instance_norm=g.get('use_instance_norm', True),
    g_blur=tuple(g.get('blur_filter', (1, 2, 1)) or ()),
    d_blur=tuple(d.get('blur_filter', (1, 2, 1)) or ()),
    g_relu=_relu(g.get('nonlinearity', 'lrelu')),
    d_relu=_relu(d.get('nonlinearity', 'lrelu')),
    mbstd_group=d.get('mbstd_group_size', 4),
    mbstd_features=d.get('mbstd_num_features', 1),
    mixing=_or(g.get('style_mixing_prob', 0.9), 0.0),
    w_avg_beta=_or(g.get('dlatent_avg_beta', 0.995), 1.0),
    truncated_layers=max(_or(g.get('truncation_cutoff', 8), 0), 0),
  )


def _or(value: Any, instead: Any) -> Any:
  """The official code says None where a feature is off."""
  return instead if value is None else value


def _known(kwargs: Kwargs, *names: str) -> None:
  unknown = [name for name in kwargs if name not in names]
  if unknown:
    raise UserError(f'the network has an option {unknown[0]!r} that has no place here.')


def _shared(g: Kwargs, d: Kwargs, **defaults: Any) -> dict[str, Any]:
  defaults |= {'label_size': 0, 'use_wscale': True}
  names = dict(zip(_SHARED, ('channels', 'res', 'n_classes', 'equalized')))
  found = {}
  for name, ours in names.items():
    values = {side.get(name, defaults[name]) for side in (g, d)}
    if len(values) > 1:
      raise UserError(f'G and D disagree on {name}: {values}.')
    found[ours] = values.pop()
  return found


def _widths(kwargs: Kwargs, res: int) -> tuple[int, ...]:
  given = (kwargs.get(name, v) for name, v in zip(_WIDTHS, (8192, 1.0, 512)))
  return published_widths(res, *given)


def _relu(name: str) -> bool:
  if name not in ('relu', 'lrelu'):
    raise UserError(f'nonlinearity is {name!r}: known are relu and lrelu.')
  return name == 'relu'


def convert_progressive(
  state: Mapping[str, np.ndarray],
  gan: Any,
  side: str,
  kwargs: Kwargs,
  like: Variables,
  library: str = 'tfutil',
) -> Variables:
  """Official variables of one network as ours.

  Args:
    state: arrays by official local name, such as '8x8/Conv1/weight'.
    gan: what `progan` or `stylegan` made of the arguments.
    side: 'G' or 'D'.
    kwargs: that network's arguments; `fused_scale` decides which kernels turn.
    like: variables of the network (shapes suffice), which the result fills whole.
    library: 'tfutil', or 'dnnlib' for the copy of ProGAN in the StyleGAN repository,
      whose up-convolutions have their channels in the usual order.

  Raises:
    UserError: a name without a place, a place without a name, or a shape.
  """
  shapes = {path_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(like)}
  if side == 'D':
    places = _discriminator(gan.res)
  elif isinstance(gan, ProGAN):
    places = _progan_generator(gan.res)
  else:
    places = _stylegan_generator(gan)
  default = 'auto' if isinstance(gan, StyleGAN) else True
  fused = kwargs.get('fused_scale', default)
  found, unused = {}, []
  for name, value in state.items():
    if name.rpartition('/')[2] == 'lod':
      continue  # the phase knows
    place = places.get(name)
    if place is None:
      unused.append(name)
    else:
      up = re.fullmatch(r'params/(?:synthesis/)?conv(\d+)_up/kernel', place)
      if up and _is_fused(fused, int(up[1])):
        value = value[::-1, ::-1]
        if isinstance(gan, ProGAN) and library == 'tfutil':
          value = value.swapaxes(2, 3)
      found[place] = _layout(place, value)
  return fill_variables(found, unused, like, shapes)


def _is_fused(fused: bool | str, size: int) -> bool:
  return size >= 128 if fused == 'auto' else bool(fused)


def _sizes(res: int) -> list[tuple[int, int]]:
  """(size, its lod) for 8 and up."""
  top = res.bit_length()
  return [(1 << i, top - 1 - i) for i in range(3, top)]


def _weights(modules: Mapping[str, str]) -> dict[str, str]:
  """Official layers -> the places of their weight and bias."""
  leaves = {'weight': 'kernel', 'bias': 'bias'}
  return {
    f'{theirs}/{leaf}': f'params/{ours}/{leaves[leaf]}'
    for theirs, ours in modules.items()
    for leaf in leaves
  }


def _discriminator(res: int) -> dict[str, str]:
  modules = {'4x4/Conv': 'conv4', '4x4/Dense0': 'dense0', '4x4/Dense1': 'dense1'}
  modules[f'FromRGB_lod{res.bit_length() - 3}'] = 'rgb4'
  for size, lod in _sizes(res):
    block = f'{size}x{size}'
    modules[f'{block}/Conv0'] = f'conv{size}'
    modules[f'{block}/Conv1'] = f'conv{size}_down'
    modules[f'{block}/Conv1_down'] = f'conv{size}_down'
    modules[f'FromRGB_lod{lod}'] = f'rgb{size}'
  return _weights(modules)


def _progan_generator(res: int) -> dict[str, str]:
  modules = {'4x4/Dense': 'dense', '4x4/Conv': 'conv4'}
  modules[f'ToRGB_lod{res.bit_length() - 3}'] = 'rgb4'
  for size, lod in _sizes(res):
    block = f'{size}x{size}'
    modules[f'{block}/Conv0'] = f'conv{size}_up'
    modules[f'{block}/Conv0_up'] = f'conv{size}_up'
    modules[f'{block}/Conv1'] = f'conv{size}'
    modules[f'ToRGB_lod{lod}'] = f'rgb{size}'
  return _weights(modules)


def _stylegan_generator(gan: StyleGAN) -> dict[str, str]:
  places = {
    'dlatent_avg': 'moving/w_avg',
    'G_mapping/LabelConcat/weight': 'params/mapping/embedding',
    'G_synthesis/4x4/Const/const': 'params/synthesis/const',
  }
  dense = {
    f'G_mapping/Dense{i}': f'mapping/dense{i}' for i in range(gan.mapping_layers)
  }
  dense[f'G_synthesis/ToRGB_lod{gan.res.bit_length() - 3}'] = 'synthesis/rgb4'
  for size, lod in _sizes(gan.res):
    dense[f'G_synthesis/ToRGB_lod{lod}'] = f'synthesis/rgb{size}'
  layers = [
    ('4x4/Const', '') if gan.const else ('4x4/Dense', 'dense'),
    ('4x4/Conv', 'conv4'),
  ]
  for size, _ in _sizes(gan.res):
    layers += [(f'{size}x{size}/Conv0_up', f'conv{size}_up')]
    layers += [(f'{size}x{size}/Conv1', f'conv{size}')]
  for i, (theirs, ours) in enumerate(layers):
    scope, end = f'G_synthesis/{theirs}', f'synthesis/layer{i}'
    places[f'G_synthesis/noise{i}'] = f'noise/layer{i}'
    if ours:
      places[f'{scope}/weight'] = f'params/synthesis/{ours}/kernel'
    places[f'{scope}/bias'] = f'params/{end}/bias'
    places[f'{scope}/Noise/weight'] = f'params/{end}/strength'
    dense[f'{scope}/StyleMod'] = f'{end}/style'
  return places | _weights(dense)


def _layout(place: str, value: np.ndarray) -> np.ndarray:
  """CHW -> HWC where a dense layer meets the 4x4 map, and for maps themselves."""
  layer, _, leaf = place.rpartition('/')
  name = layer.rpartition('/')[2]
  if leaf == 'const':
    return value.transpose(0, 2, 3, 1)
  if leaf == 'kernel' and name == 'dense':
    return value.reshape(len(value), -1, 16).swapaxes(1, 2).reshape(len(value), -1)
  if leaf == 'kernel' and name == 'dense0' and 'mapping' not in place:
    last = value.shape[-1]
    return value.reshape(-1, 16, last).swapaxes(0, 1).reshape(-1, last)
  return value


def growing_schedule(
  kwargs: Kwargs, res: int, devices: int = 1, **fixed: Any
) -> ProgressiveSchedule:
  """The schedule of the official training_schedule's keyword arguments.

  Args:
    res: the final resolution.
    devices: how many GPUs share a batch: it divides by them and may be capped.
    fixed: further fields of `Growing`.
  """
  first = kwargs.get('lod_initial_resolution', 4)
  sizes = tuple(first << i for i in range((res // first).bit_length()))
  base, cap = kwargs.get('minibatch_base', 16), kwargs.get('max_minibatch_per_gpu', {})
  batches = []
  for size in sizes:
    batch = _at(kwargs.get('minibatch_dict', {}), size, base)
    batch -= batch % devices
    batches.append(min(batch, _at(cap, size, batch) * devices))

  def rates(side: str) -> tuple[float, ...]:
    rate = kwargs.get(f'{side}_lrate_base', 1e-3)
    table = kwargs.get(f'{side}_lrate_dict', {})
    return tuple(_at(table, size, rate) for size in sizes)

  return ProgressiveSchedule(
    resolutions=sizes,
    batch=tuple(batches),
    stabilise=int(kwargs.get('lod_training_kimg', 600) * 1000),
    fade=int(kwargs.get('lod_transition_kimg', 600) * 1000),
    g_lr=rates('G'),
    d_lr=rates('D'),
    warmup=int(kwargs.get('lrate_rampup_kimg', 0) * 1000),
    **fixed,
  )


def _at(table: Mapping[Any, Any], size: int, default: Any) -> Any:
  """An entry under a number or, as in JSON, its digits."""
  return table.get(size, table.get(str(size), default))
