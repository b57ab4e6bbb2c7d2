"""Studies and the files of their runs, written by hand, as the tests read them."""

import json
import math

from gan_jax.study.__main__ import make_parser
from gan_jax.study.cells import make_cells
from gan_jax.study.spec import read_study

CONFIG = '--config=biggan_digits:tiny'


def described(folder, *flags, overrides=()):
  """(study, cells, faults) of a command line."""
  args = make_parser().parse_args(['run', f'--study={folder}', *flags])
  faults = []
  study = read_study(args, overrides, faults)
  return study, make_cells(study, faults), faults


def write_run(study, cell, scores, ended='finished', noise=(), **line):
  """Writes what a run of a cell records, with scores {images: value}."""
  workdir = cell.workdir(study.folder)
  workdir.mkdir(parents=True, exist_ok=True)
  images = max(scores, default=0)
  start = {'images': 0, 'until_images': images, 'ended': ended}
  (workdir / 'starts.jsonl').write_text(json.dumps(start) + '\n')
  (workdir / 'config.json').write_text(json.dumps(cell.config.to_dict()))
  lines = [
    {'images': i, 'metric': study.spec.score, 'value': v, 'stamp': {}}
    for i, v in scores.items()
  ]
  write_lines(workdir / 'evaluations.jsonl', lines)
  write_lines(workdir / 'metrics.jsonl', [{'images': images, **line}, *noise])
  return workdir


def write_lines(path, lines):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def falling(arrival, images, end=16):
  """Scores 1 / t of t = images / arrival: 1 at the arrival, by its logarithm."""
  ticks = [images * (i + 1) // end for i in range(end)]
  return {i: math.exp(1 - i / arrival) for i in ticks}


def noise_lines(images, scale):
  """Lines of metrics.jsonl with noise scales: of D `scale`, of G twice that."""
  return [
    {
      'images': i,
      'd_signal': 2.0,
      'd_noise': 2.0 * scale,
      'g_signal': 1.0,
      'g_noise': 2.0 * scale,
    }
    for i in images
  ]
