"""Reads a workdir: the facts, charts, events, scores and images of a run's report.

Workdirs of killed processes and unexpected contents of the files are tolerated.
"""

import json
import re
import statistics
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from gan_jax import UserError
from gan_jax.report.charts import Record, finite_number, make_charts
from gan_jax.report.goodput import goodput
from gan_jax.runtime.image_size import format_side, size_at
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.storage.nested import flatten

# Captions of images that other commands write into a workdir, in the order of the page.
CAPTIONS = {
  'data.png': 'Training data: images from the whole dataset and its label histogram',
  'grid.png': 'One row per class',
  'mixing.png': 'Style mixing: coarse, middle and fine styles taken from the columns',
  'stages.png': 'The same latents at each resolution',
  'frontier.png': 'Scores by truncation',
  'memorization.png': 'The generated images nearest to training images, beside these; '
  'the numbers are distances, as multiples of those between training images: '
  'near 0 is a copy',
}
PLOTS_OF_METRICS = {'curves.png'}  # left out: the report draws the same curves


class Event(TypedDict):
  """Something that happened in a run: a stage, resumed, rollback or collapse."""

  images: int
  kind: str
  text: str
  label: NotRequired[str]  # written beside the event's line in the charts


class Progress(NamedTuple):
  """How far a run has come."""

  images: int  # trained on
  total: int  # to train on; 0: unknown
  images_per_s: float | None  # median of the last ten records; None: not measured


def summarize_run(workdir: Path) -> dict[str, Any]:
  """Everything that the report of a run shows, ready for JSON.

  The only exception are image files: `src` of each entry of `grids` and `images` is a
  path.

  Raises:
    UserError: the folder has no config.json, or a corrupted one.
  """
  config = _read_object(workdir / 'config.json')
  if not config:
    file = workdir / 'config.json'
    if file.exists():
      raise UserError(f'{file} is corrupted, or not that of a run.')
    raise UserError(f'{workdir} is not the folder of a run: there is no {file.name}.')
  run_info = _read_object(workdir / 'run.json')
  metrics = _read_records(workdir / 'metrics.jsonl')
  progress = measure_progress(config, metrics)
  events = read_events(config, metrics, workdir)
  status, severity = run_status(progress, events)
  total = progress.total
  return {
    'facts': list(run_facts(config, run_info, progress).items())
    + [
      ('Waiting for data', data_waits(metrics)),
      ('Goodput', goodput(_read_records(workdir / 'starts.jsonl'))),
      ('Last checkpoint', last_checkpoint(workdir)),
      ('Collapse monitor', monitor_verdict(metrics, events)),
      ('Started', _minute(run_info.get('started'))),
    ],
    'status': status,
    'severity': severity,
    'done': min(progress.images / total, 1) if total else 0,
    'charts': make_charts(metrics),
    'records': len(metrics),
    'events': events,
    'grids': sample_grids(workdir, metrics),
    'caption': grid_caption(config, _section(run_info, 'dataset')),
    'images': other_images(workdir),
    'scores': read_scores(workdir),
    'config': {k: json.dumps(v) for k, v in flatten(config).items()},
    'environment': json.dumps(run_info, indent=1),
  }


def measure_progress(config: Record, metrics: Sequence[Record]) -> Progress:
  """Progress of a run, from its config and the records of metrics.jsonl."""
  images = max((record['images'] for record in metrics), default=0)
  total = _section(config, 'train').get('images')
  rates = [r for record in metrics if (r := finite_number(record.get('images_per_s')))]
  return Progress(
    images=images,
    total=total if type(total) is int and total > 0 else 0,
    images_per_s=statistics.median(rates[-10:]) if rates else None,
  )


def run_status(progress: Progress, events: Sequence[Event]) -> tuple[str, str]:
  """(text, severity) of the page's headline; severity is '', 'good' or 'bad'."""
  images, total, _ = progress
  text, severity = f'at image {images:,}', ''
  if total and images >= total:
    text, severity = 'finished', 'good'
  elif total:
    text = f'{images / total:.0%} trained'
  collapses = [event['images'] for event in events if event['kind'] == 'collapse']
  if collapses and all(event['images'] <= collapses[-1] for event in events):
    text, severity = f'{text}; probably collapsed', 'bad'
  return text, severity


