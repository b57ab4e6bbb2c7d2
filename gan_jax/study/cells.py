"""The cells of a study: one run for each batch, learning rate, setting and seed."""

import dataclasses
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.config import Config, parse_config
from gan_jax.config.overrides import apply_overrides
from gan_jax.config.workdir import read_config
from gan_jax.evaluation.metrics import METRICS
from gan_jax.runtime.errors import did_you_mean
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.study.spec import RULES, Study, StudySpec
from gan_jax.training.workdir import STARTS, config_changes

CELLS = 'cells'  # the folder of the runs, in that of the study
SCORES = {  # score -> its metric, and whether 'min' or 'max' is best
  score: (metric, best)
  for metric, group in METRICS.items()
  for score, best in group.best.items()
  if best
}
_OWN_KEYS = {  # config keys that keys of the study set
  'schedule.batch': 'batches',
  'train.seed': 'seeds',
  'train.images': 'images',
  'score.every': 'score_every',
}
_NAME_LENGTH = 100
_SCORES_OF_A_RUN, _GRIDS_OF_A_RUN = 20, 8  # the monitor needs a history of grids


@dataclasses.dataclass(frozen=True)
class Cell:
  """A run of a study.

  Attributes:
    name: of its workdir below CELLS; depends on nothing but what the run is.
    setting: values of the keys that vary, 'train.d_steps=2, model.remat=True'; or ''.
    batch: real images per D update; of a growing GAN, at the final resolution.
    config_batch: that of the config, at which all learning rate rules agree.
    rate: its learning rates, as a multiple of those of the config.
  """

  index: int
  name: str
  setting: str
  batch: int
  config_batch: int
  rate: float
  seed: int
  config: Config

  def workdir(self, study: Path) -> Path:
    return study / CELLS / self.name


def make_cells(study: Study, faults: list[str]) -> list[Cell]:
  """All cells, the first seed of all before the second.

  Cells that are the same run, such as those of all rules at the config's batch, are
  one. Adds one sentence to `faults` for each mistake.
  """
  spec = study.spec
  faults += _own_mistakes(spec)
  cells: dict[str, Cell] = {}
  varied = {key for key, texts in swept(spec).items() if len(texts) > 1}
  for seed, sweep in itertools.product(spec.seeds, settings(spec)):
    try:
      values = apply_overrides(study.base, [*spec.set.items(), *sweep.items()])
      base = parse_config(values)
    except UserError as error:
      faults.append(str(error).replace('--config.', ''))
      continue
    for batch, rate in _batches_and_rates(spec, base):
      name = _cell_name(batch, rate, sweep, seed)
      if name in cells:
        continue
      try:
        config = _cell_config(base, spec, batch, rate, seed)
      except UserError as error:
        faults.append(f'batch {batch}{_with(sweep)}: {error}')
        continue
      setting = ', '.join(f'{k}={v}' for k, v in sweep.items() if k in varied)
      own = base.stages[-1].batch
      cells[name] = Cell(
        len(cells), name, setting, batch or own, own, rate, seed, config
      )
  return list(cells.values())


def settings(spec: StudySpec) -> Iterator[dict[str, str]]:
  """Every combination of values of the swept keys, as the command line writes them."""
  sweep = swept(spec)
  for texts in itertools.product(*sweep.values()):
    yield dict(zip(sweep, texts, strict=True))


def swept(spec: StudySpec) -> dict[str, tuple[str, ...]]:
  """Config key -> values, those of d_steps and accum included."""
  sweep = dict(spec.sweep)
  for name in ('d_steps', 'accum'):
    if numbers := getattr(spec, name):
      sweep[f'train.{name}'] = tuple(map(str, numbers))
  return sweep


def _own_mistakes(spec: StudySpec) -> list[str]:
  """Mistakes in the keys of a study that are none of a config."""
  faults = []
  for key, name in _OWN_KEYS.items():
    where = 'sweep' if key in spec.sweep else 'set' if key in spec.set else ''
    if where and not (where == 'set' and key == 'schedule.batch'):
      faults.append(f'[{where}] {key}: a study sets this key by {name}.')
  for name in ('d_steps', 'accum'):
    if getattr(spec, name) and f'train.{name}' in spec.sweep:
      faults.append(f'[sweep] train.{name} is there twice, as {name} too: remove one.')
  if spec.score not in SCORES:
    hint = did_you_mean(spec.score, SCORES)
    faults.append(
      f'study.score is {spec.score!r}{hint}: scores are {", ".join(SCORES)}.'
    )
  elif SCORES[spec.score][1] == 'min' and any(not t > 0 for t in spec.targets):
    faults.append(f'study.targets of {spec.score} must be above 0.')
  return faults


def _batches_and_rates(spec: StudySpec, base: Config) -> Iterator[tuple[int, float]]:
  """(batch, multiple of the config's learning rates); batch 0 is the config's own."""
  config_batch = base.stages[-1].batch
  for batch in spec.batches or (0,):
    ratio = (batch or config_batch) / config_batch
    rates = [
      float(f'{RULES[rule](ratio) * factor:.6g}')
      for rule in spec.lr_rules
      for factor in spec.lr_factors
    ]
    for rate in sorted(set(rates)):
      yield batch, rate


