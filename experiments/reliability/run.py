"""How runs survive kills, corrupted files, other devices and faults; see README.md."""

import argparse
import csv
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its flags)

# isort: split
import numpy as np
from broken import flips, kills, nans
from collapse import collapses, seeds
from disk import full
from elastic import elastic
from goodput import goodput
from hangs import hangs
from restarts import restarts
from stops import stops
from stores import stores

RESULTS = Path(__file__).parent / 'results'


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  experiments = (
    *('kills', 'flips', 'stores', 'elastic', 'nans', 'full', 'collapses', 'seeds'),
    *('stops', 'hangs', 'goodput', 'restarts'),
  )
  p.add_argument('experiment', choices=experiments)
  p.add_argument('--scratch', type=Path, required=True, help='folder for the runs')
  p.add_argument('--old', type=Path, help='checkout to compare with (restarts)')
  p.add_argument('--n', type=int, default=0, help='number of kills, flips or seeds')
  p.add_argument(
    '--images', type=int, default=24_000, help='images per run (collapses, seeds)'
  )
  p.add_argument(
    '--seed', type=int, default=0, help='random seed of kills, flips and nudges'
  )
  args = p.parse_args()
  scratch, rng = args.scratch.absolute(), np.random.default_rng(args.seed)
  scratch.mkdir(parents=True, exist_ok=True)
  rows = {
    'kills': lambda: kills(scratch, rng, args.n or 30),
    'flips': lambda: flips(scratch, rng, args.n or 200),
    'stores': lambda: stores(scratch, rng, args.n or 10),
    'elastic': lambda: elastic(scratch, rng),
    'nans': lambda: nans(scratch),
    'full': lambda: full(scratch),
    'collapses': lambda: collapses(scratch, args.images),
    'seeds': lambda: seeds(scratch, args.images, args.n or 10),
    'stops': lambda: stops(scratch, rng, args.n or 20),
    'hangs': lambda: hangs(scratch, rng),
    'goodput': lambda: goodput(scratch),
    'restarts': lambda: restarts(scratch, args.old.absolute(), args.n or 3),
  }[args.experiment]()
  RESULTS.mkdir(exist_ok=True)
  with (RESULTS / f'{args.experiment}.csv').open('w', newline='') as f:
    writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