def run_facts(config: Record, run_info: Record, progress: Progress) -> dict[str, str]:
  """Name -> value of what a run trains on what, and how fast."""
  images, total, rate = progress
  model, data = _section(config, 'model'), _section(config, 'data')
  size = _section(run_info, 'dataset').get('images')
  size_text = f': {size:,} images' if finite_number(size) else ''
  facts = {
    'Model': f'{model.get("family")}, {_side(model, model.get("res"))} pixels',
    'Data': f'{data.get("name")}{size_text}',
    'Classes': str(model.get('n_classes') or 'none'),
    'Devices': device_text(run_info),
    'Images': f'{images:,}' + (f' of {total:,}' if total else ''),
    'Images per second': f'{rate:,.4g}' if rate else 'not measured yet',
  }
  if total > images:
    seconds = (total - images) / rate if rate else None
    facts['Time left'] = 'unknown' if seconds is None else duration(seconds)
  return facts


def data_waits(metrics: Sequence[Record]) -> str:
  """'3% of the time', of the last ten records; where it differs, of which process."""
  shares: list[list[float]] = []  # by process, of each record
  for record in metrics:
    step, wait = (finite_number(record.get(name)) for name in ('step_s', 'data_wait_s'))
    if not step or wait is None:
      continue
    waits = record.get('data_wait_s_by_process')
    waits = waits if isinstance(waits, list) else [wait]
    shares.append([(finite_number(x) or 0) / step for x in waits])
  recent = [row for row in shares[-10:] if len(row) == len(shares[-1])]
  if not recent:
    return 'not measured yet'
  medians = [statistics.median(values) for values in zip(*recent, strict=True)]
  text = f'{statistics.median(medians):.0%} of the time'
  most = max(medians)
  if len(medians) > 1 and most > statistics.median(medians) + 0.01:
    text += f'; process {medians.index(most)}: {most:.0%}'
  return text


def monitor_verdict(metrics: Sequence[Record], events: Sequence[Event]) -> str:
  """How many collapses and skipped updates the collapse monitor has seen."""
  if not metrics:
    return 'no metrics yet'
  collapses = sum(event['kind'] == 'collapse' for event in events)
  text = 'no collapse detected'
  if collapses:
    text = f'{collapses} collapse{"s" * (collapses != 1)} detected'
  skipped = sum(finite_number(record.get('skipped')) or 0 for record in metrics)
  if skipped:
    text += f'; non-finite updates skipped: {skipped:g} in the logged records'
  return text


def _side(model: Record, res: Any) -> str:
  """'16'; of images that are not square '16 x 12', the width first."""
  match model.get('first_map'), res:
    case [int(rows), int(columns)], int():
      return format_side(size_at((rows, columns), res))
  return str(res)


def read_events(
  config: Record, metrics: Sequence[Record], workdir: Path
) -> list[Event]:
  """New stages, restarts, rollbacks and collapses, ordered by images."""
  events: list[Event] = []
  for record in metrics:
    if 'change_s' in record:
      events.append(_stage_event(_section(config, 'model'), record))
    if 'collapsed' in record:
      text = str(record['collapsed'])
      events.append(Event(images=record['images'], kind='collapse', text=text))
  for record in _read_records(workdir / 'rollbacks.jsonl'):
    text = f'back to step {record.get("to_step")}: {record.get("collapsed")}'
    events.append(Event(images=record['images'], kind='rollback', text=text))
  for record in _read_records(workdir / 'starts.jsonl'):
    if record['images'] > 0:
      text = f'{_minute(record.get("started"))}, on {device_text(record)}'
      events.append(Event(images=record['images'], kind='resumed', text=text))
  return sorted(events, key=lambda event: event['images'])


def _stage_event(model: Record, record: Record) -> Event:
  side = _side(model, record.get('res'))
  seconds = finite_number(record['change_s'])
  text = f'{side} pixels from here on; the change took {seconds} s'
  compile_seconds = finite_number(record.get('compile_s'))
  if compile_seconds is not None:
    text += f', compiling before it {compile_seconds} s'
  return Event(images=record['images'], kind='stage', text=text, label=side)


def sample_grids(workdir: Path, metrics: Sequence[Record]) -> list[dict[str, Any]]:
  """Sample grids ordered by images, each with the resolution trained at that time."""
  paths = sorted(
    (int(path.stem), path)
    for path in (workdir / 'samples').glob('*.png')
    if re.fullmatch('[0-9]{1,15}', path.stem)
  )
  trained = sorted(
    {m['images']: m['res'] for m in metrics if finite_number(m.get('res'))}.items()
  )
  grids = []
  for images, path in paths:
    i = bisect_left(trained, images + 1, key=lambda pair: pair[0])
    res = int(trained[i - 1][1]) if i else None
    grids.append({'images': images, 'res': res, 'src': path})
  return grids


