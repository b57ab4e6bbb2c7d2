"""A run as figures, curves and events, read from what lies in its folder.

Of a run that was killed in the middle of a line, too; and whatever the files hold.
"""

import json
import math
import re
import statistics
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax import UserError

POINTS = 1200  # of a curve; of more lines, the extremes of each stretch are shown

Line = dict[str, Any]


class Panel(NamedTuple):
  """A chart: the series whose names match, in the order of the page."""

  title: str
  names: str  # a regular expression, of the whole name
  log: bool = False


PANELS = (
  Panel("D's scores", 'd_real|d_fake'),
  Panel('Losses', '.*loss.*'),
  Panel('Penalties', '.*(penalty|ortho).*'),
  Panel('Norms of gradients', '[dg]_grad.*', log=True),
  Panel('Largest singular value', '.*sigma.*'),
  Panel('Gradient noise scale', '.*noise_scale.*', log=True),
  Panel('Variety of the sheet', 'diversity'),
  Panel('Fréchet distance', 'eval/f(i|)d.*'),
  Panel('Kernel distance', 'eval/kid.*'),
  Panel('Precision and recall', 'eval/(precision|recall|density|coverage).*'),
  Panel('Accuracy of the class', 'eval/accuracy.*'),
  Panel('Sliced Wasserstein distance', 'eval/swd.*'),
  Panel('Other scores', 'eval/.*'),
  Panel('Learning rates', '[dg]_lr', log=True),
  Panel('Resolution', 'res'),
  Panel('Fade of the resolution', 'alpha'),
  Panel('Images a second', 'images_per_s'),
  Panel('Updates skipped', 'skipped'),
  Panel('More', '.*'),
)
NO_SERIES = {'images', 'step', 'change_s', 'open_s', 'compile_s', 'to_step'}
UNSAID = {'res', 'alpha', 'skipped'}  # not drawn while nothing but the usual happens
TITLES = {  # of pictures that may lie in a workdir
  'data.png': 'The data: images across the set, and its labels',
  'grid.png': 'A row for each class',
  'mixing.png': 'Style mixing: coarse, middle and fine styles of the columns',
  'stages.png': 'The same noise at each resolution',
  'frontier.png': 'Scores across truncations',
}
REDUNDANT = {'watch.png', 'curves.png'}  # curves that this page draws itself


def read_lines(path: Path) -> list[Line]:
  """The JSON objects of a file, a line each, without what is none or half of one."""
  try:
    text = path.read_text(errors='replace')
  except OSError:
    return []
  found = []
  for line in text.split('\n'):
    try:
      value = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(value, dict):
      found.append(value)
  return found


