"""Does orthogonal regularization make BigGAN amenable to truncation? See README.md."""

import argparse
import csv
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np

from gan_jax import data
from gan_jax.config import Config, load_raw_config, parse_config
from gan_jax.evaluation import truncation_sweep
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.storage import checkpoint
from gan_jax.training import trainer

THRESHOLDS = (2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2)


def changed_config(path: str, ortho: float, seed: int, images: int) -> Config:
  """A config with another orthogonal regularization, seed and number of images."""
  raw_config = load_raw_config(path)
  raw_config['g_adam']['ortho'] = ortho
  raw_config['train']['seed'] = seed
  if images:
    raw_config['train']['images'] = images
  return parse_config(raw_config)


def sweep_run(config: Config, workdir: Path, num: int) -> list[dict]:
  """Trains a run, unless it is finished, and scores it at each truncation."""
  trainer.Trainer(config, workdir).run()
  dataset = data.load_dataset(
    config.data.name,
    split=config.data.split,
    res=config.gan.res,
    channels=config.gan.channels,
  )
  shapes, _ = jax.eval_shape(config.gan.init, jax.random.key(0))
  parts, _ = checkpoint.restore_subtrees(workdir, {'ema': shapes, 'g': shapes})
  evaluator = Evaluator(
    config.gan, dataset, ['fd_small', 'prdc_small'], EvaluationProtocol(num=num)
  )
  generators = {True: parts['ema'], False: parts['g']}
  records = truncation_sweep.sweep_truncation(evaluator, generators, THRESHOLDS)
  truncation_sweep.write_sweep(records, workdir / 'frontier')
  return truncation_sweep.sweep_table(records)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--config', default='configs/biggan_emoji.py')
  p.add_argument(
    '--ortho', default='0,1e-4', help='strengths of the orthogonal term, compared'
  )
  p.add_argument('--seeds', type=int, default=3, help='runs per strength')
  p.add_argument('--images', type=int, default=0, help="default: the config's")
  p.add_argument(
    '--num', type=int, default=0, help='images per threshold; 0: as many as real ones'
  )
  p.add_argument('--runs', type=Path, default=Path('runs/truncation_frontier'))
  p.add_argument('--out', type=Path, required=True)
  args = p.parse_args()
  table = []
  for ortho in map(float, args.ortho.split(',')):
    for seed in range(args.seeds):
      config = changed_config(args.config, ortho, seed, args.images)
      rows = sweep_run(config, args.runs / f'ortho{ortho:g}-seed{seed}', args.num)
      for ema in (True, False):
        own = [row for row in rows if row['ema'] == ema]
        share = truncation_sweep.amenability(own)
        print(f'ortho {ortho:g}, seed {seed}, ema {ema}: amenable {share:.2f}')
        table += [
          {'ortho': ortho, 'seed': seed, **row, 'amenable': share} for row in own
        ]
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as f:
    writer = csv.DictWriter(f, list(table[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(table)
  for ortho in sorted({row['ortho'] for row in table}):
    shares = [r['amenable'] for r in table if r['ortho'] == ortho and r['ema']]
    whole = np.mean(np.array(shares) == 1)
    print(f'ortho {ortho:g}: {whole:.0%} of the EMA generators are amenable')


if __name__ == '__main__':
  main()
