"""Scores a run: python -m gan_jax.evaluate --workdir=DIR [--metrics=fid,prdc,...].

Images are generated once for all metrics. A score is stored with its protocol, all that
its value depends on besides the model, and only scores of equal protocols are compared.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from gan_jax import UserError, data
from gan_jax.config import Config
from gan_jax.config.workdir import read_config
from gan_jax.evaluation import memorization_grid, results, truncation_sweep
from gan_jax.evaluation.applicability import DEFAULT_METRICS, needs_images
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.metrics import (
  METRIC_NAMES,
  PATHS,
  SEPARABILITY,
  inception,
  lpips,
)
from gan_jax.evaluation.metrics.named_network import NamedNetworks, read_networks
from gan_jax.evaluation.protocol import PROTOCOLS, EvaluationProtocol
from gan_jax.evaluation.real_images import load_real_images, without_images
from gan_jax.evaluation.statistics_files import StatisticsFile, read_statistics
from gan_jax.models.base import Variables
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import (
  CommandParser,
  add_flags,
  data_dir,
  given_flags,
  path,
  workdir,
)
from gan_jax.storage import checkpoint
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.working_copy import open_workdir

SWEEP_METRICS = ('fd_small', 'prdc_small')  # of --frontier without --metrics


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.evaluate',
    description='Scores the EMA generator of a run against its training data.',
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument(
    '--compare',
    nargs=2,
    type=workdir,
    metavar=('A', 'B'),
    help='print the scores of two runs',
  )
  p.add_argument(
    '--metrics',
    default='',
    help=f'of {", ".join(METRIC_NAMES)}; default: those of '
    f'{", ".join(DEFAULT_METRICS)} that apply',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--data',
    metavar='NAME',
    help='path, URL or name of the real images, for example if they have moved; '
    'default: data.name of the run',
  )
  p.add_argument(
    '--data_dir',
    type=data_dir,
    help='folder or URL of tensorflow-datasets sets; default: data.data_dir of the run',
  )
  p.add_argument(
    '--data_cache',
    type=path,
    help='folder that a prepared set is copied to; default: data.cache of the run, '
    'unless --data is given',
  )
  p.add_argument('--split', default='', help="of the data; default: the run's")
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  p.add_argument(
    '--protocol',
    choices=tuple(PROTOCOLS),
    help='set the flags below that this tool decides as it does; a flag that '
    'contradicts it is a mistake',
  )
  add_flags(p, EvaluationProtocol)
  p.add_argument(
    '--inception',
    type=path,
    help=f'weights of Inception-v3; default: ${inception.ENVIRONMENT}',
  )
  p.add_argument(
    '--statistics',
    metavar='FILES',
    help='Inception statistics in place of the real images: an .npz file of '
    'pytorch-fid or clean-fid with mu and sigma (for fid) or feats (for kid and prdc '
    'too), or one of each, joined by a comma',
  )
  p.add_argument(
    '--lpips',
    help='weights of VGG-16 and LPIPS, joined by commas; '
    f'default: ${lpips.ENVIRONMENT}, or those of the extra lpips',
  )
  p.add_argument(
    '--features',
    type=path,
    metavar='FILE',
    help='feature network of the metrics that end in _features: an exported JAX '
    'function from images to rows of features; without --metrics, adds fd_features',
  )
  p.add_argument(
    '--classifiers',
    type=paths,
    default=(),
    metavar='FILE,FILE,...',
    help='exported JAX functions from images to logits of binary attributes, for '
    'separability; default: a small network trained on the labels of the data; '
    'without --metrics, adds separability',
  )
  p.add_argument(
    '--frontier',
    default='',
    metavar='T,T,...',
    help='score EMA and raw weights at these truncation values instead; '
    'writes frontier.csv, frontier.png and frontier.jsonl',
  )
  p.add_argument(
    '--cache',
    type=path,
    help='folder of cached statistics; default: $GAN_JAX_CACHE or ~/.cache/gan_jax',
  )
  return p


def paths(text: str) -> list[Path]:
  """The files of a flag, joined by commas."""
  return [path(name) for name in text.split(',') if name]


def main(argv: Sequence[str] | None = None) -> None:
  parser = make_parser()
  args = parser.parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write
  if args.compare:
    with contextlib.ExitStack() as stack:
      folders = [stack.enter_context(open_workdir(place)) for place in args.compare]
      for name, a, b in results.compare_scores(*folders):
        print(f'{name:24} {a:12.6g} {b:12.6g}')
    return
  if not args.workdir:
    raise UserError('--workdir=DIR or --compare A B is needed.')
  protocol = make_protocol(args, given_flags(parser, EvaluationProtocol, argv))
  thresholds = parse_thresholds(args.frontier)
  if thresholds:
    truncation_sweep.require_matplotlib()
  with open_workdir(args.workdir, write=True) as folder:
    _evaluate(args, folder, protocol, thresholds)


def make_protocol(
  args: argparse.Namespace, given: Mapping[str, Any]
) -> EvaluationProtocol:
  """The protocol that the flags describe.

  Args:
    given: the fields whose flags the command line names.

  Raises:
    UserError: a value out of range, or a flag that contradicts --protocol.
  """
  if not args.protocol:
    return EvaluationProtocol(**given, ema=not args.raw)
  given = {**given, **({'ema': False} if args.raw else {})}
  if args.frontier and 'psi' in PROTOCOLS[args.protocol]:
    given['psi'] = None  # several values
  written = {'ema': '--raw'}
  if args.frontier:
    written['psi'] = f'--frontier={args.frontier}'
  return EvaluationProtocol.named(args.protocol, given, written)


def _evaluate(
  args: argparse.Namespace,
  folder: Path,
  protocol: EvaluationProtocol,
  thresholds: Sequence[float],
) -> None:
  """Scores the run in a local folder as the flags say."""
  config = read_config(folder)
  if not os.access(folder, os.W_OK):
    raise UserError(f'{folder} cannot be written, and the scores belong there.')
  split = args.split or config.data.split
  metrics = [name for name in args.metrics.split(',') if name]
  given, named = read_given_statistics(args, protocol), name_networks(args, metrics)
  defaults = default_metrics(given, named, sweep=bool(thresholds))
  if given and not any(needs_images(x, named) for x in metrics or defaults):
    dataset = without_images(config.gan, given.name)
  elif {*metrics} <= {*PATHS} and metrics and not args.data:
    dataset = load_or_no_images(folder, config, split, args.data_dir)
  else:
    dataset = load_real_images(
      folder, config, split, args.data, args.data_dir, args.data_cache
    )
  branches = (True, False) if thresholds else (protocol.ema,)
  trained = restore_generators(folder, config, branches, args.checkpoint)
  phase = config.phase_at(trained.images)
  evaluator = Evaluator(
    config.gan,
    dataset,
    metrics,
    dataclasses.replace(protocol, alpha=float(np.asarray(phase.alpha))),
    res=phase.res,
    split=split,
    flip=config.data.flip,
    inception_file=args.inception,
    lpips_files=args.lpips,
    given=given,
    named=named,
    cache=args.cache,
    defaults=defaults,
    log=_note,
  )
  if thresholds:
    sweep(evaluator, trained.generators, thresholds, folder)
  else:
    score(evaluator, trained, folder)


def read_given_statistics(
  args: argparse.Namespace, protocol: EvaluationProtocol
) -> StatisticsFile | None:
  """The files of --statistics.

  Raises:
    UserError: as `read_statistics`, or a flag that says which real images are taken.
  """
  if not args.statistics:
    if args.data and args.data.endswith('.npz'):
      raise UserError(
        f'--data={args.data} takes images: name a file of statistics with '
        f'--statistics={args.data}.'
      )
    return None
  for flag, given in (
    (f'--reals={args.reals}', args.reals),
    ('--mirror=always', args.mirror == 'always'),
  ):
    if given:
      raise UserError(
        f'{flag} contradicts --statistics={args.statistics}, which was computed from '
        'other images already: leave out one of the two.'
      )
  return read_statistics(args.statistics, protocol.resizing)


def name_networks(args: argparse.Namespace, metrics: Sequence[str]) -> NamedNetworks:
  """Reads the files of --features and --classifiers.

  Args:
    metrics: those of --metrics.

  Raises:
    UserError: as `read_networks`, or none of the metrics uses a file.
  """
  for flag, file, used, example in (
    ('features', args.features, '_features', 'fd_features'),
    ('classifiers', args.classifiers, SEPARABILITY, SEPARABILITY),
  ):
    if file and metrics and not any(name.endswith(used) for name in metrics):
      raise UserError(
        f'--{flag} is for {example}, and --metrics={args.metrics} does not use it: '
        'add the metric, or leave the flag out.'
      )
  return read_networks(args.features, args.classifiers)


def load_or_no_images(
  folder: Path, config: Config, split: str, data_dir: Path | None
) -> data.Dataset:
  """The run's real images, or none where they are missing: path lengths need none."""
  try:
    return load_real_images(folder, config, split, None, data_dir)
  except UserError as error:
    _note(f'note: path lengths are measured without real images: {error}')
    return without_images(config.gan, config.data.name)