def read_object(path: Path) -> Line:
  """A file of one JSON object; of anything else, an empty one."""
  try:
    value = json.loads(path.read_text(errors='replace'))
  except (OSError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
  """A finite number rounded to five figures; None for anything else."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    return float(f'{value:.5g}') if math.isfinite(value) else None
  except OverflowError:
    return None


def series(lines: Sequence[Line]) -> dict[str, dict[int, float]]:
  """Name -> images -> value, images in order."""
  found: dict[str, dict[int, float]] = {}
  for line in lines:
    for name, value in line.items():
      if name not in NO_SERIES and (rounded := number(value)) is not None:
        found.setdefault(name, {})[line['images']] = rounded
  return found


def charts(lines: Sequence[Line]) -> list[dict[str, Any]]:
  """What is drawn: each with title, names, log, x [n] and y, an [n] for each name."""
  rest, drawn = series(lines), []
  for panel in PANELS:
    names = [name for name in rest if re.fullmatch(panel.names, name)]
    taken = {name: rest.pop(name) for name in names}
    for name in names:
      if name in UNSAID and len(set(taken[name].values())) == 1:
        del taken[name]
    if not taken:
      continue
    x, y = thin(sorted(set().union(*taken.values())), list(taken.values()))
    log = panel.log and all(v is None or v > 0 for line in y for v in line)
    drawn.append(
      {'title': panel.title, 'names': list(taken), 'log': log, 'x': x, 'y': y}
    )
  return drawn


def thin(
  x: list[int], curves: Sequence[Mapping[int, float]]
) -> tuple[list[int], list[list[float | None]]]:
  """Curves at no more than `POINTS` places: of each stretch the least and the greatest.

  Args:
    x: all places, in order.
    curves: place -> value.

  Returns:
    The places, and each curve's values there; None where it has none.
  """
  if len(x) <= POINTS:
    return x, [[curve.get(at) for at in x] for curve in curves]
  stretches = POINTS // 2
  ends = [len(x) * i // stretches for i in range(stretches + 1)]
  places: list[int] = []
  for low, high in zip(ends, ends[1:], strict=False):
    places += [x[low], x[high - 1]]
  thinned: list[list[float | None]] = []
  for curve in curves:
    values: list[float | None] = []
    for low, high in zip(ends, ends[1:], strict=False):
      there = [curve[at] for at in x[low:high] if at in curve]
      if not there:
        values += [None, None]
        continue
      least, most = min(there), max(there)
      falls = there.index(least) > there.index(most)
      values += [most, least] if falls else [least, most]
    thinned.append(values)
  return places, thinned


def events(lines: Sequence[Line], workdir: Path) -> list[dict[str, Any]]:
  """Stages, restarts, rollbacks and verdicts, in the order of images."""
  found = []
  for line in lines:
    if 'change_s' in line:
      took, compiled = number(line['change_s']), number(line.get('compile_s'))
      text = f'{line.get("res")} pixels from here on; the change took {took} s'
      if compiled is not None:
        text += f', its compile beforehand {compiled} s'
      found.append(
        dict(images=line['images'], kind='stage', text=text, label=str(line.get('res')))
      )
    if 'collapsed' in line:
      text = str(line['collapsed'])
      found.append(dict(images=line['images'], kind='collapse', text=text))
  for line in timed(read_lines(workdir / 'rollbacks.jsonl')):
    text = f'back to step {line.get("to_step")}: {line.get("collapsed")}'
    found.append(dict(images=line['images'], kind='rollback', text=text))
  for line in timed(read_lines(workdir / 'starts.jsonl')):
    if line['images'] > 0:
      text = f'{moment(line.get("started"))}, on {topology(line)}'
      found.append(dict(images=line['images'], kind='resumed', text=text))
  return sorted(found, key=lambda event: event['images'])


def timed(lines: Sequence[Line]) -> list[Line]:
  """Those that say after how many images they were written."""
  return [
    line
    for line in lines
    if type(line.get('images')) is int and 0 <= line['images'] < 2**53
  ]


def summarize_run(workdir: Path) -> dict[str, Any]:
  """All of a run but its pictures' bytes: `sheets` and `pictures` hold paths.

  Raises:
    UserError: there is no run.
  """
  config = read_object(workdir / 'config.json')
  if not config:
    raise UserError(f'{workdir} is not the folder of a run: there is no config.json.')
  lines = timed(read_lines(workdir / 'metrics.jsonl'))
  about = read_object(workdir / 'run.json')
  images = max((line['images'] for line in lines), default=0)
  total = _section(config, 'train').get('images')
  total = total if type(total) is int and total > 0 else 0
  rates = [r for line in lines if (r := number(line.get('images_per_s')))]
  rate = statistics.median(rates[-10:]) if rates else None
  happened = events(lines, workdir)
  lost = [event for event in happened if event['kind'] == 'collapse']
  state, mood = f'at image {images:,}', ''
  if total and images >= total:
    state, mood = 'finished', 'good'
  elif total:
    state = f'{images / total:.0%} trained'
  if lost and all(e['images'] <= lost[-1]['images'] for e in happened):
    state, mood = f'{state}; seems to have collapsed', 'bad'
  skipped = sum(number(line.get('skipped')) or 0 for line in lines)
  verdict = (
    f'{len(lost)} collapse{"s" * (len(lost) != 1)} seen' if lost else 'nothing amiss'
  )
  if skipped:
    verdict += f'; updates that were not finite: {skipped:g} in the lines kept'
  model, left = _section(config, 'model'), total - images
  data = _section(config, 'data')
  dataset = _section(about, 'dataset')
  known = f': {dataset["images"]:,} images' if number(dataset.get('images')) else ''
  facts = {
    'Model': f'{model.get("family")} at {model.get("res")} pixels',
    'Data': f'{data.get("name")}{known}',
    'Classes': str(model.get('n_classes') or 'none'),
    'Devices': topology(about),
    'Images': f'{images:,}' + (f' of {total:,}' if total else ''),
    'Images a second': f'{rate:,.4g}' if rate else 'not measured yet',
    'Time left': 'not known yet' if rate is None else duration(left / rate),
    'Last checkpoint': last_checkpoint(workdir),
    'Watch': verdict if lines else 'nothing to judge yet',
    'Started': moment(about.get('started')),
  }
  if left <= 0:
    del facts['Time left']
  sheets = sorted(
    (int(path.stem), path)
    for path in (workdir / 'sheets').glob('*.png')
    if re.fullmatch('[0-9]{1,15}', path.stem)
  )
  beside = {path.name: path for path in sorted(workdir.glob('*.png'))}
  shown = [*TITLES, *(name for name in beside if name not in TITLES)]
  return {
    'facts': list(facts.items()),
    'state': state,
    'mood': mood,
    'done': min(images / total, 1) if total else 0,
    'charts': charts(lines),
    'lines': len(lines),
    'events': happened,
    'sheets': [
      {'images': at, 'res': res, 'src': path}
      for (at, path), res in zip(
        sheets, resolutions([at for at, _ in sheets], lines), strict=True
      )
    ],
    'caption': caption(config, dataset),
    'pictures': [
      {'title': TITLES.get(name, name), 'src': beside[name]}
      for name in shown
      if name in beside and name not in REDUNDANT
    ],
    'scores': scores(workdir),
    'config': dict(flat(config)),
    'surroundings': json.dumps(about, indent=1),
  }


def _section(config: Line, name: str) -> Line:
  value = config.get(name)
  return value if isinstance(value, dict) else {}


def flat(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
  """'train.images', '52000' of each value."""
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', json.dumps(value)


def topology(about: Line) -> str:
  """'8 x TPU v5 lite in 2 processes'."""
  if 'devices' not in about:
    return 'unknown'
  processes = about.get('processes', 1)
  where = f' in {processes} processes' if processes != 1 else ''
  return f'{about["devices"]} x {about.get("device_kind", "unknown")}{where}'


def resolutions(places: Sequence[int], lines: Sequence[Line]) -> list[int | None]:
  """Of the sheet at each place: what the last step before it was trained at."""
  known = sorted(
    {line['images']: line['res'] for line in lines if number(line.get('res'))}.items()
  )
  found: list[int | None] = []
  for place in places:
    i = bisect_left(known, place + 1, key=lambda pair: pair[0])
    found.append(int(known[i - 1][1]) if i else None)
  return found


def caption(config: Line, dataset: Line) -> str:
  """What the rows of a sheet are."""
  classes = dataset.get('classes') or []
  rows = number(_section(config, 'log').get('sheet_rows'))
  text = 'The averaged generator, always from the same noise'
  if not number(_section(config, 'model').get('n_classes')):
    return f'{text}.'
  shown = [str(name) for name in classes[: int(rows or 8)]]
  return f'{text}; a row for each class' + (f': {", ".join(shown)}.' if shown else '.')


def last_checkpoint(workdir: Path) -> str:
  """'step 1,625, 2026-11-22 05:05; 3 are kept'."""
  folders = [p for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()]
  if not folders:
    return 'none yet'
  newest = max(folders, key=lambda path: int(path.name))
  when = time.strftime('%Y-%m-%d %H:%M', time.localtime(newest.stat().st_mtime))
  return f'step {int(newest.name):,}, {when}; {len(folders)} kept'


def scores(workdir: Path) -> list[tuple[str, str, str, str]]:
  """(metric, value, images, protocol) of the newest line of each metric."""
  newest: dict[str, Line] = {}
  for line in timed(read_lines(workdir / 'evaluations.jsonl')):
    newest[str(line.get('metric'))] = line
  rows = []
  for name, line in newest.items():
    stamp = _section(line, 'stamp')
    how = [f'{stamp.get("n")} images of {stamp.get("data")}']
    if stamp.get('truncation') is not None:
      how.append(f'truncation {stamp["truncation"]}')
    if stamp.get('psi') not in (None, 1):
      how.append(f'psi {stamp["psi"]}')
    value = number(line.get('value'))
    rows.append(
      (
        name,
        'not a number' if value is None else f'{value:.4g}',
        f'{line["images"]:,}',
        ', '.join(how),
      )
    )
  return rows


def moment(text: Any) -> str:
  """'2026-11-22 07:43' of '2026-11-22T07:43:47+0000'."""
  found = re.match(r'(\d{4}-\d\d-\d\d)T(\d\d:\d\d)', str(text))
  return ' '.join(found.groups()) if found else 'unknown'


def names(workdirs: Sequence[Path]) -> list[str]:
  """The folders' names, with as many of those above as tell them apart."""
  paths = [Path(workdir).resolve() for workdir in workdirs]
  longest = max(len(path.parts) for path in paths)
  for length in range(1, longest + 1):
    found = ['/'.join(path.parts[-length:]) for path in paths]
    if len(set(found)) == len(set(paths)):
      break
  return found


def duration(seconds: float) -> str:
  """'3 h 20 min'."""
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{max(minutes, 1)} min'
  if minutes < 48 * 60:
    return f'{minutes // 60} h {minutes % 60} min'
  return f'{minutes // 1440} days {minutes % 1440 // 60} h'
