"""How good are generated clothes, and how few images are enough? See README.md."""

import argparse
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import numpy as np
from classifier import CLASSES, SIDE
from scores import Images, Judge, N, read_images
from series import SERIES, cells, runs_of
from tables import Record, draw_curves, draw_run, table, write_csv, write_grid

from gan_jax import UserError
from gan_jax.config import Config, load_config
from gan_jax.config.workdir import read_config
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import path
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.options import SamplingOptions
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.json_lines import append_json_lines, read_json_lines
from gan_jax.training.trainer import Trainer

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / 'configs'
FULL = 'full'  # workdir of the run with all images
LONG = {'train.images': '1_000_000_000', 'log.keep': '100'}
SECONDS_PER_LOOK = 5.0  # at the time that a run has trained


def trained(workdir: Path) -> tuple[int, float]:
  """Images that a run has seen, and the seconds that it trained, over all starts."""
  starts = read_json_lines(workdir / 'starts.jsonl')
  seconds = sum(line.get('seconds', {}).get('training', 0) for line in starts)
  return max((line.get('until_images', 0) for line in starts), default=0), seconds


def make_config(family: str, data: Path, settings: dict[str, str]) -> Config:
  config = CONFIGS / f'{family}_fashion.py'
  return load_config(str(config), [('data.name', str(data)), *settings.items()])


def train_small(data: Path, workdir: Path) -> None:
  """Trains all runs on few images one after the other; finished ones are skipped."""
  for cell in cells():
    folder = workdir / cell.run
    config = make_config(cell.series, data, cell.settings)
    if trained(folder)[0] >= config.train.images:
      continue
    print(f'{folder.name} ...', flush=True)
    if Trainer(config, folder).run().images < config.train.images:
      return  # Ctrl-C: the same command goes on


def train_full(data: Path, workdir: Path, minutes: float) -> None:
  """Trains on all images until the run has trained for so long, over all starts."""
  folder = workdir / FULL
  trainer = Trainer(make_config('progan', data, LONG), folder)
  done = threading.Event()

  def stop_in_time() -> None:
    while not done.wait(SECONDS_PER_LOOK):
      if trained(folder)[1] >= 60 * minutes:
        trainer.stop()
        return

  if trained(folder)[1] < 60 * minutes:
    watch = threading.Thread(target=stop_in_time)
    watch.start()
    try:
      trainer.run()
    finally:
      done.set()
      watch.join()
  images, seconds = trained(folder)
  print(f'{images:,} images in {seconds / 60:.1f} minutes of training', flush=True)


def score(data: Path, test: Path, workdir: Path, out: Path) -> None:
  """Scores all checkpoints that are not yet scored, and writes the results."""
  out.mkdir(parents=True, exist_ok=True)
  train = read_images(data)
  judge = Judge(train, read_images(test), workdir / 'classifier.msgpack')
  print('real images:', judge.real, flush=True)
  runs = {FULL: len(train.images)}
  for cell in cells():
    runs[cell.run] = len(train.images) * int(cell.fraction.removesuffix('%')) // 100
  log = workdir / 'scores.jsonl'
  for run, n_images in runs.items():
    folder = workdir / run
    steps = grown_steps(folder)
    scored = {(r['run'], r['step']) for r in read_json_lines(log)}
    for step in reversed(steps):
      if (run, step) not in scored:
        record, drawn = score_checkpoint(judge, folder, step, train.images[:n_images])
        if step == steps[-1]:
          record |= {'minutes': round(trained(folder)[1] / 60, 1)}
          write_grid(drawn, out / f'{run}.png')
        append_json_lines(log, [record])
        print(record, flush=True)
  records = read_json_lines(log)
  write_csv([*records, {'run': 'real', 'images': 0, **judge.real}], out / 'scores.csv')
  full = [r for r in records if r['run'] == FULL]
  draw_run(full, judge.real, out / 'full_curves.png')
  for series in SERIES:
    runs_by_images = runs_of(series)
    draw_curves(records, runs_by_images, out / f'{series}_curves.png')
    print(f'{series}\n{table(records, runs_by_images)}')


def grown_steps(folder: Path) -> list[int]:
  """Steps of the checkpoints after growing; none before the run has begun."""
  if not (folder / 'checkpoints').is_dir():
    return []
  checkpoints = Checkpointer(folder, read_only=True)
  try:
    steps = checkpoints.steps()
  finally:
    checkpoints.close()
  config = read_config(folder)
  phases = [config.phase_at(images_at(config, step)) for step in steps]
  grown = [phase.res == SIDE and phase.alpha == 1 for phase in phases]
  return list(itertools.compress(steps, grown))


def images_at(config: Config, step: int) -> int:
  """Images seen after `step` iterations: here a batch is the same at all sizes."""
  return step * config.images_per_step(config.stages[0])


def score_checkpoint(
  judge: Judge, folder: Path, step: int, train: np.ndarray
) -> tuple[Record, np.ndarray]:
  """The scores of a checkpoint, and its images."""
  config = read_config(folder)
  generator = TrainedGenerator(folder, step)
  options = SamplingOptions(
    seeds=f'0-{N - 1}', classes=f'0-{CLASSES - 1}', psi=1.0, batch=250, padded=True
  )
  images = np.concatenate(list(generator.plan(options).images))
  scores = judge.score(Images(images, np.arange(N) % CLASSES), train)
  record = {
    'run': folder.name,
    'step': step,
    'images': images_at(config, step),
    'excess': scores['fd'] - judge.real['fd'],
    **scores,
  }
  return {
    k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()
  }, images


def make_parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('command', choices=('train', 'small', 'score'))
  p.add_argument('--data', type=path, required=True, help='prepared Fashion-MNIST')
  p.add_argument('--test', type=path, help='prepared test images, for score')
  p.add_argument('--workdir', type=path, required=True, help='folder of all runs')
  p.add_argument(
    '--minutes', type=float, default=180.0, help='of training in all, for train'
  )
  p.add_argument('--out', type=path, default=HERE / 'results', help='for score')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  if args.minutes <= 0:
    raise UserError(f'--minutes={args.minutes}: more than 0 are needed.')
  start = time.perf_counter()
  if args.command == 'small':
    train_small(args.data, args.workdir)
  elif args.command == 'train':
    train_full(args.data, args.workdir, args.minutes)
  else:
    if not args.test:
      raise UserError('--test is needed: README.md says how to prepare the images.')
    score(args.data, args.test, args.workdir, args.out)
  print(f'{(time.perf_counter() - start) / 60:.1f} minutes in all', flush=True)


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
