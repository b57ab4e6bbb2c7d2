"""Reads official names from one .npz or .safetensors file, without a pickle.

Names are 'G/...', 'D/...' and 'Gs/...' or 'G_ema/...', each followed by the official
name. For ProGAN and StyleGAN, a .json file of the same name beside it has the keyword
arguments G_kwargs and D_kwargs; for BigGAN-PyTorch, the weights determine them.
"""

import json
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.importers.biggan_pytorch import biggan_from_states
from gan_jax.importers.nvidia import progressive_from_states
from gan_jax.importers.published_model import PublishedModel
from gan_jax.storage import weights

ROLES = ('G', 'D', 'Gs', 'G_ema')


def read_named_arrays(path: Path) -> PublishedModel:
  """The model of a file of named arrays.

  Raises:
    UserError: other names, a missing .json file, or arrays that do not fit.
  """
  states: dict[str, dict[str, np.ndarray]] = {}
  for name, value in weights.read_arrays(path).items():
    role, _, official_name = name.partition('/')
    if role not in ROLES:
      raise UserError(
        f'{path} has the name {name[:80]!r}: each name needs one of the prefixes G/, '
        'D/, Gs/ and G_ema/ before the official name.'
      )
    states.setdefault(role, {})[official_name] = value
  if any('linear.weight' in state for state in states.values()):
    return biggan_from_states(path, states, {})
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
