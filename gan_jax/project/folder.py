"""The folder of a projection: what it is of, and the state to go on from."""

import json
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.storage.files import atomic_path, check_output_folder, write_json
from gan_jax.storage.lock import OWNER
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

SETTINGS, RESULTS = 'project.json', 'results.json'
Tree = TypeVar('Tree')


def claim(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
  """Checks that `out` is free or holds a projection with these settings.

  Returns:
    The settings that it holds; {} if it is free.

  Raises:
    UserError: it holds other files, or another projection, or cannot be written.
  """
  check_output_folder(out, '--out')
  names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
  names = [name for name in names if name != OWNER and not name.startswith('.')]
  if SETTINGS not in names:
    if names:
      raise UserError(
        f'--out={out} holds other files, such as {names[0]}: take a new folder.'
      )
    return {}
  present = read_settings(out)
  for name, value in settings.items():
    if present.get(name, value) != value:
      raise UserError(
        f'--out={out} holds a projection with {name} {_brief(present.get(name))}, and '
        f'this one has {_brief(value)}: take another folder.'
      )
  return present


def _brief(value: Any) -> str:
  text = value if isinstance(value, str) else json.dumps(value)
  return text if len(text) < 60 else f'{text[:56]}...'


def read_settings(out: Path) -> dict[str, Any]:
  """
  Raises:
    UserError: the file is corrupted.
  """
  try:
    values = json.loads((out / SETTINGS).read_text())
    if isinstance(values, dict):
      return values
  except ValueError:
    pass
  raise UserError(f'{out / SETTINGS} is corrupted: take another folder.')


def write_settings(out: Path, settings: dict[str, Any]) -> None:
  """Marks a folder as that of a projection."""
  write_json(out / SETTINGS, settings)


def is_finished(out: Path, tuned: bool) -> bool:
  """Whether all results have been written.

  Args:
    tuned: with those of the tuned generator.
  """
  try:
    rows = json.loads((out / RESULTS).read_text())['images']
    return not tuned or all('tuned' in row for row in rows)
  except (OSError, ValueError, KeyError, TypeError):
    return False


def save_tree(path: Path, tree: Any) -> None:
  """Writes a tree of arrays and numbers, atomically."""
  leaves = jax.tree.leaves(jax.device_get(tree))
  arrays = {f'{i:04d}': np.asarray(x) for i, x in enumerate(leaves)}
  with atomic_path(path) as part, part.open('wb') as f:
    np.savez(f, allow_pickle=False, **arrays)


def load_tree(path: Path, like: Tree) -> Tree | None:
  """What `save_tree` has written, with the structure of `like`; None without a file.

  Raises:
    UserError: the file is corrupted.
  """
  if not path.is_file():
    return None
  try:
    with path.open('rb') as f:
      arrays = read_npz(f)
    leaves = [arrays[f'{i:04d}'] for i in range(len(arrays))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
  except NPZ_ERRORS as error:
    raise UserError(
      f'{path} is corrupted: remove it to project anew from the start.'
    ) from error
