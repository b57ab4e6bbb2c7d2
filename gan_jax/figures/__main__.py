"""Draws the papers' figures from a run: python -m gan_jax.figures --workdir=DIR."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from PIL import Image

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.evaluation.real_images import load_real_images
from gan_jax.figures.catalogue import FIGURES, choose
from gan_jax.figures.source import Figure, Source
from gan_jax.models.base import GAN
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.sampling import output
from gan_jax.sampling.animation import check_animation, png_description, write_animation
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.options import MAX_SEED, SamplingOptions
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.files import atomic_path
from gan_jax.storage.working_copy import open_workdir

MOST_SEEDS = 200  # of a figure, from --seed on
FIGURE_FOLDER = 'figures'


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.figures',
    description="Draws the papers' figures from a run: NAME.png each, and film.webp. "
    'Their metadata say with which seeds, truncation and weights.',
    epilog='example: python -m gan_jax.figures --workdir=runs/stylegan '
    '--figures=truncation,mixing',
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument(
    '--figures',
    default='',
    metavar='NAMES',
    help=f'of {", ".join(FIGURES)}; default: all that the model has',
  )
  p.add_argument(
    '--list',
    action='store_true',
    help='list the figures, with --workdir those that its model has, and end',
  )
  p.add_argument(
    '--out', type=path, help='folder of the files; default: figures in the workdir'
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  p.add_argument(
    '--seed', type=int, default=0, help='first seed of each figure; default: 0'
  )
  p.add_argument(
    '--psi', type=float, help="as of gan_jax.sample, for all figures but 'truncation'"
  )
  p.add_argument(
    '--truncation',
    type=float,
    help="as of gan_jax.sample, for all figures but 'truncation'",
  )
  p.add_argument(
    '--data',
    metavar='NAME',
    help="path or name of the training images for 'nearest', for example if they have "
    'moved; default: data.name of the run',
  )
  p.add_argument(
    '--data_dir',
    type=path,
    help='folder of tensorflow-datasets sets; default: data.data_dir of the run',
  )
  p.add_argument(
    '--fps', type=float, default=8, help='frames per second of the film; default: 8'
  )
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  if args.list and not args.workdir:
    print(list_figures())
    return
  if not args.workdir:
    raise UserError('--workdir=DIR of a run is needed; --list shows the figures.')
  if not 0 <= args.seed <= MAX_SEED - MOST_SEEDS:
    raise UserError(f'--seed={args.seed}: allowed are 0 to {MAX_SEED - MOST_SEEDS}.')
  if not 0 < args.fps < float('inf'):
    raise UserError(f'--fps={args.fps}: it must be above 0.')
  check_animation('.webp', args.fps)
  options = SamplingOptions(psi=args.psi, truncation=args.truncation)
  writes = not (args.list or args.out)
  with open_workdir(args.workdir, write=writes) as folder:
    gan = read_config(folder).gan
    names = choose(args.figures, gan)
    if args.list:
      print(list_figures(gan))
      return
    draw_figures(args, folder, names, options)


def list_figures(gan: GAN | None = None) -> str:
  """The names with their summaries, one a line; those that `gan` has."""
  names = choose('', gan) if gan else list(FIGURES)
  return '\n'.join(f'{name:18}{FIGURES[name].summary}' for name in names)


def draw_figures(
  args: argparse.Namespace,
  folder: Path,
  names: Sequence[str],
  options: SamplingOptions,
) -> None:
  """Draws and writes figures of the run in a local folder.

  Figures that were not asked for by name are left out where something is missing.
  """
  out = args.out or folder / FIGURE_FOLDER
  shown = args.out or f'{args.workdir}/{FIGURE_FOLDER}'
  try:
    output.check_writable(out, is_folder=True)
  except OSError as error:
    raise output.cannot_write(out, error) from error
  config = read_config(folder)
  source = Source(
    TrainedGenerator(folder, args.checkpoint, not args.raw),
    config,
    folder,
    options,
    args.seed,
    lambda: load_real_images(
      folder, config, config.data.split, args.data, args.data_dir
    ),
  )
  _ = source.generator.phase  # reads the checkpoint: mistakes come first
  for name in names:
    try:
      figure = FIGURES[name].draw(source)
    except UserError as error:
      if args.figures:
        raise
      print(f'left out: {name}: {error}', file=sys.stderr)
      continue
    file = out / f'{name}{FIGURES[name].suffix()}'
    try:
      write_figure(file, figure, f'figure={name} {figure.description}', args.fps)
    except OSError as error:
      raise output.cannot_write(file, error) from error
    print(f'{shown}/{file.name}')


def write_figure(file: Path, figure: Figure, description: str, fps: float) -> None:
  """Writes a PNG, or the film; atomically, with `description` as metadata.

  Raises:
    OSError: it cannot be written.
  """
  file.parent.mkdir(parents=True, exist_ok=True)
  with atomic_path(file) as part:
    if figure.frames is not None:
      write_animation(part, figure.frames, fps, description)
    else:
      assert isinstance(figure.image, Image.Image)
      figure.image.save(part, pnginfo=png_description(description), optimize=True)


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
