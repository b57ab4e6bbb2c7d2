"""Reads published weights of any supported format.

  folder with G.pth, D.pth, G_ema.pth, G_optim.pth, ...  BigGAN-PyTorch
  folder with pytorch_model.bin and config.json          pytorch-pretrained-BigGAN
  .pkl                                                    NVIDIA's (G, D, Gs)
  .npz or .safetensors                                    named arrays of any of these

No code in a file runs: see `gan_jax.storage.weights`. Every array must have a place in
the network and every place an array; otherwise an error names them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.importers.biggan_pytorch import read_biggan_folder
from gan_jax.importers.huggingface import is_huggingface_folder, read_huggingface_folder
from gan_jax.importers.named_arrays import read_named_arrays
from gan_jax.importers.nvidia import read_nvidia_pickle
from gan_jax.importers.published_model import PublishedModel
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
    if is_huggingface_folder(path):
      return read_huggingface_folder(path)
    return read_biggan_folder(path, suffix)
  if path.suffix in ('.npz', '.safetensors'):
    return read_named_arrays(path)
  if path.suffix in ('.pth', '.bin'):
    raise UserError(f'{path} is one of several files: give the folder that has them.')
  return read_nvidia_pickle(path)


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
