"""How runs survive kills, corrupted files, other devices and faults; see README.md."""

import argparse
import csv
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its flags)

# isort: split
import numpy as np
import store_costs
import stores
from broken import flips, kills, nans
from collapse import collapses, seeds
from disk import full
from elastic import elastic
from goodput import goodput
from hangs import hangs
from restarts import restarts
from stops import stops

RESULTS = Path(__file__).parent / 'results'


EXPERIMENTS = {  # name -> answer, from the folder for runs, the dice and the flags
  'kills': lambda scratch, rng, args: kills(scratch, rng, args.n or 30),
  'flips': lambda scratch, rng, args: flips(scratch, rng, args.n or 200),
  'store_kills': lambda scratch, rng, args: stores.kills(scratch, rng, args.n or 10),
  'store_flips': lambda scratch, rng, args: stores.flips(scratch, rng, args.n or 50),
  'store_halves': lambda scratch, rng, args: stores.halves(scratch, rng, args.n or 10),
  'store_writers': lambda scratch, rng, args: stores.writers(scratch),
  'store_processes': lambda scratch, rng, args: stores.processes(scratch, rng),
  'store_outages': lambda scratch, rng, args: store_costs.outages(scratch),
  'store_mirroring': lambda scratch, rng, args: store_costs.mirroring(scratch, rng),
  'elastic': lambda scratch, rng, args: elastic(scratch, rng),
  'nans': lambda scratch, rng, args: nans(scratch),
  'full': lambda scratch, rng, args: full(scratch),
  'collapses': lambda scratch, rng, args: collapses(scratch, args.images),
  'seeds': lambda scratch, rng, args: seeds(scratch, args.images, args.n or 10),
  'stops': lambda scratch, rng, args: stops(scratch, rng, args.n or 20),
  'hangs': lambda scratch, rng, args: hangs(scratch, rng),
  'goodput': lambda scratch, rng, args: goodput(scratch),
  'restarts': lambda scratch, rng, args: restarts(
    scratch, args.old.absolute(), args.n or 3
  ),
}


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('experiment', choices=EXPERIMENTS)
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
  print(f'seed {args.seed}', flush=True)
  scratch, rng = args.scratch.absolute(), np.random.default_rng(args.seed)
  scratch.mkdir(parents=True, exist_ok=True)
  rows = EXPERIMENTS[args.experiment](scratch, rng, args)
  RESULTS.mkdir(exist_ok=True)
  names = list(dict.fromkeys(name for row in rows for name in row))
  with (RESULTS / f'{args.experiment}.csv').open('w', newline='') as f:
    writer = csv.DictWriter(f, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
