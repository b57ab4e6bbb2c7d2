"""The keyword arguments of the official TensorFlow networks as ProGAN and StyleGAN.

`official_kwargs` is the inverse. Whether the official code can build a model, comparing
it with `progan_from_kwargs` or `stylegan_from_kwargs` of the result tells.
"""

import math
from collections.abc import Mapping
from typing import Any

from gan_jax import UserError
from gan_jax.models.progan import ProGAN
from gan_jax.models.progressive import published_widths
from gan_jax.models.stylegan import StyleGAN

Kwargs = Mapping[str, Any]

# Arguments that say how the official graph is built or run, not which function it is.
_BUILD = ('structure', 'is_template_graph', 'force_clean_graph', 'dtype')
_RUN = (
  *('randomize_noise', 'dlatent_broadcast', 'is_training', 'is_validation'),
  *('truncation_psi_val', 'truncation_cutoff_val'),
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
  *('style_mixing_prob', 'truncation_psi', 'truncation_cutoff'),
)
_STYLEGAN_D = (
  *('mbstd_group_size', 'mbstd_num_features', 'fused_scale', 'blur_filter'),
  'nonlinearity',
)


def progan_from_kwargs(g: Kwargs, d: Kwargs) -> ProGAN:
  """The ProGAN of the keyword arguments of G_paper and D_paper.

  Raises:
    UserError: an unknown argument, or values that G and D do not share.
  """
  _check_known(g, *_SHARED, *_WIDTHS, *_BUILD, *_PROGAN_G)
  _check_known(d, *_SHARED, *_WIDTHS, *_BUILD, *_PROGAN_D)
  if (epsilon := g.get('pixelnorm_epsilon', 1e-8)) != 1e-8:
    raise UserError(f'pixelnorm_epsilon is {epsilon}: only 1e-8 is supported.')
  shared = _shared_fields(g, d, num_channels=1, resolution=32)
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
  """The StyleGAN of the keyword arguments of G_style and D_basic.

  Raises:
    UserError: an unknown argument, or values that G and D do not share.
  """
  _check_known(g, *_SHARED, *_WIDTHS, *_BUILD, *_RUN, *_STYLEGAN_G)
  _check_known(d, *_SHARED, *_WIDTHS, *_BUILD, *_STYLEGAN_D)
  shared = _shared_fields(g, d, num_channels=3, resolution=1024)
  return StyleGAN(
    **shared,
    dim_z=g.get('latent_size', 512),
    dim_w=g.get('dlatent_size', 512),
    g_widths=_widths(g, shared['res']),
    d_widths=_widths(d, shared['res']),
    mapping_layers=g.get('mapping_layers', 8),
    mapping_width=g.get('mapping_fmaps', 512),
    mapping_lrmul=g.get('mapping_lrmul', 0.01),
    mapping_relu=_is_relu(g.get('mapping_nonlinearity', 'lrelu')),
    normalize_z=g.get('normalize_latents', True),
    styles=g.get('use_styles', True),
    const=g.get('const_input_layer', True),
    noise=g.get('use_noise', True),
    g_norm=g.get('use_pixel_norm', False),
    instance_norm=g.get('use_instance_norm', True),
    g_blur=tuple(g.get('blur_filter', (1, 2, 1)) or ()),
    d_blur=tuple(d.get('blur_filter', (1, 2, 1)) or ()),
    g_relu=_is_relu(g.get('nonlinearity', 'lrelu')),
    d_relu=_is_relu(d.get('nonlinearity', 'lrelu')),
    mbstd_group=d.get('mbstd_group_size', 4),
    mbstd_features=d.get('mbstd_num_features', 1),
    mixing=_get_or_off(g, 'style_mixing_prob', 0.9, off=0.0),
    w_avg_beta=_get_or_off(g, 'dlatent_avg_beta', 0.995, off=1.0),
    truncation_psi=_get_or_off(g, 'truncation_psi', 0.7, off=1.0),
    truncated_layers=max(_get_or_off(g, 'truncation_cutoff', 8, off=0), 0),
  )


