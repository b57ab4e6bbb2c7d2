"""Samples from a trained generator: python -m gan_jax.sample --workdir=DIR ..."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from gan_jax import UserError
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, add_flags, parsed_flags, path, workdir
from gan_jax.sampling import export, image_io, onnx_export, output
from gan_jax.sampling.exported import ExportedGenerator
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.interface import Generator
from gan_jax.sampling.latents import save_latents
from gan_jax.sampling.options import SamplingOptions
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.files import check_output_file
from gan_jax.storage.working_copy import open_workdir


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.sample',
    description='Samples images from the EMA generator of a run.',
    epilog='example: python -m gan_jax.sample --workdir=runs/emoji --out=grid.png',
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument(
    '--program',
    type=path,
    metavar='GEN.stablehlo',
    help='an exported generator, instead of --workdir',
  )
  p.add_argument(
    '--export',
    type=path,
    metavar='GEN.stablehlo',
    help='write the generator as a program that needs only jax, and its weights as '
    'GEN.safetensors, instead of images; GEN.onnx: as an ONNX model',
  )
  p.add_argument(
    '--out',
    type=path,
    help='grid.png, images.npz, morph.webp (.gif, .mp4, .apng), or a folder for PNGs',
  )
  existing = p.add_mutually_exclusive_group()
  for name, help_text in (
    ('append', 'number the images of a folder after those that it holds'),
    ('replace', 'remove the images that an earlier command wrote into the folder'),
  ):
    existing.add_argument(
      f'--{name}',
      dest='existing',
      action='store_const',
      const=name,
      default='',
      help=help_text,
    )
  p.add_argument(
    '--save_latents',
    type=path,
    metavar='FILE.npz',
    help='also write the latents of the images: --latents=FILE.npz draws them again',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  add_flags(p, SamplingOptions)
  p.add_argument(
    '--fps', type=float, default=24, help='frames per second of animations; default: 24'
  )
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  if bool(args.workdir) == bool(args.program):
    raise UserError('--workdir of a run or --program of an exported one: give one.')
  if bool(args.out) == bool(args.export):
    raise UserError('--out for images or --export for the generator: give one.')
  if args.export and args.save_latents:
    raise UserError('--save_latents is for images, and --export writes a generator.')
  if args.program and (args.export or args.raw or args.checkpoint is not None):
    raise UserError('--export, --raw and --checkpoint are for a run, not a --program.')
  options = parsed_flags(SamplingOptions, args)
  with open_workdir(args.workdir or Path()) as folder:
    if args.export:
      is_onnx = args.export.suffix.lower() == onnx_export.SUFFIX
      (onnx_export.check_onnx if is_onnx else export.check_export)(args.export)
      trained = TrainedGenerator(folder, args.checkpoint, not args.raw)
      program, *weights = trained.export(args.export, options)
      inside = f', its weights in {weights[0]}' if weights else ''
      print(f'the generator is in {program}{inside}')
      return
    output.check_output(args.out, args.fps, args.existing)
    if args.save_latents:
      if args.save_latents == args.out:
        raise UserError(f'--save_latents={args.out} is --out too: name another file.')
      check_output_file(args.save_latents, '--save_latents', ('.npz',))
    if args.program:
      generator: Generator = ExportedGenerator(args.program)
    else:
      generator = TrainedGenerator(folder, args.checkpoint, not args.raw)
    planned = generator.plan(options)
    try:
      image_io.write_images(args.out, planned, args.fps, args.existing)
    except OSError as error:
      raise output.cannot_write(args.out, error) from error
    if args.save_latents:
      try:
        save_latents(args.save_latents, planned.latents)
      except OSError as error:
        raise output.cannot_write(args.save_latents, error) from error
  n = len(planned.seeds)
  print(f'{n} image{"s" if n > 1 else ""} in {args.out}')


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
