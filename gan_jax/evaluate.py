"""Scores a run: python -m gan_jax.evaluate --workdir=DIR [--metrics=fid,prdc,...].

Pictures are drawn once for all metrics. A score is written with its protocol, all that
its value depends on beside the model, and only equal protocols are compared.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from gan_jax import UserError, data
from gan_jax.config.workdir import read_config
from gan_jax.evaluation import results, truncation_sweep
from gan_jax.evaluation.evaluator import Evaluator, Protocol
from gan_jax.evaluation.metrics import METRICS, PATHS, inception, ppl
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.storage import checkpoint


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.evaluate',
    description='Scores the averaged generator of a run against its data.',
  )
  p.add_argument('--workdir', help='folder of the run')
  p.add_argument(
    '--compare', nargs=2, metavar=('A', 'B'), help='instead: the scores of two runs'
  )
  p.add_argument(
    '--metrics',
    default='',
    help=f'of {", ".join([*METRICS, *PATHS])}; default: offline',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--num', type=int, default=0, help='generated images; default: as many as real ones'
  )
  p.add_argument('--reals', type=int, default=0, help='real images; default: all')
  p.add_argument('--split', default='', help="of the data; default: the run's")
  p.add_argument(
    '--truncation',
    type=float,
    default=np.inf,
    metavar='T',
    help='draw entries of z beyond +-T again',
  )
  p.add_argument('--psi', type=float, default=1.0, help='scale of z, or of w - mean')
  p.add_argument('--raw', action='store_true', help='the weights, not their average')
  p.add_argument(
    '--standing', type=int, default=16, metavar='N', help='see gan_jax.sample'
  )
  p.add_argument('--seed', type=int, default=0, help='of the first image')
  p.add_argument('--batch', type=int, default=64, help='images at a time')
  p.add_argument(
    '--inception', help=f'weights of Inception-v3; default: ${inception.ENVIRONMENT}'
  )
  p.add_argument(
    '--resizing',
    default='torch',
    choices=tuple(inception.RESIZINGS),
    help='to 299 pixels: pytorch-fid, torch-fidelity (tf1), clean-fid, ...',
  )
  p.add_argument(
    '--lpips', help=f'weights of LPIPS, VGG-16; default: ${ppl.ENVIRONMENT}'
  )
  p.add_argument(
    '--frontier',
    default='',
    metavar='T,T,...',
    help='sweep truncation, with and without the average: frontier.csv and .png',
  )
  p.add_argument(
    '--cache', type=Path, help='of real statistics; default: ~/.cache/gan_jax'
  )
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns of reading what it may not write
  if args.compare:
    a, b = args.compare
    for name, x, y in results.compare_scores(a, b):
      print(f'{name:24} {x:12.6g} {y:12.6g}')
    return
  if not args.workdir:
    raise UserError('--workdir=DIR or --compare A B is needed.')
  for name in ('truncation', 'psi', 'batch'):
    if not getattr(args, name) > 0:
      raise UserError(f'--{name}={getattr(args, name)}: it must be above 0.')
  for name in ('num', 'reals', 'standing', 'seed'):
    if getattr(args, name) < 0:
      raise UserError(f'--{name}={getattr(args, name)}: it must not be negative.')
  thresholds = parse_thresholds(args.frontier)
  if thresholds:
    truncation_sweep.require_matplotlib()
  folder = Path(args.workdir)
  run = read_config(folder)
  gan, split = run.gan, args.split or run.data.split
  dataset = data.load_dataset(**run.source(split))
  names = [name for name in args.metrics.split(',') if name]
  if thresholds and not names:
    names = ['fd_small', 'prdc_small']
  branches = {True: 'ema', False: 'g'}
  wanted = [not args.raw] if not thresholds else [True, False]
  shapes, _ = jax.eval_shape(gan.init, jax.random.key(0))
  like = {branches[ema]: shapes for ema in wanted}
  like['images'] = jax.ShapeDtypeStruct((), np.uint32)
  parts, step = checkpoint.restore_subtrees(folder, like, args.checkpoint)
  phase = run.schedule.phase_at(int(parts['images']), gan.res)
  evaluator = Evaluator(
    gan,
    dataset,
    names,
    Protocol(
      n=args.num,
      reals=args.reals,
      truncation=args.truncation,
      psi=args.psi,
      alpha=float(np.asarray(phase.alpha)),
      ema=not args.raw,
      standing=args.standing,
      seed=args.seed,
      batch=args.batch,
      resizing=args.resizing,
    ),
    res=phase.res,
    split=split,
    inception_file=args.inception,
    lpips_files=args.lpips,
    cache=args.cache,
  )
  about = {'checkpoint': step, 'images': int(parts['images'])}
  if thresholds:
    generators = {ema: parts[branches[ema]] for ema in wanted}
    lines = truncation_sweep.sweep(evaluator, generators, thresholds)
    if jax.process_index() == 0:
      truncation_sweep.write(lines, folder / 'frontier')
      print(f'{folder}/frontier.csv, .png, and with protocols .jsonl')
    return
  lines = evaluator.lines(parts[branches[wanted[0]]])
  if jax.process_index() == 0:
    results.append_scores(folder, lines, **about)
    for line in lines:
      print(f'{line["metric"]:24} {line["value"]:12.6g}')
    print(f'with their protocol in {folder / results.LINES}')


def parse_thresholds(text: str) -> list[float]:
  """'0.2,0.5,1' -> [0.2, 0.5, 1.0]; nothing is none.

  Raises:
    UserError: anything but numbers above 0.
  """
  try:
    found = [float(part) for part in text.split(',') if part]
  except ValueError:
    found = [0.0]
  if any(not t > 0 for t in found):
    raise UserError(f'--frontier={text}: give thresholds above 0, such as 0.2,0.5,1.')
  return found


if __name__ == '__main__':
  keep_freed_memory()
  run_command(main)
