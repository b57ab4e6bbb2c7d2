"""The official names of ProGAN and StyleGAN in one .npz or .safetensors file.

Names are 'G/...', 'D/...' and 'Gs/...', each followed by the official name. A .json
file of the same name beside it has the keyword arguments G_kwargs and D_kwargs.
"""

import json
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.importers.name_mapping import Arrays
from gan_jax.importers.nvidia import progressive_from_states
from gan_jax.importers.published_model import PublishedModel

ROLES = ('G', 'D', 'Gs')


def has_progressive_names(arrays: Arrays) -> bool:
  """Whether all names begin with a role, as in 'Gs/8x8/Conv0_up/weight'."""
  return all(name.partition('/')[0] in ROLES for name in arrays)


def read_named_arrays(path: Path, arrays: Arrays) -> PublishedModel:
  """The ProGAN or StyleGAN of arrays that `has_progressive_names`.

  Raises:
    UserError: a missing .json file, or arrays that do not fit.
  """
  states: dict[str, dict[str, np.ndarray]] = {}
  for name, value in arrays.items():
    role, _, official_name = name.partition('/')
    states.setdefault(role, {})[official_name] = value
  if 'G' not in states and 'Gs' not in states:
    raise UserError(f'{path} has a discriminator only, and a run needs a generator.')
  candidates = [
    path.with_suffix('.json'),
    path.with_name(path.stem.removesuffix('_vars') + '.json'),
  ]
  described = [p for p in candidates if p.is_file()]
  if not described or 'G' not in states:
    raise UserError(
      f'{path} needs arrays of G, and {candidates[0].name} beside it with G_kwargs and '
      'D_kwargs, the arguments of the official networks.'
    )
  meta = json.loads(described[0].read_text())
  g_kwargs, d_kwargs = (meta[f'{side}_kwargs'] for side in 'GD')
  states.setdefault('Gs', states['G'])
  library = str(meta.get('library', 'tfutil'))
  return progressive_from_states(path, states, g_kwargs, d_kwargs, library)
