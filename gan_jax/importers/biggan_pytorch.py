"""Reads checkpoint folders of BigGAN-PyTorch (github.com/ajbrock/BigGAN-PyTorch)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.importers.biggan_names import (
  BIGGAN_D,
  BIGGAN_DEEP_D,
  BIGGAN_G,
  convert_biggan,
)
from gan_jax.importers.biggan_settings import biggan_from_kwargs, infer_settings
from gan_jax.importers.folders import ROLES, role_file
from gan_jax.importers.name_mapping import Arrays, NameTable
from gan_jax.importers.network_states import (
  NetworkState,
  assign_roles,
  find_networks,
  other_networks_error,
)
from gan_jax.importers.published_model import (
  UNKNOWN_DATASET,
  AdamMoments,
  PublishedModel,
  RawConfig,
  check_settings,
  complete_config,
)
from gan_jax.models.base import GAN, Variables, variable_shapes
from gan_jax.models.biggan import BigGAN
from gan_jax.sampling.export import model_section
from gan_jax.storage import weights

# Settings of the launch scripts that weights do not determine.
SCRIPT_SETTINGS = {'SN_eps': 1e-6, 'BN_eps': 1e-5, 'adam_eps': 1e-6}


def read_biggan_folder(folder: Path, suffix: str = '') -> PublishedModel:
  """G, D, EMA weights, optimizers and settings, as far as the folder has them.

  Args:
    suffix: of the file names: 'best0' reads G_best0.pth, ...

  Raises:
    UserError: no weights of G, or weights and settings that do not fit together.
  """
  states, notes, ordered = {}, [], []
  for role in ROLES:
    if path := role_file(folder, role, suffix):
      file = weights.read_weights(path)
      states[role], left_out = _network_of_role(path, role, file.tree)
      notes += left_out_note(path, left_out)
      ordered += [role] if file.ordered else []
  trees = {}
  for name in ('G_optim', 'D_optim', 'state_dict'):
    path = role_file(folder, name, suffix)
    # An optimizer numbers the parameters, so their order has to be known.
    if path and (name == 'state_dict' or name[0] in ordered):
      trees[name] = weights.read_tree(path)
  return biggan_from_states(folder, states, trees, tuple(notes))


def _network_of_role(path: Path, role: str, tree: Any) -> tuple[Arrays, list[str]]:
  """The network that a file is named after, and what else the file has."""
  networks, left_out = find_networks(path, tree)
  roles = assign_roles(path, networks)
  candidates = {'D': ('D',), 'G': ('G', 'G_ema'), 'G_ema': ('G_ema', 'G')}[role]
  chosen = next((r for r in candidates if r in roles), None)
  if not networks:
    raise other_networks_error(path, tree)
  if chosen is None or roles[chosen].kind == 'Hugging Face G':
    held = 'a discriminator of' if 'D' in roles else 'a generator of'
    source = 'Hugging Face' if networks[0].kind[0] == 'H' else 'BigGAN-PyTorch'
    raise UserError(
      f'{path} has {held} {source}, but its name is that of {role} of BigGAN-PyTorch: '
      'rename the file to what it has.'
    )
  left_out += [roles[r].prefix.rstrip('./') or r for r in roles if r != chosen]
  return roles[chosen].arrays, left_out


def read_biggan_file(
  path: Path, networks: Sequence[NetworkState], notes: tuple[str, ...] = ()
) -> PublishedModel:
  """The model of one file, which has a generator and perhaps EMA weights and D.

  Raises:
    UserError: a discriminator alone, or networks that do not fit together.
  """
  roles = assign_roles(path, networks)
  if not {'G', 'G_ema'} & roles.keys():
    raise UserError(
      f'{path} has a discriminator only, and a run needs a generator: give the folder '
      'with G.pth or G_ema.pth.'
    )
  states = {role: network.arrays for role, network in roles.items()}
  return biggan_from_states(path, states, {}, notes)


def left_out_note(path: Path, left_out: Sequence[str]) -> list[str]:
  """The note about keys of a file that were not imported."""
  if not left_out:
    return []
  return [f'not imported from {path.name}: {", ".join(left_out)[:200]}']


def biggan_from_states(
  path: Path,
  states: Mapping[str, Arrays],
  trees: Mapping[str, Any],
  notes: tuple[str, ...] = (),
) -> PublishedModel:
  """The model of state_dicts.

  Args:
    states: state_dicts of 'G', 'G_ema' and 'D', with G or G_ema among them.
    trees: contents of 'G_optim', 'D_optim' and 'state_dict', as many as there are.
    notes: sentences for `PublishedModel.notes`.
  """
  saved = trees.get('state_dict', {})
  settings = {**SCRIPT_SETTINGS, **infer_settings(states), **_saved_settings(saved)}
  check_settings(settings)
  gan = _build_gan(settings, 'D' in states)
  like_g, like_d = variable_shapes(gan)
  table_d = BIGGAN_DEEP_D if settings['deep'] else BIGGAN_D
  g = convert_biggan(states.get('G') or states['G_ema'], BIGGAN_G, like_g)
  ema = convert_biggan(states['G_ema'], BIGGAN_G, like_g) if 'G_ema' in states else g
  d = convert_biggan(states['D'], table_d, like_d) if 'D' in states else None
  moments = {
    side: _adam_moments(trees[f'{side}_optim'], states[side], table, like)
    for side, table, like in (('G', BIGGAN_G, like_g), ('D', table_d, like_d))
    if f'{side}_optim' in trees and side in states
  }
  step = int(saved.get('itr', 0))
  return PublishedModel(
    path=path,
    kind='BigGAN-PyTorch',
    gan=gan,
    g=g,
    ema=ema,
    d=d,
    g_moments=moments.get('G'),
    d_moments=moments.get('D'),
    step=step,
    training_config=lambda gan: biggan_training_config(gan, settings, step),
    notes=notes + _notes(states, saved, moments),
  )


def _saved_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
  """The command-line settings of state_dict.pth that are plain values."""
  if not isinstance(saved.get('config'), dict):
    return {}
  return {
    name: value
    for name, value in saved['config'].items()
    if isinstance(value, str | int | float | bool)
  }


def _build_gan(settings: Mapping[str, Any], has_d: bool) -> BigGAN:
  gan = biggan_from_kwargs(settings, settings if has_d else {}, settings['deep'])
  if not has_d:
    d_attention = (64,) if gan.res > 64 else ()
    gan = dataclasses.replace(gan, d_ch=gan.g_ch, d_attention=d_attention)
  return dataclasses.replace(gan, split_d=bool(settings.get('split_D', False)))


def _notes(
  states: Mapping[str, Arrays],
  saved: Mapping[str, Any],
  moments: Mapping[str, AdamMoments | None],
) -> tuple[str, ...]:
  notes = []
  if not isinstance(saved.get('config'), dict):
    values = ', '.join(f'{k}={v:g}' for k, v in SCRIPT_SETTINGS.items())
    notes.append(
      'settings that weights do not determine are those of the launch scripts: '
      + values
    )
  if 'D' not in states:
    notes.append('D is missing: it starts from new weights')
  elif len(states) < 3:
    notes.append(
      'only one generator is present: EMA weights and weights of G are equal'
    )
  notes += [
    f'the optimizer of {side} is missing: it starts anew'
    for side in 'GD'
    if side not in moments
  ]
  return tuple(notes)


_BUFFERS = (
  r'(.*\.)?(u\d+|sv\d+|stored_\w+|running_\w+|accumulation_\w+|num_batches_\w+)'
)


def _adam_moments(
  tree: Any, state: Arrays, table: NameTable, like: Variables
) -> AdamMoments | None:
  """State of torch.optim.Adam, which numbers parameters in the order of `state`."""
  names = [name for name in state if not re.fullmatch(_BUFFERS, name)]
  numbers = [i for group in tree['param_groups'] for i in group['params']]
  if len(numbers) != len(names):
    raise UserError(
      f'an optimizer has {len(numbers)} parameters and its network {len(names)}.'
    )
  if not tree['state']:
    return None

  def convert(kind: str) -> Variables:
    moment = {
      name: tree['state'][i][kind] for name, i in zip(names, numbers, strict=True)
    }
    return convert_biggan(moment, table, {'params': like['params']})['params']

  steps = max(int(tree['state'][i]['step']) for i in numbers)
  return AdamMoments(steps, convert('exp_avg'), convert('exp_avg_sq'))


_DATASETS = {'C10': 'cifar10', 'C100': 'cifar100'}


def biggan_training_config(
  gan: GAN, settings: Mapping[str, Any], step: int
) -> tuple[RawConfig, int]:
  """A raw config that continues after iteration `step`, and the images seen."""
  d_steps = settings.get('num_D_steps', 2)
  accum = settings.get('num_D_accumulations', 1)
  g_accum = settings.get('num_G_accumulations', 1)
  batch = settings.get('batch_size', 256)
  g_batch = max(settings.get('G_batch_size', 0), batch)
  images_per_step = batch * accum * d_steps
  images_seen = step * images_per_step
  sections = {
    'model': model_section(gan),
    'schedule': {
      'batch': batch * accum,
      'g_lr': float(settings.get('G_lr', 5e-5)),
      'd_lr': float(settings.get('D_lr', 2e-4)),
      'ema': float(settings.get('ema_decay', 0.9999)),
      'ema_start': max(settings.get('ema_start', 0) - 1, 0) * images_per_step,
    },
    'g_adam': _adam_section(settings, 'G'),
    'd_adam': _adam_section(settings, 'D'),
    'train': {
      'd_steps': d_steps,
      'accum': accum,
      'g_accum': 0 if g_accum == accum else g_accum,
      'g_batch': 0 if g_batch * g_accum == batch * accum else g_batch * g_accum,
    },
  }
  dataset = _dataset_name(str(settings.get('dataset', '')))
  return complete_config(sections, dataset, images_seen, images_per_step), images_seen


def _adam_section(settings: Mapping[str, Any], side: str) -> dict[str, float]:
  return {
    'beta1': float(settings.get(f'{side}_B1', 0.0)),
    'beta2': float(settings.get(f'{side}_B2', 0.999)),
    'eps': float(settings['adam_eps']),
    'ortho': float(settings.get(f'{side}_ortho', 0.0)),
  }


def _dataset_name(official: str) -> str:
  """'C10' -> 'cifar10'; 'I128' and other names with I are sizes of ImageNet."""
  if official.startswith('I'):
    return 'imagenet2012'
  return _DATASETS.get(official, UNKNOWN_DATASET)


def official_dataset(name: str, res: int) -> dict[str, str]:
  """The setting of a data set that BigGAN-PyTorch has: inverse of `_dataset_name`."""
  names = {ours: official for official, ours in _DATASETS.items()}
  names['imagenet2012'] = f'I{res}'
  return {'dataset': names[name]} if name in names else {}
