"""A source -> the folder of a run, from which everything else goes on."""

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gan_jax
from gan_jax import UserError
from gan_jax.config import build_gan, parse_config
from gan_jax.importers.name_mapping import path_of
from gan_jax.importers.sources import AdamMoments, PublishedModel, shapes
from gan_jax.models.base import Variables
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import TrainState, flatten_kernels

CONFIG = '''"""{kind}, imported from {name}: {workdir}/config.json as a config."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(json.loads((Path(__file__).parent / 'config.json').read_text()))
'''


class Row(NamedTuple):
  """What became of one array."""

  verdict: str  # 'matched', 'skipped' (only the source has it) or 're-initialised'
  place: str
  source: tuple[int, ...] | None
  model: tuple[int, ...] | None


def write_run(
  source: PublishedModel,
  workdir: Path | str,
  changes: Mapping[str, Any] | None = None,
  partial: bool = False,
) -> list[Row]:
  """Writes config.json, config.py, run.json and a checkpoint.

  Args:
    changes: fields of the model section that differ from the source's.
    partial: what the model does not share with the source starts anew, and so do the
      optimizers then. Without it that is an error.

  Returns:
    What became of each array of g and d.

  Raises:
    UserError: a workdir that holds a run already, an impossible change, or a source
      that does not fill the model: with the table of what does.
  """
  workdir = Path(workdir)
  if (workdir / 'config.json').exists() or (workdir / 'checkpoints').exists():
    raise UserError(f'{workdir} holds a run already: take another workdir.')
  config, images = source.settings(source.gan)
  if changes:
    gan = build_gan({**config['model'], **changes})
    config, images = source.settings(gan)
  config = json.loads(json.dumps(config))
  run = parse_config(config)
  like_g, like_d = shapes(run.gan)
  rows = compared(source.g, like_g, 'g') + compared(source.d or {}, like_d, 'd')
  exact = source.d is not None or not source.whole
  differ = [
    row
    for row in rows
    if row.verdict != 'matched' and (exact or row.place.startswith('g/'))
  ]
  if differ and not partial:
    raise UserError(
      f'{source.path} does not fill the model ({len(differ)} of {len(rows)} arrays '
      f'differ): --partial initialises those anew.\n{table(rows)}'
    )
  anew = {row.place for row in rows if row.verdict == 're-initialised'}
  fresh = initialised(run.gan, run.train.seed, anew)
  g, ema = (merged(tree, like_g, fresh, 'g') for tree in (source.g, source.ema))
  d = merged(source.d or {}, like_d, fresh, 'd')
  moments = (None, None) if differ else (source.g_moments, source.d_moments)
  g, ema, d = (jax.tree.map(_float32, tree) for tree in (g, ema, d))
  state = TrainState(
    step=jnp.asarray(source.step, jnp.int32),
    images=jnp.asarray(images, jnp.uint32),
    g=g,
    d=d,
    g_opt=remembered(
      make_optimizer(run.g_adam).init(flatten_kernels(g['params'])), moments[0]
    ),
    d_opt=remembered(
      make_optimizer(run.d_adam).init(flatten_kernels(d['params'])), moments[1]
    ),
    ema=ema,
  )
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpointer(workdir)
    checkpoints.save(source.step, state)
    saved = checkpoints.wait()
    checkpoints.close()
    if not saved:
      raise UserError(f'{workdir}: the checkpoint could not be written, see above.')
    about = dict(kind=source.kind, name=source.path.name, workdir=workdir.name)
    (workdir / 'config.py').write_text(CONFIG.format(**about))
    (workdir / 'run.json').write_text(json.dumps(record(source), indent=2) + '\n')
    (workdir / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  except OSError as error:
    raise UserError(f'{workdir} cannot be written: {error.strerror}.') from error
  return rows


def compared(source: Variables, like: Variables, prefix: str) -> list[Row]:
  """A row for each array of either, by path."""
  theirs, ours = (
    {path_of(p): tuple(x.shape) for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    for tree in (source, like)
  )
  rows = []
  for place in sorted({*theirs, *ours}):
    a, b = theirs.get(place), ours.get(place)
    verdict = 'matched' if a == b else 're-initialised' if b is not None else 'skipped'
    rows.append(Row(verdict, f'{prefix}/{place}', a, b))
  return rows


def initialised(gan: Any, seed: int, places: Collection[str]) -> dict[str, jax.Array]:
  """The arrays at these places before any training; no others are computed."""

  def some(key):
    leaves = {}
    for side, tree in zip('gd', gan.init(key), strict=True):
      for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if (place := f'{side}/{path_of(path)}') in places:
          leaves[place] = x
    return leaves

  return jax.jit(some)(jax.random.key(seed)) if places else {}


def merged(
  source: Variables, like: Variables, fresh: Mapping[str, Any], prefix: str
) -> Variables:
  """The source's arrays in the structure of `like`, and new ones by path."""
  found = {path_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(source)}

  def leaf(path, _):
    place = path_of(path)
    new = fresh.get(f'{prefix}/{place}')
    return found[place] if new is None else new

  return jax.tree_util.tree_map_with_path(leaf, like)


def table(rows: list[Row], most: int = 60) -> str:
  """Counts, and a line for each array that did not match."""
  count = lambda verdict: sum(row.verdict == verdict for row in rows)
  kinds = ('matched', 'skipped', 're-initialised')
  lines = [', '.join(f'{count(kind)} {kind}' for kind in kinds)]
  shape = lambda s: 'x'.join(map(str, s)) or 'scalar' if s is not None else '-'
  absent = [side for side in 'gd' if not _of_source(rows, side)]
  lines += [
    f'  re-initialised {side}: all, the source has none of it' for side in absent
  ]
  differ = [r for r in rows if r.verdict != 'matched' and r.place[0] not in absent]
  lines += [
    f'  {r.verdict:14} {r.place:48} {shape(r.source):>16} -> {shape(r.model)}'
    for r in differ[:most]
  ]
  if len(differ) > most:
    lines.append(f'  and {len(differ) - most} more')
  return '\n'.join(lines)


def _of_source(rows: list[Row], side: str) -> bool:
  """Whether the source has anything of this network."""
  return any(r.source is not None for r in rows if r.place.startswith(f'{side}/'))


def remembered(fresh: Any, moments: AdamMoments | None) -> Any:
  """An optimizer's state with what Adam remembered, wherever the chain holds it."""
  if moments is None:
    return fresh
  if not hasattr(fresh, 'nu'):
    return type(fresh)([*fresh[:-1], remembered(fresh[-1], moments)])
  narrow = lambda tree: jax.tree.map(_float32, flatten_kernels(tree))
  values: dict[str, Any] = {'nu': narrow(moments.second)}
  if getattr(fresh, 'mu', None) is not None:
    values['mu'] = narrow(moments.first)
  if hasattr(fresh, 'count'):
    values['count'] = jnp.asarray(moments.steps, jnp.int32)
  return fresh._replace(**values)


def record(source: PublishedModel) -> dict[str, Any]:
  """Where the run comes from, for run.json."""
  packages = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {
    'imported_from': source.path.name,
    'kind': source.kind,
    'notes': list(source.notes),
    'gan_jax': gan_jax.__version__,
    'versions': {name: importlib.metadata.version(name) for name in packages},
  }


def _float32(x: Any) -> Any:
  x = np.asarray(x)
  return jnp.asarray(x.astype(np.float32) if x.dtype.kind == 'f' else x)