def grid_caption(config: Record, dataset: Record) -> str:
  """What the rows of a sample grid show."""
  text = 'EMA generator with fixed latents'
  if not finite_number(_section(config, 'model').get('n_classes')):
    return f'{text}.'
  rows = finite_number(_section(config, 'log').get('grid_rows'))
  classes = dataset.get('classes') or []
  shown = [str(name) for name in classes[: int(rows or 8)]]
  return f'{text}; one row per class' + (f': {", ".join(shown)}.' if shown else '.')


def other_images(workdir: Path) -> list[dict[str, Any]]:
  """Titles and paths of the .png files beside the config."""
  paths = {path.name: path for path in sorted(workdir.glob('*.png'))}
  order = [*CAPTIONS, *(name for name in paths if name not in CAPTIONS)]
  return [
    {'title': CAPTIONS.get(name, name), 'src': paths[name]}
    for name in order
    if name in paths and name not in PLOTS_OF_METRICS
  ]


def last_checkpoint(workdir: Path) -> str:
  """'step 1,625, 2026-11-22 05:05; 3 kept'."""
  folders = [p for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()]
  if not folders:
    return 'none yet'
  newest = max(folders, key=lambda path: int(path.name))
  when = time.strftime('%Y-%m-%d %H:%M', time.localtime(newest.stat().st_mtime))
  return f'step {int(newest.name):,}, {when}; {len(folders)} kept'


def read_scores(workdir: Path) -> list[tuple[str, str, str, str]]:
  """(metric, value, images, protocol) of the newest evaluation of each metric."""
  newest = {
    str(record.get('metric')): record
    for record in _read_records(workdir / 'evaluations.jsonl')
  }
  rows = []
  for name, record in newest.items():
    stamp = _section(record, 'stamp')
    protocol = [f'{stamp.get("n")} images of {stamp.get("data")}']
    if stamp.get('protocol'):
      protocol.append(f'protocol {stamp["protocol"]}')
    if stamp.get('truncation') is not None:
      protocol.append(f'truncation {stamp["truncation"]}')
    if stamp.get('psi') not in (None, 1):
      protocol.append(f'psi {stamp["psi"]}')
    value = finite_number(record.get('value'))
    text = 'not a number' if value is None else f'{value:.4g}'
    rows.append((name, text, f'{record["images"]:,}', ', '.join(protocol)))
  return rows


def device_text(record: Record) -> str:
  """'8 x TPU v5 lite in 2 processes'."""
  if 'devices' not in record:
    return 'unknown'
  processes = record.get('processes', 1)
  suffix = f' in {processes} processes' if processes != 1 else ''
  return f'{record["devices"]} x {record.get("device_kind", "unknown")}{suffix}'


def duration(seconds: float) -> str:
  """'3 h 20 min'."""
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{max(minutes, 1)} min'
  if minutes < 48 * 60:
    return f'{minutes // 60} h {minutes % 60} min'
  return f'{minutes // 1440} days {minutes % 1440 // 60} h'


def distinct_names(workdirs: Sequence[Path]) -> list[str]:
  """Names of the folders, with as many parents as it takes to tell them apart."""
  paths = [Path(workdir).resolve() for workdir in workdirs]
  longest = max(len(path.parts) for path in paths)
  for length in range(1, longest + 1):
    names = ['/'.join(path.parts[-length:]) for path in paths]
    if len(set(names)) == len(set(paths)):
      break
  return names


def _read_object(path: Path) -> Record:
  """The JSON object of a file; an empty one if the file holds anything else."""
  try:
    value = json.loads(path.read_text(errors='replace'))
  except (OSError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}


def _read_records(path: Path) -> list[Record]:
  """The JSON objects of a .jsonl file that have a valid number of images."""
  try:
    records = read_json_lines(path)
  except OSError:
    return []
  valid = lambda images: type(images) is int and 0 <= images < 2**53
  return [record for record in records if valid(record.get('images'))]


def _section(record: Record, name: str) -> Record:
  value = record.get(name)
  return value if isinstance(value, dict) else {}


def _minute(text: Any) -> str:
  """'2026-11-22 07:43' of '2026-11-22T07:43:47+0000'."""
  match = re.match(r'(\d{4}-\d\d-\d\d)T(\d\d:\d\d)', str(text))
  return ' '.join(match.groups()) if match else 'unknown'
