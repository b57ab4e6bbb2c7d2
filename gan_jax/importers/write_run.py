"""Writes a published model as a workdir, from which everything else continues."""

import importlib.metadata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gan_jax
from gan_jax import UserError
from gan_jax.config import AdamConfig, Config, build_gan, parse_config
from gan_jax.importers.name_mapping import tree_path
from gan_jax.importers.published_model import (
  AdamMoments,
  PublishedModel,
)
from gan_jax.models.base import GAN, Variables, variable_shapes
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.files import check_output_folder, write_json
from gan_jax.storage.nested import fingerprint, flatten
from gan_jax.training.array_matches import ArrayMatch, format_matches, match_arrays
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import TrainState, flatten_kernels

_CONFIG_FILE = '''"""{kind}, imported from {name}: the config.json of this folder."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(json.loads((Path(__file__).parent / 'config.json').read_text()))
'''


def check_workdir(workdir: Path, source: Path) -> None:
  """Checks that a run can be written to `workdir`, before the source is read.

  Raises:
    UserError: the workdir holds a run or a prepared data set, is the source itself, or
      cannot be written.
  """
  if workdir.resolve() == source.resolve():
    raise UserError(
      f'--workdir={workdir} is the folder of the source: a run needs a new folder.'
    )
  if (workdir / 'config.json').exists() or (workdir / 'checkpoints').exists():
    raise UserError(f'--workdir={workdir} holds a run already: take another workdir.')
  if (workdir / 'manifest.json').exists():
    raise UserError(
      f'--workdir={workdir} holds a prepared data set: a run needs a new folder.'
    )
  check_output_folder(workdir, '--workdir')


def write_run(
  source: PublishedModel,
  workdir: Path | str,
  changes: Mapping[str, Any] | None = None,
  partial: bool = False,
) -> list[ArrayMatch]:
  """Writes config.json, config.py, run.json and a checkpoint.

  Args:
    changes: fields of the model section that differ from the source.
    partial: allow mismatches: arrays that the source and the model do not share are
      initialised anew, and then both optimizers are, too.

  Returns:
    The outcome of every array of G and D.

  Raises:
    UserError: the workdir holds a run, a change is invalid, or the source does not
      match the model and `partial` is False; the message has the table of outcomes.
  """
  workdir = Path(workdir)
  check_workdir(workdir, source.path)
  raw_config, images_seen = source.training_config(source.gan)
  if changes:
    gan = build_gan({**raw_config['model'], **changes})
    raw_config, images_seen = source.training_config(gan)
  config = parse_config(raw_config)
  like_g, like_d = variable_shapes(config.gan)
  matches_g = match_arrays(source.g, like_g, 'g')
  matches_d = match_arrays(source.d or {}, like_d, 'd')
  matches = matches_g + matches_d
  required = matches if source.d_expected else matches_g
  mismatches = [match for match in required if match.outcome != 'matched']
  if mismatches and not partial:
    raise UserError(
      f'{source.path} does not match the model ({len(mismatches)} of {len(matches)} '
      f'arrays differ): --partial initialises those anew.\n{format_matches(matches)}'
    )
  state = _train_state(
    source, config, matches, images_seen, keep_moments=not mismatches
  )
  _write_workdir(workdir, source, config, state)
  return matches


def _train_state(
  source: PublishedModel,
  config: Config,
  matches: list[ArrayMatch],
  images_seen: int,
  keep_moments: bool,
) -> TrainState:
  """The state of training: arrays of the source, and new ones where none matched."""
  new_paths = {match.path for match in matches if match.outcome == 're-initialised'}
  new_arrays = _initialise(config.gan, config.train.seed, new_paths)
  like_g, like_d = variable_shapes(config.gan)
  g = _merge(source.g, like_g, new_arrays, 'g')
  ema = _merge(source.ema, like_g, new_arrays, 'g')
  d = _merge(source.d or {}, like_d, new_arrays, 'd')
  return TrainState(
    step=jnp.asarray(source.step, jnp.int32),
    images=jnp.asarray(images_seen, jnp.uint32),
    g=g,
    d=d,
    g_opt=_optimizer_state(
      config.g_adam, g['params'], source.g_moments if keep_moments else None
    ),
    d_opt=_optimizer_state(
      config.d_adam, d['params'], source.d_moments if keep_moments else None
    ),
    ema=ema,
  )


def _initialise(gan: GAN, seed: int, paths: Collection[str]) -> dict[str, jax.Array]:
  """Initial values of the arrays with these paths; the others are not computed."""
  if not paths:
    return {}

  def init(key: jax.Array) -> dict[str, jax.Array]:
    variables = dict(zip('gd', gan.init(key), strict=True))
    return {path: x for path, x in flatten(variables, '/').items() if path in paths}

  return jax.jit(init)(jax.random.key(seed))


def _merge(
  source: Variables, like: Variables, new_arrays: Mapping[str, jax.Array], prefix: str
) -> Variables:
  """Float32 variables with the structure of `like`: new arrays, or the source's."""
  arrays = flatten(source, '/')

  def choose(key_path: Any, _: Any) -> jax.Array:
    path = tree_path(key_path)
    new = new_arrays.get(f'{prefix}/{path}')
    return _float32(arrays[path] if new is None else new)

  return jax.tree_util.tree_map_with_path(choose, like)


def _optimizer_state(
  config: AdamConfig, params: Variables, moments: AdamMoments | None
) -> Any:
  """A new optimizer state, with the moments and steps of Adam if there are any."""
  state = make_optimizer(config).init(flatten_kernels(params))
  if moments is None:
    return state
  values = {
    'mu': jax.tree.map(_float32, flatten_kernels(moments.first)),
    'nu': jax.tree.map(_float32, flatten_kernels(moments.second)),
    'count': jnp.asarray(moments.steps, jnp.int32),
  }
  # A state without first moment (beta1 = 0) has no `mu`.
  kept = {
    name: value
    for name, value in values.items()
    if optax.tree_utils.tree_get(state, name) is not None
  }
  return optax.tree_utils.tree_set(state, **kept)


def _float32(x: Any) -> jax.Array:
  """Floats as float32, other dtypes unchanged."""
  x = np.asarray(x)
  return jnp.asarray(x.astype(np.float32) if x.dtype.kind == 'f' else x)


def _write_workdir(
  workdir: Path, source: PublishedModel, config: Config, state: TrainState
) -> None:
  """Writes the files of a run; config.json, which makes it one, comes last."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    checkpointer = Checkpointer(workdir)
    checkpointer.save(source.step, state)
    saved = checkpointer.wait()
    checkpointer.close()
    if not saved:
      raise UserError(f'{workdir}: the checkpoint could not be written, see above.')
    config_file = _CONFIG_FILE.format(kind=source.kind, name=source.path.name)
    (workdir / 'config.py').write_text(config_file)
    write_json(workdir / 'run.json', _run_record(source, state.ema))
    write_json(workdir / 'config.json', config.to_dict())
  except OSError as error:
    raise UserError(f'{workdir} cannot be written: {error.strerror}.') from error


def _run_record(source: PublishedModel, ema: Variables) -> dict[str, Any]:
  """Where the run comes from, for run.json; the weights tell it from other imports."""
  packages = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {
    'imported_from': source.path.name,
    'kind': source.kind,
    'notes': list(source.notes),
    'weights': fingerprint(flatten(ema, '/')),
    'gan_jax': gan_jax.__version__,
    'versions': {name: importlib.metadata.version(name) for name in packages},
  }
