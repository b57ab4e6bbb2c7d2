"""How large a batch still helps? Runs a grid of trainings; see README.md."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.config import Config, parse_config
from gan_jax.models.base import Batch
from gan_jax.plan import flops
from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training import noise_scale, trainer
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import StepConfig
from gan_jax.training.train_state import init_state

HERE = Path(__file__).parent
BATCHES = 8, 16, 32, 64, 128
FACTORS = 1.0, 2.0, 4.0, 8.0  # of the demo's learning rates, scaled by sqrt(batch)
DEVICES = 2  # virtual devices, whose gradients the noise scale compares
HALF_LIFE = 1_000  # of the EMA weights in images, for every batch
Cell = tuple[int, float, int]  # batch, factor, seed


def raw_config_of(cell: Cell, images: int, every: int) -> dict[str, Any]:
  """The raw config of a cell: the digits demo with half its channels."""
  batch, factor, seed = cell
  sys.path.insert(0, str(HERE.parent.parent))
  config = importlib.import_module('configs.biggan_digits').get_config()
  rate = factor * (batch / config.schedule.batch) ** 0.5
  config.model.update(g_ch=16, d_ch=16)
  config.schedule.update(
    batch=batch,
    g_lr=config.schedule.g_lr * rate,
    d_lr=config.schedule.d_lr * rate,
    ema=0.5 ** (batch / HALF_LIFE),
  )
  config.train.update(images=images, seed=seed)
  config.log.update(metrics_every=every, grid_every=images, checkpoint_every=images)
  values = config.to_dict()
  values['model']['bn_group'] = 1  # devices share no batch statistics
  values['train']['noise_scale'] = True
  values['log'] |= dict(keep=1, keep_periodic=0)
  values['score'] = dict(every=every, metrics=('fd_small',))
  return values


def gflop(config: Config) -> tuple[float, float]:
  """GFLOP of the networks per image, and of work on the weights per step."""
  (stage,) = config.stages
  gan = config.gan
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  state = jax.eval_shape(lambda: init_state(gan, *txs, jax.random.key(0)))
  shape = (1, 1, stage.batch, gan.res, gan.res, gan.channels)
  batch = Batch(
    jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct(shape[:3], np.int32)
  )
  phase = config.schedule.phase_at(0, gan.res)
  fixed = StepConfig(gan, *txs, g_batch=stage.batch)
  step_cost = flops.step_flops(fixed, state, batch, phase)
  return step_cost.networks / stage.batch / 1e9, step_cost.weights / 1e9


def train_cell(cell: Cell, images: int, every: int, workdir: Path) -> dict[str, Any]:
  """Trains a cell, or resumes it, and returns its row of cells.jsonl."""
  values = raw_config_of(cell, images, every)
  config = parse_config(values)
  ended = ''
  try:
    state = trainer.Trainer(config, workdir).run()
    if int(state.images) < images:
      raise SystemExit('stopped; run the same command to resume')
  except UserError as error:  # all updates are non-finite, which is a result, too
    ended = str(error)
  # Keyed by images: a killed run may have computed a score twice.
  scores = {
    x['images']: x['value'] for x in read_json_lines(workdir / 'evaluations.jsonl')
  }
  lines = read_json_lines(workdir / 'metrics.jsonl')
  per_image, per_step = gflop(config)
  row = dict(zip(('batch', 'factor', 'seed'), cell, strict=True))
  row |= {'images': images, 'gflop_image': per_image, 'gflop_step': per_step}
  row |= {'ended': ended, 'score/images': [*scores], 'score/value': [*scores.values()]}
  with_noise = [x for x in lines if 'd_signal' in x]
  for name in ('images', *noise_scale.METRICS):  # means over the steps of each line
    row[f'noise/{name}'] = [x.get(name) for x in with_noise]
  return row


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--images', type=int, default=24_000, help='training images per run')
  p.add_argument('--every', type=int, default=1_000, help='images between scores')
  p.add_argument('--batches', type=int, nargs='+', default=BATCHES)
  p.add_argument('--factors', type=float, nargs='+', default=FACTORS)
  p.add_argument('--seeds', type=int, default=3, help='runs per batch and factor')
  p.add_argument('--runs', type=Path, default=Path('runs/batch_study'))
  p.add_argument('--out', type=Path, default=HERE / 'results' / 'cells.jsonl')
  args = p.parse_args()
  jax.config.update('jax_num_cpu_devices', DEVICES)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  finished = [x for x in read_json_lines(args.out) if x['images'] == args.images]
  done = {(x['batch'], x['factor'], x['seed']) for x in finished}
  cells = [
    (batch, factor, seed)
    for seed in range(args.seeds)
    for batch in args.batches
    for factor in args.factors
  ]
  for cell in [c for c in cells if c not in done]:
    tqdm.write('batch {}, factor {:g}, seed {}'.format(*cell))
    workdir = args.runs / 'b{}_x{:g}_s{}'.format(*cell)
    row = train_cell(cell, args.images, args.every, workdir)
    with args.out.open('a') as f:
      f.write(json.dumps(row) + '\n')
    jax.clear_caches()


if __name__ == '__main__':
  main()