def default_metrics(
  given: StatisticsFile | None, named: NamedNetworks, sweep: bool
) -> tuple[str, ...]:
  """The metrics where --metrics names none."""
  of_named = ('fd_features',) * bool(named.features)
  of_named += (SEPARABILITY,) * bool(named.classifiers)
  if given:
    return ('fid', 'is', *(() if given.n is None else ('kid', 'prdc')), *of_named)
  return (*(SWEEP_METRICS if sweep else DEFAULT_METRICS), *of_named)


def _note(sentence: str) -> None:
  print(sentence, file=sys.stderr)


class TrainedWeights(NamedTuple):
  """Generators of a checkpoint."""

  generators: Mapping[bool, Variables]  # EMA weights under True, raw ones under False
  images: int  # training images seen
  step: int


def restore_generators(
  folder: Path, config: Config, branches: Sequence[bool], step: int | None
) -> TrainedWeights:
  """Reads the EMA weights (True) or the raw weights (False) of G from a checkpoint.

  Args:
    step: of the checkpoint; None for the newest.

  Raises:
    UserError: no such checkpoint.
  """
  keys = {True: 'ema', False: 'g'}
  shapes, _ = jax.eval_shape(config.gan.init, jax.random.key(0))
  like = {keys[ema]: shapes for ema in branches}
  like['images'] = jax.ShapeDtypeStruct((), np.uint32)
  subtrees, step = checkpoint.restore_subtrees(folder, like, step)
  generators = {ema: subtrees[keys[ema]] for ema in branches}
  return TrainedWeights(generators, int(subtrees['images']), step)


