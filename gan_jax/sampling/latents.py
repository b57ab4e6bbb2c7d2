"""Latents of images as .npz files, written by `gan_jax.sample` or by anyone.

An .npz file of the latents of n images has

  z         float [n, dim_z], or
  w         float [n, dim_w], before truncation (StyleGAN), or
  w_plus    float [n, layers, dim_w], one w per synthesis layer (StyleGAN);

exactly one of these, and, where they are known,

  labels      int [n], or weights over the classes, float [n, n_classes]
  psi         a number: psi of the images if no other is given. Without it z takes the
              default of the model, and w and w_plus are taken as they are (1)
  truncation  a number: threshold that z was drawn with, for batch statistics
  seeds       uint32 [n], of the noise of a StyleGAN; 0 to n-1 without it
  noise0, noise1, ...  float [n or 1, h, w, 1], the noise of each synthesis layer in
              place of that from the seeds
  model       text: `gan_jax.config.workdir.model_identity` of the model. Without it
              the shapes alone decide which models take the latents

Latents, class weights and noise are written as float32.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from gan_jax import UserError
from gan_jax.runtime.image_size import Size, format_side
from gan_jax.runtime.urls import check_path
from gan_jax.storage.files import atomic_path
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

Space = Literal['z', 'w', 'w_plus']
SPACES: dict[Space, int] = {'z': 2, 'w': 2, 'w_plus': 3}  # dimensions of their arrays
MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Latents:
  """The latents of n images; see the module for the meaning of each field.

  Attributes:
    space: what `values` are.
    values: float32 [n, dim_z], [n, dim_w] or [n, layers, dim_w].
    labels: int [n], or float32 [n, n_classes]; None: there are none.
    psi: None: not known.
    truncation: inf: z was not truncated.
    seeds: uint32 [n]; None: 0 to n-1.
    noise: one float32 [n or 1, h, w, 1] per synthesis layer; (): from the seeds.
    model: identity of the model; '': not known.
  """

  space: Space
  values: Float[np.ndarray, 'n ...']
  labels: Num[np.ndarray, 'n ...'] | None = None
  psi: float | None = None
  truncation: float = math.inf
  seeds: np.ndarray | None = None
  noise: tuple[Float[np.ndarray, '_ h w 1'], ...] = ()
  model: str = ''

  def __len__(self) -> int:
    return len(self.values)


class LatentShapes(NamedTuple):
  """What a model takes.

  Attributes:
    dim_w: 0 for a model without w.
    sizes: height and width of the noise of each synthesis layer.
    model: its identity; '': not known.
  """

  dim_z: int
  n_classes: int = 0
  dim_w: int = 0
  layers: int = 0
  sizes: Sequence[Size] = ()
  model: str = ''


def save_latents(path: Path, latents: Latents) -> None:
  """Writes an .npz file, atomically, and its folder if it does not exist.

  Raises:
    OSError: it cannot be written.
  """
  arrays: dict[str, np.ndarray] = {latents.space: latents.values.astype(np.float32)}
  if latents.labels is not None:
    is_class = np.issubdtype(latents.labels.dtype, np.integer)
    arrays['labels'] = latents.labels.astype(np.int32 if is_class else np.float32)
  if latents.psi is not None:
    arrays['psi'] = np.array(latents.psi)
  if math.isfinite(latents.truncation):
    arrays['truncation'] = np.array(latents.truncation)
  if latents.seeds is not None:
    arrays['seeds'] = latents.seeds.astype(np.uint32)
  arrays |= {f'noise{i}': x.astype(np.float32) for i, x in enumerate(latents.noise)}
  if latents.model:
    arrays['model'] = np.array(latents.model)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(path) as part, part.open('wb') as f:
    np.savez(f, allow_pickle=False, **arrays)


def load_latents(path: Path | str) -> Latents:
  """The latents in an .npz file, checked as far as that needs no model.

  Args:
    path: '~' is the home folder.

  Raises:
    UserError: the file cannot be read, is no .npz file, or its arrays do not fit.
  """
  path = Path(os.path.expanduser(check_path(str(path))))
  try:
    with path.open('rb') as f:
      arrays = read_npz(f)
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error
  except (*NPZ_ERRORS, MemoryError, NotImplementedError) as error:
    raise UserError(
      f'{path} is corrupted or no .npz file of latents: gan_jax.sample --save_latents '
      'writes one.'
    ) from error
  spaces = [name for name in SPACES if name in arrays]
  if len(spaces) != 1:
    raise UserError(
      f'{path} holds {" and ".join(spaces) or _listed(arrays)}: a file of latents has '
      f'exactly one of {", ".join(SPACES)}.'
    )
  try:
    return _parse(path, spaces[0], arrays)
  except UserError:
    raise
  except (TypeError, ValueError) as error:  # of text where numbers belong
    raise UserError(f'{path}: the latents cannot be read ({error}).') from error


def _listed(arrays: dict[str, np.ndarray]) -> str:
  names = sorted(arrays)
  return ', '.join(names[:8]) + (', ...' if len(names) > 8 else '') or 'no arrays'


def _parse(path: Path, space: Space, arrays: dict[str, np.ndarray]) -> Latents:
  """
  Raises:
    UserError: a shape or a value is not allowed.
    TypeError, ValueError: something is no number.
  """
  values = _numbers(path, space, arrays[space])
  n = len(values) if values.ndim else 0
  if values.ndim != SPACES[space] or not values.size:
    raise UserError(
      f'{path}: {space} has the shape {values.shape}, and {SPACES[space]} dimensions '
      'are needed, the first one for the images.'
    )
  labels = None
  if 'labels' in arrays:
    labels = _numbers(path, 'labels', arrays['labels'])
    if np.issubdtype(arrays['labels'].dtype, np.integer):
      labels = arrays['labels'].astype(np.int64)
    if len(labels.shape) not in (1, 2) or len(labels) != n:
      raise UserError(
        f'{path}: labels have the shape {labels.shape}, and {n} rows are needed.'
      )
  seeds = None
  if 'seeds' in arrays:
    seeds = arrays['seeds']
    whole = seeds.shape == (n,) and seeds.dtype.kind in 'iu'
    if not whole or (seeds < 0).any() or (seeds > MAX_SEED).any():
      raise UserError(f'{path}: seeds must be {n} integers from 0 to {MAX_SEED}.')
    seeds = seeds.astype(np.uint32)
  numbers: dict[str, float] = {}
  for name in ('psi', 'truncation'):
    if name in arrays:
      _numbers(path, name, arrays[name])
      numbers[name] = float(arrays[name])
  if not numbers.get('truncation', 1) > 0:
    raise UserError(f'{path}: truncation={numbers["truncation"]:g} must be above 0.')
  return Latents(
    space=space,
    values=values,
    labels=labels,
    seeds=seeds,
    noise=_noise(path, n, arrays),
    model=str(arrays['model']) if 'model' in arrays else '',
    **numbers,
  )


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
  """An array in float32.

  Raises:
    UserError: it holds something else than finite numbers.
  """
  if array.dtype.kind not in 'biuf' or not np.isfinite(array).all():
    raise UserError(f'{path}: {name} must hold finite numbers only.')
  return array.astype(np.float32)


def _noise(path: Path, n: int, arrays: dict[str, np.ndarray]) -> tuple:
  """The noise of each layer, in order; () without any."""
  found = [name for name in arrays if re.fullmatch('noise[0-9]+', name)]
  noise = []
  for name in (f'noise{i}' for i in range(len(found))):
    if name not in arrays:
      raise UserError(f'{path}: {name} is missing among {", ".join(sorted(found))}.')
    array = _numbers(path, name, arrays[name])
    if array.ndim != 4 or len(array) not in (1, n) or array.shape[-1] != 1:
      raise UserError(
        f'{path}: {name} has the shape {array.shape}, and ({n} or 1, h, w, 1) is '
        'needed.'
      )
    noise.append(array)
  return tuple(noise)


def latents_of_z(z: np.ndarray) -> Latents:
  """Latents from an array of z.

  Raises:
    UserError: it is no array [n, dim_z] of finite numbers.
  """
  return _parse(Path('latents'), 'z', {'z': np.asarray(z)})


def check_latents(path: Path | str, latents: Latents, shapes: LatentShapes) -> None:
  """Checks that a model takes the latents.

  Args:
    path: what they are called in messages.

  Raises:
    UserError: they belong to another model, or have other shapes.
  """
  if latents.model and shapes.model and latents.model != shapes.model:
    raise UserError(
      f'{path} holds latents of another model, {latents.model}, and this one is '
      f'{shapes.model}: name the workdir that they come from.'
    )
  if latents.psi is not None and not (latents.psi > 0 or shapes.dim_w):
    raise UserError(f'{path}: psi={latents.psi:g} must be above 0 in this model.')
  expected: dict[Space, tuple[int, ...]] = {'z': (shapes.dim_z,)}
  if shapes.dim_w:
    expected['w'] = (shapes.dim_w,)
    expected['w_plus'] = (shapes.layers, shapes.dim_w)
  if latents.space not in expected:
    raise UserError(
      f'{path} holds {latents.space}, which is for a StyleGAN, and this model is none.'
    )
  needed, found = expected[latents.space], latents.values.shape[1:]
  if found != needed:
    raise UserError(
      f'{path}: {latents.space} is {_product(found)} for each image, and this model '
      f'takes {_product(needed)}.'
    )
  _check_labels(path, latents, shapes.n_classes)
  _check_noise(path, latents, shapes)


def _product(shape: tuple[int, ...]) -> str:
  return ' x '.join(map(str, shape))


def _check_labels(path: Path | str, latents: Latents, n_classes: int) -> None:
  labels = latents.labels
  if labels is None:
    return
  if not n_classes:
    raise UserError(f'{path} holds labels, and this model has no classes.')
  if labels.ndim == 2 and labels.shape[1] != n_classes:
    raise UserError(
      f'{path}: labels are rows of {labels.shape[1]}, and this model takes rows of '
      f'{n_classes}.'
    )
  if labels.ndim == 1:
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or (labels < 0).any() or (labels >= n_classes).any():
      raise UserError(f'{path}: labels must be integers from 0 to {n_classes - 1}.')


def _check_noise(path: Path | str, latents: Latents, shapes: LatentShapes) -> None:
  noise = latents.noise
  if not noise:
    return
  if not shapes.sizes:
    raise UserError(f'{path} holds noise, and this model has none.')
  found = [x.shape[1:3] for x in noise]
  if found != list(shapes.sizes):
    there, needed = (', '.join(map(format_side, x)) for x in (found, shapes.sizes))
    raise UserError(
      f'{path}: the noise has the sizes {there}, and this model takes {needed}.'
    )


def class_weights(
  labels: Num[np.ndarray, 'n ...'], n_classes: int
) -> Float[np.ndarray, 'n n_classes']:
  """Labels or class weights as class weights."""
  if labels.ndim == 2:
    return labels.astype(np.float32)
  return np.eye(max(n_classes, 1), dtype=np.float32)[labels]


def compact_labels(weights: Float[np.ndarray, 'n n_classes']) -> np.ndarray:
  """Class weights as labels int [n] if all are of a single class; else unchanged."""
  labels = weights.argmax(-1)
  single = np.eye(weights.shape[-1], dtype=np.float32)[labels]
  return labels if (weights == single).all() else weights
