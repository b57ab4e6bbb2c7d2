"""Samples from a trained generator: python -m gan_jax.sample --workdir=DIR ..."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from gan_jax import UserError
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, add_flags, parsed_flags
from gan_jax.sampling import image_io
from gan_jax.sampling.generator import ExportedGenerator, Generator, TrainedGenerator
from gan_jax.sampling.options import SamplingOptions


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.sample',
    description='Samples images from the EMA generator of a run.',
    epilog='example: python -m gan_jax.sample --workdir=runs/emoji --out=grid.png',
  )
  p.add_argument('--workdir', help='folder of the run')
  p.add_argument(
    '--program',
    metavar='GEN.stablehlo',
    help='an exported generator, instead of --workdir',
  )
  p.add_argument(
    '--export',
    metavar='GEN.stablehlo',
    help='write the generator as a program that needs only jax, and its weights as '
    'GEN.safetensors, instead of images',
  )
  p.add_argument(
    '--out',
    help='grid.png, images.npz, morph.webp (.gif, .mp4), or a folder for PNGs',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  add_flags(p, SamplingOptions)
  p.add_argument('--fps', type=int, default=24, help='frames per second of animations')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  if bool(args.workdir) == bool(args.program):
    raise UserError('--workdir of a run or --program of an exported one: give one.')
  if bool(args.out) == bool(args.export):
    raise UserError('--out for images or --export for the generator: give one.')
  if args.program and (args.export or args.checkpoint):
    raise UserError('--export and --checkpoint are for a run, not a --program.')
  options = parsed_flags(SamplingOptions, args)
  if args.export:
    trained = TrainedGenerator(args.workdir, args.checkpoint)
    program, weights = trained.export(args.export, options)
    print(f'the generator is in {program}, its weights in {weights}')
    return
  out = Path(args.out)
  image_io.check_output(out, args.fps)
  if args.program:
    generator: Generator = ExportedGenerator(args.program)
  else:
    generator = TrainedGenerator(args.workdir, args.checkpoint)
  planned = generator.plan(options)
  image_io.write_images(out, *planned, args.fps)
  print(f'{len(planned.seeds)} images in {out}')


if __name__ == '__main__':
  keep_freed_memory()
  run_command(main)
