"""Scores of 50,000 features in how much time and memory? See README.md beside this."""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDES = ('real', 'fake')
SCORES = ('fid', 'kid', 'prdc')


def write_features(folder: Path, n: int, dim: int) -> None:
  """Features of low intrinsic dimension and uneven scale, as networks' are."""
  for i, side in enumerate(SIDES):
    rng = np.random.default_rng(i)
    mix = np.random.default_rng(2).normal(size=(64, dim)).astype(np.float32)
    mix *= np.geomspace(1, 0.05, 64, dtype=np.float32)[:, None]
    rows = np.lib.format.open_memmap(folder / f'{side}.npy', 'w+', np.float32, (n, dim))
    for start in range(0, n, 1000):
      part = rows[start : start + 1000]
      hidden = rng.normal(0.1 * i, 1, (len(part), 64)).astype(np.float32)
      noise = 0.05 * rng.normal(size=part.shape).astype(np.float32)
      part[:] = np.maximum(hidden @ mix + noise, 0)


def ours(real: np.ndarray, fake: np.ndarray, score: str) -> dict[str, float]:
  from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
  from gan_jax.evaluation.metrics.frechet import frechet_distance
  from gan_jax.evaluation.metrics.kid import kernel_distance
  from gan_jax.evaluation.metrics.neighbors import neighbor_scores

  if score == 'fid':
    sides = []
    for rows in (real, fake):
      stats = FeatureStatistics(rows.shape[1])
      for start in range(0, len(rows), 1024):
        stats.update(rows[start : start + 1024])
      sides.append(stats)
    return {'fid': frechet_distance(*sides)}
  if score == 'kid':
    return {'kid': kernel_distance(real, fake, size=min(1000, len(real)))[0]}
  return neighbor_scores(real, fake)._asdict()


def torch_fidelity(real: np.ndarray, fake: np.ndarray, score: str) -> dict[str, float]:
  import torch
  from torch_fidelity import metric_fid, metric_kid, metric_prc

  a, b = torch.from_numpy(fake), torch.from_numpy(real)
  quiet = {'verbose': False}
  if score == 'fid':
    first, second = (metric_fid.fid_features_to_statistics(x) for x in (a, b))
    return {
      'fid': metric_fid.fid_statistics_to_metric(first, second, False)[
        'frechet_inception_distance'
      ]
    }
  if score == 'kid':
    found = metric_kid.kid_features_to_metric(
      a, b, kid_subset_size=min(1000, len(real)), **quiet
    )
    return {'kid': found['kernel_inception_distance_mean']}
  # Its other way, the default, holds three tables of n x n distances: 30 GB.
  found = metric_prc.prc_features_to_metric(a, b, save_cpu_ram=True, **quiet)
  return {name: found[name] for name in ('precision', 'recall')}


TOOLS = {'gan_jax': ours, 'torch_fidelity': torch_fidelity}


def one(folder: Path, tool: str, score: str) -> None:
  """In a process of its own, so that the largest resident size is that of one score."""
  real, fake = (np.load(folder / f'{side}.npy') for side in SIDES)
  before = time.perf_counter()
  values = TOOLS[tool](real, fake, score)
  seconds = time.perf_counter() - before
  status = Path('/proc/self/status').read_text()  # ru_maxrss begins with the parent's
  peak = int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 2**20
  print(json.dumps({'seconds': seconds, 'peak_gib': peak, 'values': values}))


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--images', type=int, default=50_000)
  p.add_argument('--dim', type=int, default=2048)
  p.add_argument('--tools', default='gan_jax', help='of gan_jax,torch_fidelity')
  p.add_argument('--scores', default=','.join(SCORES))
  p.add_argument(
    '--python',
    default=sys.executable,
    help='interpreter of torch_fidelity, if it has one of its own',
  )
  p.add_argument('--out', type=Path)
  p.add_argument('--one', nargs=3, metavar=('FOLDER', 'TOOL', 'SCORE'))
  args = p.parse_args()
  if args.one:
    folder, tool, score = args.one
    one(Path(folder), tool, score)
    return
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    write_features(Path(folder), args.images, args.dim)
    for score in args.scores.split(','):
      for tool in args.tools.split(','):
        python = args.python if tool == 'torch_fidelity' else sys.executable
        done = subprocess.run(
          [python, __file__, '--one', folder, tool, score],
          check=True,
          stdout=subprocess.PIPE,
          text=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        row = {
          'tool': tool,
          'score': score,
          'images': args.images,
          'dim': args.dim,
          'seconds': round(found['seconds'], 1),
          'peak_gib': round(found['peak_gib'], 2),
          'values': ' '.join(f'{k}={v:.8g}' for k, v in found['values'].items()),
        }
        print(row, flush=True)
        rows.append(row)
  if args.out:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open('w', newline='') as f:
      writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
