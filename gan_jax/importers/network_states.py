"""Finds the networks in the contents of a file, whatever wrappers put before names.

DataParallel, torch.compile, FSDP, Lightning, wrappers of EMA weights, and scripts that
save several networks in one file all extend the official names, as in
'state_dict.generator_ema._orig_mod.module.linear.weight'. A name is cut where its
official part begins, and names with the same beginning are one network. Its official
names alone say whether it is a generator. That every array has a place and every place
an array is checked when the network is converted.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gan_jax import UserError
from gan_jax.importers.folders import exported
from gan_jax.storage.file_kinds import IMPORTED
from gan_jax.storage.weights import named_leaves

Kind = Literal['G', 'D', 'Hugging Face G']

# Where the official part of a name begins.
_OFFICIAL = re.compile(
  r'(?:^|(?<=[./]))(?:(?:linear|shared|embed|embeddings|blocks|output_layer|input_conv)'
  r'\.|generator\.(?:gen_z|layers|bn|conv_to_rgb)\.)'
)
# Official names that only a network of this kind has; the first match decides.
_KINDS: tuple[tuple[str, Kind], ...] = (
  (r'generator\.', 'Hugging Face G'),
  (r'output_layer\.', 'G'),
  (r'blocks\.\d+\.\d+\.conv1\.weight', 'D'),
)
# Wrappers of a single module, which may be anywhere in a name.
_WRAPPERS = re.compile(
  r'(?:^|(?<=[./]))(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|'
  r'_checkpoint_wrapped_module)[./]'
)
_EMA_WORDS = {'ema', 'avg', 'average', 'averaged', 'running', 'shadow', 'swa', 'gs'}
_COUNTERS = {
  'n_averaged', 'num_updates', 'decay', 'step', 'steps', 'initted', 'epoch',
  'global_step', 'itr', 'iteration',
}  # fmt: skip
_TRAINING_STATE = re.compile(
  r'optim|sched|scaler|callback|loops|hyper_?param|config|kwargs', re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class NetworkState:
  """One network of a file.

  Attributes:
    kind: a generator or discriminator of BigGAN-PyTorch, or a generator of Hugging
      Face.
    prefix: what all its names begin with, besides wrappers of a single module.
    arrays: by official name, in the order of the file.
  """

  kind: Kind
  prefix: str
  arrays: dict[str, np.ndarray]

  @property
  def is_ema(self) -> bool:
    """Whether a word of the prefix says so, as in 'G_ema.' or 'averagedModel.'."""
    words = re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+', self.prefix)
    return not _EMA_WORDS.isdisjoint(word.lower() for word in words)


def find_networks(path: Path, tree: Any) -> tuple[list[NetworkState], list[str]]:
  """The networks in what `read_weights` read, and the keys that were left out.

  Containers without a network are left out, such as those of optimizers. Beside a
  network, only counters are.

  Raises:
    UserError: an array beside a network, or two arrays of one name.
  """
  left_out: list[str] = []
  groups: dict[str, dict[str, np.ndarray]] = {}
  others = []
  for name, value in _arrays_near_networks(tree, '', left_out):
    bare = _WRAPPERS.sub('', name)
    official = _OFFICIAL.search(bare)
    if official is None:
      counts = value.size <= 1 and re.split('[./]', bare)[-1] in _COUNTERS
      others += [] if counts else [name]
      continue
    group = groups.setdefault(bare[: official.start()], {})
    if bare[official.start() :] in group:
      raise UserError(
        f'{path} has two arrays {bare[:80]!r}, one of them as {name[:120]!r}: save the '
        'state_dict() of one network.'
      )
    group[bare[official.start() :]] = value
  networks = []
  for prefix, arrays in groups.items():
    kind = _kind(arrays)
    if kind is None:
      others += [f'{prefix}{name}' for name in arrays]
    else:
      networks.append(NetworkState(kind, prefix, arrays))
  if networks and others:
    raise UserError(
      f'{path} has arrays that belong to none of its networks '
      f'({", ".join(others[:3])[:300]}): save the state_dict() of the network alone.'
    )
  return networks, left_out


def _kind(names: Mapping[str, Any]) -> Kind | None:
  for pattern, kind in _KINDS:
    if any(re.match(pattern, name) for name in names):
      return kind
  return None


def _arrays_near_networks(
  node: Any, prefix: str, left_out: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
  """(name, array) of each array but those of containers without a network.

  Args:
    left_out: the names of such containers are added to it.
  """
  if not isinstance(node, dict | list | tuple):
    return
  items = node.items() if isinstance(node, dict) else enumerate(node)
  for key, value in items:
    name = f'{prefix}{key}'
    if isinstance(value, np.ndarray):
      yield name, value
    elif isinstance(value, dict | list | tuple) and value:
      leaves = (f'{name}.{leaf}' for leaf, _ in named_leaves(value))
      if not _TRAINING_STATE.search(str(key)) and any(map(_OFFICIAL.search, leaves)):
        yield from _arrays_near_networks(value, f'{name}.', left_out)
      else:
        left_out.append(name)


def assign_roles(
  path: Path, networks: Sequence[NetworkState]
) -> dict[str, NetworkState]:
  """The networks by role: 'G', 'G_ema' and 'D', as many as there are.

  Raises:
    UserError: several networks could have the same role.
  """
  if len({network.kind == 'Hugging Face G' for network in networks}) > 1:
    raise UserError(f'{path} has networks of two codebases: save each in its own file.')
  roles: dict[str, NetworkState] = {}
  for network in networks:
    role = 'D' if network.kind == 'D' else 'G_ema' if network.is_ema else 'G'
    if role in roles:
      found = ', '.join(repr(n.prefix) for n in networks if n.kind == network.kind)
      what = 'discriminators' if role == 'D' else 'generators'
      raise UserError(
        f'{path} has several {what}, with names that begin with {found}, and nothing '
        f'says which one is {role}: save the state_dict() of each as G.pth, G_ema.pth '
        'or D.pth of one folder.'
      )
    roles[role] = network
  return roles


# A name in a file of arrays -> whose it is.
_OTHER_NETWORKS = (
  (r'synthesis\.b\d+\.|mapping\.fc\d', 'a StyleGAN2 network of NVIDIA (PyTorch)'),
  (r'synthesis\.L\d+_', 'a StyleGAN3 network of NVIDIA'),
  (r'\.modulation\.(?:weight|bias)', 'a StyleGAN2 network of another codebase'),
  (r'\bconv2d\d\.(?:weight|bias)', 'a network of PyTorch-StudioGAN'),
  (r'\b(?:scaleLayers|toRGBLayers)\.', 'a ProGAN of pytorch_GAN_zoo'),
)


def other_networks_error(path: Path, tree: Any) -> UserError:
  """The error for a file without a network that can be imported: what it has."""
  names = [name or 'one without a name' for name, x in named_leaves(tree) if x.ndim]
  if any(name.startswith('params/') for name in names):
    return UserError(exported(path.with_suffix('.stablehlo'), path))
  for pattern, what in _OTHER_NETWORKS:
    if any(re.search(pattern, name) for name in names):
      return UserError(f'{path} has {what}: {IMPORTED}.')
  shadows = [name for name in names if re.search(r'shadow_params\.\d', name)]
  if shadows:
    return UserError(
      f'{path} has EMA weights without names ({shadows[0]}, ...): copy them into the '
      'network (copy_to) and save its state_dict().'
    )
  if not names:
    return UserError(f'{path} has no arrays: {IMPORTED}.')
  return UserError(
    f'{path} has arrays such as {", ".join(names[:3])[:200]}, which are those of no '
    f'network that can be imported: {IMPORTED}.'
  )
