"""Finds directions in latent space: python -m gan_jax.directions --workdir=DIR."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.directions import finding, latent_sets
from gan_jax.directions.finding import Found
from gan_jax.directions.image_grid import draw_grid
from gan_jax.directions.layers import factorize_layers, first_of, parse_layers
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.sampling.animation import png_description
from gan_jax.sampling.directions import (
  FILE,
  NAME,
  Direction,
  Directions,
  Space,
  load_directions,
  save_directions,
)
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.options import SamplingOptions, parse_ranges
from gan_jax.sampling.output import cannot_write
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.files import atomic_path, check_output_file
from gan_jax.storage.working_copy import check_results_folder, open_workdir

METHODS = {  # method -> strengths of the image
  'sefa': '-3,-1.5,0,1.5,3',
  'pca': '-3,-1.5,0,1.5,3',
  'centers': '-1,-0.5,0,0.5,1',
  'boundary': '-2,-1,0,1,2',
}
MAX_SAMPLES = 1_000_000


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.directions',
    description='Finds directions in the latent space of a run and shows them: z, or w '
    'of a StyleGAN. gan_jax.sample --direction=NAME:1.5 moves images along them.',
    epilog='example: python -m gan_jax.directions --workdir=runs/stylegan '
    '--method=centers --classes=face,flag --name=flag',
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument(
    '--method',
    default='sefa',
    choices=tuple(METHODS),
    help='sefa: closed-form factorization of the first weights; pca: principal '
    'components of w, or of the first features (GANSpace); centers: from the mean '
    'latent of one class to that of another; boundary: across a linear boundary '
    'between them; default: sefa',
  )
  p.add_argument(
    '--layers',
    metavar='LAYERS',
    help='layers to act on: coarse, middle, fine, layers such as 0-3, or a sum such as '
    'coarse+middle (StyleGAN); chunks of z such as 0-1 (BigGAN); default: all',
  )
  p.add_argument('--n', type=int, default=10, help='directions of sefa and pca')
  p.add_argument(
    '--classes', metavar='A,B', help='of centers and boundary: two labels or names'
  )
  p.add_argument(
    '--latents',
    metavar='A.npz,B.npz',
    help='of centers and boundary, instead of --classes: two files of latents, as '
    'gan_jax.sample --save_latents and gan_jax.project write them',
  )
  p.add_argument(
    '--samples', type=int, default=10_000, help='latents that are drawn; default: 10000'
  )
  p.add_argument(
    '--name', help='of the direction; of sefa and pca before the numbers from 0 on'
  )
  p.add_argument(
    '--out', type=path, help=f'file of the directions; default: {FILE} in the workdir'
  )
  p.add_argument(
    '--grid',
    type=path,
    metavar='FILE.png',
    help='image grid with a row per direction and a column per strength; default: '
    'directions_NAME.png beside the file',
  )
  p.add_argument(
    '--strengths', help='of the columns, such as -2,0,2; default: by method'
  )
  p.add_argument(
    '--seeds', help='of the images; default: 0, for a single direction 0-3'
  )
  p.add_argument('--psi', type=float, help='as of gan_jax.sample')
  p.add_argument('--truncation', type=float, help='as of gan_jax.sample')
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  check_arguments(args)
  with open_workdir(args.workdir, write=not args.out) as folder:
    out = args.out or Path(folder) / FILE
    check_output_file(out, '--out', ('.npz',))
    generator = TrainedGenerator(folder, args.checkpoint, not args.raw)
    _ = generator.phase  # reads the checkpoint: mistakes come first
    before = load_directions(out, generator.identity).by_name if out.exists() else {}
    layers = parse_layers(args.layers, generator)
    name = args.name or default_name(args, generator)
    grid = args.grid or out.with_name(f'directions_{name}.png')
    check_output_file(grid, '--grid', ('.png',))
    found = find(args, generator, np.flatnonzero(layers))
    names = [name]
    if args.method in ('sefa', 'pca'):
      names = [f'{name}{i}' for i in range(len(found.scales))]
    rows = zip(names, found.vectors, found.scales, strict=True)
    new = {n: Direction(n, x, layers, float(scale)) for n, x, scale in rows}
    space: Space = 'w' if generator.gan.style_based else 'z'
    all_ = Directions(space, generator.identity, before | new)
    shown = args.out or f'{args.workdir}/{FILE}'
    try:
      save_directions(out, all_)
      print(f'{", ".join(names)} in {shown}')
      write_grid(grid, args, generator, out, names)
    except OSError as error:
      raise cannot_write(out, error) from error
    print(f'image: {args.grid or f"{Path(shown).parent}/{grid.name}"}')


def check_arguments(args: argparse.Namespace) -> None:
  """
  Raises:
    UserError: a flag is missing, out of range or of no use.
  """
  if not args.workdir:
    raise UserError('--workdir=DIR of a run is needed.')
  check_results_folder(args.workdir, args.out)
  given = [x for x in ('classes', 'latents') if vars(args)[x]]
  if args.method in ('sefa', 'pca'):
    for name in given:
      raise UserError(
        f'--{name} is for --method=centers and --method=boundary, and this is '
        f'--method={args.method}.'
      )
  elif len(given) != 1:
    raise UserError(
      f'--method={args.method} needs --classes=A,B or --latents=A.npz,B.npz: give one.'
    )
  for name, least, most in (('n', 1, 1000), ('samples', 100, MAX_SAMPLES)):
    if not least <= vars(args)[name] <= most:
      raise UserError(f'--{name}={vars(args)[name]}: allowed are {least} to {most}.')
  if args.name is not None and not NAME.fullmatch(args.name):
    raise UserError(
      f'--name={args.name}: a name begins with a letter, and has letters, digits, and '
      '. _ - only.'
    )
  parse_strengths(args)
  parse_ranges(args.seeds or '0', 'seeds')
  SamplingOptions(psi=args.psi, truncation=args.truncation)


def parse_strengths(args: argparse.Namespace) -> list[float]:
  """
  Raises:
    UserError: something is no finite number.
  """
  text = METHODS[args.method] if args.strengths is None else args.strengths
  try:
    strengths = [float(x) for x in text.split(',')]
  except ValueError:
    strengths = [np.nan]
  if not np.isfinite(strengths).all():
    raise UserError(f'--strengths={text}: give numbers such as -2,0,2.')
  return strengths


def default_name(args: argparse.Namespace, generator: TrainedGenerator) -> str:
  """'sefa', 'pca', or the names of both classes or files."""
  if args.method in ('sefa', 'pca'):
    return args.method
  if args.latents:
    words = [Path(x).stem for x in args.latents.split(',')]
  else:
    labels = latent_sets.two_labels(generator, args.classes)
    names = generator.class_names
    words = [names[i] if names else f'class{i}' for i in labels]
  text = re.sub('[^A-Za-z0-9_.-]+', '_', '_to_'.join(words)).strip('_').lower()
  return (text if NAME.match(text) else f'from_{text}')[:64]


def find(
  args: argparse.Namespace, generator: TrainedGenerator, layers: np.ndarray
) -> Found:
  """The directions of the method, at most --n.

  Raises:
    UserError: the model has no latent that the method could use.
  """
  gan = generator.gan
  if args.method == 'sefa':
    return first_of(factorize_layers(generator, layers), args.n)
  if args.method == 'pca':
    points = latent_sets.of_seeds(generator, args.samples, 0)
    if gan.style_based is not None:
      return first_of(finding.principal_components(points), args.n)
    kernel = np.asarray(gan.latent_kernels(generator.variables)[layers[0]])
    return first_of(finding.feature_components(points, kernel), args.n)
  if args.latents:
    first, second = latent_sets.two_files(generator, args.latents)
  else:
    a, b = latent_sets.two_labels(generator, args.classes)
    n = args.samples // 2
    first = latent_sets.of_seeds(generator, n, 0, a)
    second = latent_sets.of_seeds(generator, n, n, b)
  if args.method == 'centers':
    return finding.between_centers(first, second)
  found, accuracy = finding.boundary(first, second)
  print(f'{accuracy:.1%} of the latents are on the right side of the boundary')
  return found


def write_grid(
  grid: Path,
  args: argparse.Namespace,
  generator: TrainedGenerator,
  out: Path,
  names: Sequence[str],
) -> None:
  """
  Raises:
    OSError: it cannot be written.
  """
  seeds = parse_ranges(args.seeds or ('0-3' if len(names) == 1 else '0'), 'seeds')
  options = SamplingOptions(
    psi=args.psi, truncation=args.truncation, directions=str(out), direction=names[0]
  )
  strengths = parse_strengths(args)
  image = draw_grid(generator, names, options, seeds, strengths)
  columns = ','.join(f'{x:g}' for x in strengths)
  text = f'directions={",".join(names)} strengths={columns} seeds={args.seeds or seeds}'
  with atomic_path(grid) as part:
    image.save(part, pnginfo=png_description(text), optimize=True)


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
