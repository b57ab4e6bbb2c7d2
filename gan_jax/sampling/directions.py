"""Directions in latent space: their file, and how images are moved along them.

An .npz file of directions has one row for each of k directions:

  names    text [k]
  vectors  float32 [k, d] of length 1, in z or in w
  layers   bool [k, n]: the synthesis layers of a StyleGAN that a direction acts on; in
           a BigGAN the chunks of z that it changes
  scales   float32 [k]: the length of a step of strength 1

and `space`, 'z' or 'w', and `model`, see `gan_jax.config.workdir.model_identity`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gan_jax import UserError
from gan_jax.runtime.errors import did_you_mean
from gan_jax.storage.files import atomic_path
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

FILE = 'directions.npz'  # in the folder of a run
NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.-]{0,63}')


Space = Literal['z', 'w']


class Direction(NamedTuple):
  """One direction; see the module for the meaning of each field."""

  name: str
  vector: Float[np.ndarray, ' d']
  layers: Bool[np.ndarray, ' n']
  scale: float


class Directions(NamedTuple):
  """Directions of one model, by name."""

  space: Space
  model: str
  by_name: dict[str, Direction]


class Step(NamedTuple):
  """How far images are moved along a direction."""

  direction: Direction
  strength: float

  @property
  def shift(self) -> Float[np.ndarray, ' d']:
    """What is added to z, or to w in the layers of the direction."""
    return np.float32(self.strength * self.direction.scale) * self.direction.vector


def parse_steps(text: str) -> list[tuple[str, float]]:
  """'smile:1.5,age' -> [('smile', 1.5), ('age', 1.0)].

  Raises:
    UserError: `text` has another form.
  """
  steps = []
  for part in text.split(','):
    name, separator, strength = part.strip().partition(':')
    try:
      value = float(strength) if separator else 1.0
    except ValueError:
      value = np.nan
    if not NAME.fullmatch(name) or not np.isfinite(value):
      raise UserError(
        f'--direction={text}: give names with their strengths, such as sefa0:1.5 or '
        'sefa0:1.5,pca2:-1.'
      )
    steps.append((name, value))
  return steps


def save_directions(path: Path, directions: Directions) -> None:
  """Writes an .npz file, atomically, and its folder if it does not exist.

  Raises:
    OSError: it cannot be written.
  """
  all_ = list(directions.by_name.values())
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(path) as part, part.open('wb') as f:
    np.savez(
      f,
      allow_pickle=False,
      names=np.array([x.name for x in all_]),
      vectors=np.array([x.vector for x in all_], np.float32),
      layers=np.array([x.layers for x in all_], bool),
      scales=np.array([x.scale for x in all_], np.float32),
      space=np.array(directions.space),
      model=np.array(directions.model),
    )


def load_directions(path: Path, model: str) -> Directions:
  """The directions in a file.

  Args:
    model: the identity of the model that they are for; '' if it is not known.

  Raises:
    UserError: the file cannot be read or holds something else, or the directions are
      of another model.
  """
  try:
    with path.open('rb') as f:
      arrays = read_npz(f)
    directions = _parse(arrays)
  except FileNotFoundError as error:
    raise UserError(
      f'{path} does not exist: gan_jax.directions finds directions and writes it.'
    ) from error
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error
  except (*NPZ_ERRORS, TypeError, MemoryError, NotImplementedError) as error:
    raise UserError(
      f'{path} is corrupted or no .npz file of directions: gan_jax.directions writes '
      'one.'
    ) from error
  if model and directions.model != model:
    raise UserError(
      f'{path} holds directions of another model, {directions.model}, and this one is '
      f'{model}: find its own with gan_jax.directions.'
    )
  return directions


def _parse(arrays: dict[str, np.ndarray]) -> Directions:
  """Raises: KeyError, TypeError, ValueError."""
  names = [str(name) for name in arrays['names']]
  vectors = arrays['vectors'].astype(np.float32)
  layers, scales = arrays['layers'], arrays['scales'].astype(np.float32)
  space = str(arrays['space'])
  n = len(names)
  if (
    (vectors.ndim, layers.ndim, scales.ndim, layers.dtype.kind) != (2, 2, 1, 'b')
    or not len(vectors) == len(layers) == len(scales) == n
    or not (np.isfinite(vectors).all() and np.isfinite(scales).all())
    or not all(NAME.fullmatch(name) for name in names)
    or (space != 'z' and space != 'w')
  ):
    raise ValueError('an array has another shape or dtype')
  rows = zip(names, vectors, layers, scales.tolist(), strict=True)
  by_name = {name: Direction(name, *rest) for name, *rest in rows}
  return Directions('w' if space == 'w' else 'z', str(arrays['model']), by_name)


def find_steps(path: Path, text: str, model: str, space: str, dim: int) -> list[Step]:
  """The steps of a value of --direction.

  Args:
    path: file of directions.
    model: identity of the model; '' if it is not known.
    space: 'z' or 'w', what the model is moved in.
    dim: length of its vectors.

  Raises:
    UserError: as `parse_steps` and `load_directions`, or there is no such direction.
  """
  wanted = parse_steps(text)
  directions = load_directions(path, model)
  steps = []
  for name, strength in wanted:
    if name not in directions.by_name:
      known = list(directions.by_name)
      raise UserError(
        f'--direction={text}: {path} has no {name}{did_you_mean(name, known)}; it has '
        f'{", ".join(known[:12])}{", ..." if len(known) > 12 else ""}.'
      )
    steps.append(Step(directions.by_name[name], strength))
  found = directions.space, *steps[0].direction.vector.shape
  if found != (space, dim):
    raise UserError(
      f'{path} holds directions of {found[1]} numbers in {found[0]}, and this model '
      f'takes {dim} in {space}: find its own with gan_jax.directions.'
    )
  return steps


def normalized(z: Float[np.ndarray, 'n d']) -> Float[np.ndarray, 'n d']:
  """z with a root mean square of 1."""
  return z / np.sqrt(np.square(z).mean(-1, keepdims=True) + 1e-8)


def move_latents(
  z: Float[np.ndarray, 'n d'],
  steps: Sequence[Step],
  psi: float = 1.0,
  scaled: bool = False,
) -> Float[np.ndarray, 'n d']:
  """z, so moved that psi * z is moved along the directions.

  Args:
    scaled: first scale z to a root mean square of 1, as the network does.
  """
  if scaled:
    z = normalized(z)
  for step in steps:
    z = z + step.shift / np.float32(psi)
  return z


def move_styles(
  ws: Float[np.ndarray, 'n layers d'], steps: Sequence[Step]
) -> Float[np.ndarray, 'n layers d']:
  """ws moved along directions, each in its own layers."""
  for step in steps:
    ws = ws + step.direction.layers[:, None] * step.shift
  return ws
