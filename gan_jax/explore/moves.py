"""The directions that the explorer has sliders for: of a file, or SeFa's."""

from pathlib import Path

import numpy as np

from gan_jax import UserError
from gan_jax.directions.layers import factorize_layers, first_of, parse_layers
from gan_jax.sampling.directions import (
  NAME,
  Direction,
  Directions,
  load_directions,
  save_directions,
)
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.output import cannot_write
from gan_jax.storage.files import check_output_file

SHOWN = 10  # sliders


def find_directions(generator: TrainedGenerator, path: Path) -> Directions:
  """Those of the file; without a file the first of SeFa, which need no samples.

  Raises:
    UserError: the file holds something else, or directions of another model.
  """
  if path.exists():
    return load_directions(path, generator.identity)
  layers = parse_layers(None, generator)
  found = first_of(factorize_layers(generator, np.flatnonzero(layers)), SHOWN)
  rows = enumerate(zip(found.vectors, found.scales, strict=True))
  by_name = {
    f'sefa{i}': Direction(f'sefa{i}', vector.astype(np.float32), layers, float(scale))
    for i, (vector, scale) in rows
  }
  space = 'w' if generator.gan.style_based else 'z'
  return Directions('w' if space == 'w' else 'z', generator.identity, by_name)


def write_directions(path: Path, directions: Directions) -> None:
  """
  Raises:
    UserError: the file cannot be written.
  """
  check_output_file(path, '--directions', ('.npz',))
  try:
    save_directions(path, directions)
  except OSError as error:
    raise cannot_write(path, error) from error


def renamed(directions: Directions, old: str, new: str) -> Directions:
  """The directions with a new name for one, which keeps its place.

  It keeps its old name too, at the end, so that earlier commands find it.

  Raises:
    UserError: `new` is no name, or another direction has it.
  """
  if not NAME.fullmatch(new):
    raise UserError(
      f'{new!r}: the name of a direction begins with a letter, and has letters, '
      'digits, and . _ - only.'
    )
  vector = directions.by_name[old].vector
  same = new in directions.by_name and np.array_equal(
    directions.by_name[new].vector, vector
  )
  if new in directions.by_name and not same:
    raise UserError(f'{new}: another direction has this name, take a new one.')
  by_name = {}
  for name, direction in directions.by_name.items():
    if name != new:  # a name that it had before
      by_name[new if name == old else name] = direction
  by_name[old] = directions.by_name[old]
  return directions._replace(
    by_name={name: x._replace(name=name) for name, x in by_name.items()}
  )