def sweep(
  evaluator: Evaluator,
  generators: Mapping[bool, Variables],
  thresholds: Sequence[float],
  folder: Path,
) -> None:
  """Scores generators at several truncation values; writes the files of a sweep."""
  records = truncation_sweep.sweep_truncation(evaluator, generators, thresholds)
  if jax.process_index() == 0:
    truncation_sweep.write_sweep(records, folder / 'frontier')
    print(f'written: {folder}/frontier.csv, .png, and with protocols .jsonl')


def score(evaluator: Evaluator, trained: TrainedWeights, folder: Path) -> None:
  """Scores the generator; prints the scores and appends them to the run's files."""
  (generator,) = trained.generators.values()
  records = evaluator.evaluate(generator)
  grid = folder / memorization_grid.FILE
  if evaluator.nearest and jax.process_index() == 0:
    memorization_grid.write_grid(evaluator, generator, grid)
    print(f'written: {grid}: the generated images that are nearest to training images')
  if jax.process_index() == 0:
    for record in records:
      print(f'{record["metric"]:24} {record["value"]:12.6g}')
    results.append_scores(
      folder, records, images=trained.images, checkpoint=trained.step
    )
    print(f'written with their protocols: {folder / results.SCORES_FILE}')


def parse_thresholds(text: str) -> list[float]:
  """'0.2,0.5,1' -> [0.2, 0.5, 1.0]; '' -> [].

  Raises:
    UserError: anything but numbers above 0.
  """
  try:
    thresholds = [float(number) for number in text.split(',') if number]
  except ValueError:
    thresholds = [0.0]
  if any(not t > 0 for t in thresholds):
    raise UserError(
      f'--frontier={text}: give thresholds above 0, for example 0.2,0.5,1.'
    )
  return thresholds


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