def _get_or_off(kwargs: Kwargs, name: str, default: Any, off: Any) -> Any:
  """The argument; None means `off` in the official code."""
  value = kwargs.get(name, default)
  return off if value is None else value


def _check_known(kwargs: Kwargs, *names: str) -> None:
  unknown = [name for name in kwargs if name not in names]
  if unknown:
    raise UserError(f'the network has the unsupported argument {unknown[0]!r}.')


def _shared_fields(g: Kwargs, d: Kwargs, **defaults: Any) -> dict[str, Any]:
  """Fields of the model that G and D must agree on."""
  defaults |= {'label_size': 0, 'use_wscale': True}
  fields = ('channels', 'res', 'n_classes', 'equalized')
  shared = {}
  for name, field in zip(_SHARED, fields, strict=True):
    values = {side.get(name, defaults[name]) for side in (g, d)}
    if len(values) > 1:
      raise UserError(f'G and D have different values of {name}: {values}.')
    shared[field] = values.pop()
  return shared


def _widths(kwargs: Kwargs, res: int) -> tuple[int, ...]:
  """Channels of the feature maps from 4x4 pixels to the resolution."""
  defaults = (8192, 1.0, 512)
  values = (kwargs.get(name, v) for name, v in zip(_WIDTHS, defaults, strict=True))
  return published_widths(res, *values)


def _is_relu(name: str) -> bool:
  if name not in ('relu', 'lrelu'):
    raise UserError(f'nonlinearity is {name!r}: allowed are relu and lrelu.')
  return name == 'relu'


def official_kwargs(gan: ProGAN | StyleGAN) -> tuple[dict[str, Any], dict[str, Any]]:
  """Keyword arguments of G and D; nearest ones where the official code has none."""
  values = (gan.channels, gan.res, gan.n_classes, gan.equalized)
  shared = dict(zip(_SHARED, values, strict=True))
  g = {**shared, **_width_kwargs(gan.g_widths or published_widths(gan.res))}
  d = {**shared, **_width_kwargs(gan.d_widths or published_widths(gan.res))}
  d['mbstd_group_size'] = gan.mbstd_group
  g |= {'latent_size': gan.dim_z, 'normalize_latents': gan.normalize_z}
  if isinstance(gan, ProGAN):
    g |= {'use_pixelnorm': gan.g_norm, 'use_leakyrelu': not gan.g_relu}
    return g, {**d, 'fused_scale': gan.d_fused}
  relu = lambda is_relu: 'relu' if is_relu else 'lrelu'
  g |= {
    'dlatent_size': gan.dim_w,
    'mapping_layers': gan.mapping_layers,
    'mapping_fmaps': gan.mapping_width,
    'mapping_lrmul': gan.mapping_lrmul,
    'mapping_nonlinearity': relu(gan.mapping_relu),
    'use_styles': gan.styles,
    'const_input_layer': gan.const,
    'use_noise': gan.noise,
    'use_pixel_norm': gan.g_norm,
    'use_instance_norm': gan.instance_norm,
    'blur_filter': list(gan.g_blur) or None,
    'nonlinearity': relu(gan.g_relu),
    'style_mixing_prob': gan.mixing or None,
    'dlatent_avg_beta': gan.w_avg_beta,
    'truncation_psi': gan.truncation_psi,
    'truncation_cutoff': gan.truncated_layers,
  }
  d |= {
    'blur_filter': list(gan.d_blur) or None,
    'nonlinearity': relu(gan.d_relu),
    'mbstd_num_features': gan.mbstd_features,
  }
  return g, d


def _width_kwargs(widths: tuple[int, ...]) -> dict[str, Any]:
  """fmap_base, fmap_decay and fmap_max of a table of widths, if it has them."""
  pairs = zip(widths, widths[1:], strict=False)
  decays = [1.0, *sorted({math.log2(a / b) for a, b in pairs if a > b})]
  for decay in decays:
    bases = (width * 2 ** (stage * decay) for stage, width in enumerate(widths))
    base = math.ceil(max(bases))
    found = dict(zip(_WIDTHS, (base, decay, widths[0]), strict=True))
    if _widths(found, 1 << len(widths)) == widths:
      break
  return found