def _cell_config(
  base: Config, spec: StudySpec, batch: int, rate: float, seed: int
) -> Config:
  """The config of a cell.

  The half-life of the EMA weights stays what it is in images.

  Raises:
    UserError: the batch does not divide, or another value is impossible.
  """
  values = base.to_dict()
  schedule, train, log = (values[name] for name in ('schedule', 'train', 'log'))
  if batch:
    many = isinstance(schedule['batch'], tuple)
    schedule['batch'] = (batch,) if many else batch
    schedule['ema'] **= batch / base.stages[-1].batch
  for name in ('g_lr', 'd_lr'):
    rates = schedule[name]
    scaled = [x * rate for x in (rates if isinstance(rates, tuple) else (rates,))]
    schedule[name] = tuple(scaled) if isinstance(rates, tuple) else scaled[0]
  images = spec.images or train['images']
  train |= {'images': images, 'seed': seed}
  metric = SCORES.get(spec.score, ('', ''))[0]
  score = values['score']
  score['every'] = spec.score_every or max(images // _SCORES_OF_A_RUN, 1)
  if 'score.metrics' not in spec.set:
    score['metrics'] = (metric,)
  for name, most in (
    ('metrics_every', score['every']),
    ('grid_every', max(images // _GRIDS_OF_A_RUN, 1)),
    ('checkpoint_every', images),
  ):
    if f'log.{name}' not in spec.set:
      log[name] = min(log[name], most)
  return parse_config(values)


def _cell_name(batch: int, rate: float, sweep: Mapping[str, str], seed: int) -> str:
  """'b64-x2-accum_2-s0': characters that every file system and address takes."""
  swept = [f'{key.rpartition(".")[2]}_{text}' for key, text in sweep.items()]
  parts = [f'b{batch}' if batch else 'b', f'x{rate:g}', *swept, f's{seed}']
  full = '-'.join(parts)
  name = re.sub(r'[^\w.-]+', '_', full, flags=re.ASCII)
  if name == full and len(name) <= _NAME_LENGTH:
    return name
  return f'{name[:_NAME_LENGTH]}-{zlib.crc32(full.encode()):08x}'


def _with(sweep: Mapping[str, str]) -> str:
  return ''.join(f', {key}={text}' for key, text in sweep.items())


def check_cells(study: Study, cells: Sequence[Cell], n_devices: int) -> list[str]:
  """Mistakes that show where the cells are to run.

  Batches that the devices of a cell do not divide, and cells that have begun with
  another config.

  Args:
    n_devices: devices of one cell.
  """
  faults = []
  for cell in cells:
    for stage in cell.config.stages:
      try:
        cell.config.shape(stage, n_devices)
      except UserError as error:
        faults.append(f'{error}')
    faults += changed_config(cell, cell.workdir(study.folder))
  return faults


def changed_config(cell: Cell, workdir: Path) -> list[str]:
  """A sentence if the run of a cell has begun with another config."""
  if not (workdir / 'config.json').is_file():
    return []
  try:
    changes = config_changes(read_config(workdir), cell.config)
  except UserError as error:
    return [str(error)]
  if not changes:
    return []
  return [
    f'{workdir} was run with another config ({"; ".join(changes)}): take another '
    '--study, or remove this run.'
  ]


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far the run of a cell is.

  Attributes:
    state: 'waiting', 'started', 'finished' or 'lost'.
    ended: why it was lost.
    images: trained on, as of the last time that was recorded.
  """

  state: str
  ended: str = ''
  images: int = 0


def read_progress(cell: Cell, workdir: Path) -> Progress:
  """What the run of a cell has recorded of its starts."""
  try:
    starts = read_json_lines(workdir / STARTS)
  except OSError:
    starts = []
  if not starts:
    return Progress('waiting')
  last = starts[-1]
  images, ended = last.get('until_images', 0), str(last.get('ended') or '')
  images = images if type(images) is int else 0
  if ended == 'finished' and images >= cell.config.train.images:
    return Progress('finished', images=images)
  if ended and ended not in ('finished', 'stopped'):
    return Progress('lost', ended, images)
  return Progress('started', images=images)


def is_closed(progress: Progress) -> bool:
  """Whether a run has nothing left to train."""
  return progress.state in ('finished', 'lost')


def as_settings(cells: Sequence[Cell]) -> dict[tuple[str, int], Cell]:
  """(setting, batch) -> a cell of it: those of other rates and seeds cost the same."""
  found: dict[tuple[str, int], Cell] = {}
  for cell in cells:
    found.setdefault((cell.setting, cell.batch), cell)
  return found


def finite(value: Any) -> float | None:
  """A number that is finite; None for anything else."""
  good = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if good and math.isfinite(value) else None
