"""Reads published weights of any supported format.

  folder with G.pth, D.pth, G_ema.pth, G_optim.pth, ...  BigGAN-PyTorch
  folder with pytorch_model.bin and config.json          pytorch-pretrained-BigGAN
  file with NVIDIA's (G, D, Gs)                           ProGAN or StyleGAN
  file with named arrays                                  any of these

Contents decide what a file is, not its name. No code in a file runs: see
`gan_jax.storage.weights`. Every array must have a place in the network and every place
an array; otherwise an error names them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.importers import folders
from gan_jax.importers.biggan_pytorch import (
  left_out_note,
  read_biggan_file,
  read_biggan_folder,
)
from gan_jax.importers.huggingface import (
  huggingface_file,
  read_config,
  read_huggingface,
)
from gan_jax.importers.named_arrays import has_progressive_names, read_named_arrays
from gan_jax.importers.network_states import find_networks, other_networks_error
from gan_jax.importers.nvidia import progressive_from_networks
from gan_jax.importers.published_model import PublishedModel
from gan_jax.runtime.errors import closest
from gan_jax.storage import weights
from gan_jax.storage.nested import flatten


def read_published(path: Path | str, suffix: str = '') -> PublishedModel:
  """Reads a file or folder of published weights.

  Args:
    suffix: of the files of a BigGAN-PyTorch folder: 'best0' reads G_best0.pth, ...

  Raises:
    UserError: an unknown format, an unsafe or corrupted file, weights that do not fit
      the network, or non-finite weights.
  """
  path = Path(path)
  with _errors_name(path):
    model = _read(path, suffix)
    _check_finite(model)
  return model


def _read(path: Path, suffix: str) -> PublishedModel:
  if path.is_dir():
    return _read_folder(path, suffix)
  if not path.exists():
    raise _missing(path)
  if not path.is_file():
    raise UserError(f'{path} is neither a file nor a folder: save what it gives first.')
  if suffix:
    raise UserError(
      f'--suffix={suffix} selects files of a BigGAN-PyTorch folder, and {path} is a '
      'file: leave it out.'
    )
  if path.suffix == '.stablehlo':
    raise UserError(folders.exported(path, path))
  folders.refuse_part(path)
  return _read_file(path, path)


def _read_folder(folder: Path, suffix: str) -> PublishedModel:
  folders.refuse_own(folder)
  if any(folders.role_file(folder, role, suffix) for role in ('G', 'G_ema')):
    return read_biggan_folder(folder, suffix)
  weight_file = huggingface_file(folder)
  if weight_file is None or suffix:
    raise folders.other_folder_error(folder, suffix)
  weights.check_kind(weight_file)
  read_config(weight_file)
  return _read_file(folder, weight_file)


def _read_file(path: Path, file: Path) -> PublishedModel:
  """The model of a file; `path` is the file, or the folder that was given."""
  contents = weights.read_weights(file)
  if contents.networks:
    return progressive_from_networks(path, contents.networks)
  networks, left_out = find_networks(file, contents.tree)
  notes = tuple(left_out_note(file, left_out))
  if not networks:
    arrays = contents.tree
    if isinstance(arrays, dict) and arrays and has_progressive_names(arrays):
      return read_named_arrays(path, arrays)
    raise other_networks_error(file, arrays)
  if all(network.kind == 'Hugging Face G' for network in networks):
    return read_huggingface(path, file, networks, notes)
  return read_biggan_file(path, networks, notes)


def _missing(path: Path) -> UserError:
  """The error for a missing source, with what lies there instead."""
  if address := re.match(r'(https?|ftp|s3|gs|hf):/+(.+)', str(path)):
    return UserError(
      f'{address[1]}://{address[2]} is an address (read as the path {path}): download '
      'the file, and give its path.'
    )
  if path.is_symlink():
    return UserError(f'{path}, {folders.missing_target(path)}.')
  parent = path.parent
  names = sorted(p.name for p in parent.iterdir()) if parent.is_dir() else []
  likely = closest(path.name, names, 3) or [
    name for name in names if name.startswith(path.stem)
  ]
  there = f'; {parent} has {", ".join(likely[:5])}' if likely else ''
  return UserError(
    f'{path}: there is no such file or folder{there}; give a file or folder of this '
    'machine, downloaded before.'
  )


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
  """Turns every error into a UserError that names the path.

  Sizes and names of an untrusted file that contradict each other can raise anything.
  """
  try:
    yield
  except UserError as error:
    message = str(error)
    raise UserError(message if str(path) in message else f'{path}: {message}') from None
  except Exception as error:
    message = str(error).splitlines()[0][:200] if str(error) else ''
    raise UserError(
      f'{path} holds weights and settings that do not fit together '
      f'({type(error).__name__}: {message}).'
    ) from None


def _check_finite(model: PublishedModel) -> None:
  for name, variables in {'g': model.g, 'd': model.d or {}, 'ema': model.ema}.items():
    for array_path, x in flatten(variables, '/').items():
      if not np.isfinite(np.asarray(x, np.float32)).all():
        raise UserError(f'{model.path} has non-finite values in {name}/{array_path}.')
