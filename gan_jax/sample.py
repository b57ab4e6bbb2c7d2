"""Pictures from a trained generator: python -m gan_jax.sample --workdir=DIR ..."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from gan_jax import UserError
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.sampling import image_io
from gan_jax.sampling.generator import ExportedGenerator, TrainedGenerator
from gan_jax.sampling.options import SamplingOptions


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.sample',
    description='Draws pictures with the averaged generator of a run.',
  )
  p.add_argument('--workdir', help='folder of the run')
  p.add_argument(
    '--program',
    metavar='GEN.stablehlo',
    help='instead of a run: a generator that --export wrote',
  )
  p.add_argument(
    '--export',
    metavar='GEN.stablehlo',
    help='instead of pictures: the generator as a program that needs jax alone, and '
    'its weights as GEN.safetensors',
  )
  p.add_argument(
    '--out',
    help='sheet.png, images.npz, morph.webp (.gif, .mp4), or a folder for PNGs',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument('--seeds', help='one picture each: 0-63 or 1,5,9-12')
  p.add_argument('--num', type=int, help='instead: seeds 0 to NUM-1')
  p.add_argument('--classes', help='0-8 or 3,5; taken in turn')
  p.add_argument(
    '--grid', action='store_true', help='a row for each class, a column for each seed'
  )
  p.add_argument(
    '--truncation',
    type=float,
    metavar='T',
    help='draw entries of z beyond +-T again (BigGAN; smaller: better, less varied)',
  )
  p.add_argument(
    '--psi',
    type=float,
    help='BigGAN: scale z, a normal cut at 2 unless --truncation says otherwise; '
    'StyleGAN: draw w towards its average (smaller: better, less varied)',
  )
  p.add_argument(
    '--truncated_layers',
    type=int,
    metavar='N',
    help='StyleGAN: psi acts on the first N layers; default: 8, as in the paper',
  )
  p.add_argument(
    '--noise',
    choices=('own', 'stored', 'off'),
    help="StyleGAN: each seed's own noise, the one that came with the weights, or none",
  )
  p.add_argument(
    '--noise_seed', type=int, metavar='N', help='StyleGAN: all with the noise of seed N'
  )
  p.add_argument(
    '--noise_strength', type=float, metavar='S', help='StyleGAN: times all noise'
  )
  p.add_argument(
    '--mix',
    metavar='SEEDS',
    help='StyleGAN: a sheet of --seeds (rows) with styles of these (columns)',
  )
  p.add_argument(
    '--mix_layers',
    help='what is taken from the columns, a band for each: coarse, middle, fine, '
    'layers such as 0-3, or several such as coarse+middle',
  )
  p.add_argument('--res', type=int, help='an earlier resolution of a growing GAN')
  p.add_argument(
    '--standing',
    type=int,
    metavar='N',
    help='batches from which batch statistics are taken anew; 0: the running ones',
  )
  p.add_argument(
    '--interpolate',
    choices=('z', 'w', 'class'),
    help='from each seed to the next: in z, in w (StyleGAN), or in the class alone',
  )
  p.add_argument('--frames', type=int, help='pictures from seed to seed')
  p.add_argument(
    '--only', type=int, metavar='N', help='of all these, picture N alone, from 0 on'
  )
  p.add_argument('--fps', type=int, default=24, help='frames a second of an animation')
  p.add_argument('--columns', type=int, help='of a sheet')
  p.add_argument('--batch', type=int, help='pictures at a time')
  p.set_defaults(**dataclasses.asdict(SamplingOptions()))
  return p


def asked(args: argparse.Namespace) -> SamplingOptions:
  """The request in a parsed command line."""
  names = [field.name for field in dataclasses.fields(SamplingOptions)]
  return SamplingOptions(**{name: getattr(args, name) for name in names})


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns of reading what it may not write
  if bool(args.workdir) == bool(args.program):
    raise UserError('--workdir of a run or --program of an exported one: give one.')
  if bool(args.out) == bool(args.export):
    raise UserError('--out for pictures or --export for the generator: give one.')
  out, request = Path(args.out or args.export), asked(args)
  if args.out:
    image_io.check_output(out, args.fps)
  if args.program:
    if args.export or args.checkpoint:
      raise UserError('--export and --checkpoint are for a run, not a --program.')
    generator: TrainedGenerator | ExportedGenerator = ExportedGenerator(args.program)
  else:
    generator = TrainedGenerator(args.workdir, args.checkpoint)
  if args.export and isinstance(generator, TrainedGenerator):
    files = generator.export(request, out)
    print(f'the generator is in {files[0]}, its weights in {files[1]}')
    return
  pictures = generator.pictures(request)
  image_io.write_images(out, *pictures, args.fps)
  print(f'{len(pictures.seeds)} pictures in {out}')


if __name__ == '__main__':
  keep_freed_memory()
  run_command(main)
