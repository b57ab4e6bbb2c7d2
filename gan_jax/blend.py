"""Blends two generators by resolution: python -m gan_jax.blend A B --res=16 --out=DIR.

Layer swapping (Pinkney and Adler 2020, arXiv:2010.05334): the layers of low resolutions
come from A and those of high ones from B, so that images have the poses and outlines of
A and the textures of B. The mapping network and the class embeddings come from A.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.models.base import GAN, TRAINING_KEYS, Variables
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.saving import write_generator
from gan_jax.storage.files import check_output_folder, write_json
from gan_jax.storage.working_copy import open_workdir

# Keys of the model of which the two runs may have different values, besides those that
# only training reads: of D, and of sampling, which is as A's.
_FREE = ('d_', 'mbstd_', 'mbdisc_', 'mixing', 'w_avg', 'trunc', 'split_d', 'g_init')


def make_parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  p = CommandParser(
    'gan_jax.blend',
    description='Blends the EMA generators of two runs of one architecture by '
    'resolution, and saves the result as a generator: low resolutions come from A, '
    'high ones from B. The mapping network and class embeddings come from A.',
    epilog='example: python -m gan_jax.blend runs/faces runs/cartoons --res=32 '
    '--out=runs/blended',
  )
  for name in 'ab':
    p.add_argument(
      name,
      metavar=name.upper(),
      type=workdir,
      help='folder of a run, or a gs:// or s3:// URL',
    )
  p.add_argument(
    '--res', type=int, required=True, help='side of the first feature maps from B'
  )
  p.add_argument(
    '--ramp',
    type=int,
    default=0,
    help='number of resolutions, from --res on, over which weights pass linearly from '
    'A to B; default: 0, all of B from --res on',
  )
  p.add_argument('--out', type=path, required=True, help='new folder of the generator')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  check_output_folder(args.out, '--out')
  if args.out.is_dir() and any(args.out.iterdir()):
    raise UserError(f'--out={args.out} holds files already: take a new folder.')
  with open_workdir(args.a) as folder_a, open_workdir(args.b) as folder_b:
    a, b = TrainedGenerator(folder_a), TrainedGenerator(folder_b)
    check_same_architecture(a.gan, b.gan, str(args.a), str(args.b))
    check_resolution(a.gan, args.res, args.ramp)
    if a.phase.res != b.phase.res:
      raise UserError(
        f'{args.a} has grown to {a.phase.res} pixels and {args.b} to {b.phase.res}: '
        'train the smaller one on.'
      )
    blended = blend(a.gan, a.variables, b.variables, args.res, args.ramp)
    write_generator(folder_a, args.out, a, blended)
  record = {'a': str(args.a), 'b': str(args.b), 'res': args.res, 'ramp': args.ramp}
  write_json(args.out / 'blend.json', record)
  print(
    f'{args.out} is a generator: python -m gan_jax.sample --workdir={args.out} '
    '--seeds=0-63 --out=grid.png'
  )


def check_same_architecture(a: GAN, b: GAN, name_a: str, name_b: str) -> None:
  """
  Raises:
    UserError: the generators are of different architectures.
  """
  families = [type(gan).__name__ for gan in (a, b)]
  if families[0] != families[1]:
    raise UserError(
      f'{name_a} is a {families[0]} and {name_b} a {families[1]}: runs of one '
      'architecture can be blended.'
    )
  for field in dataclasses.fields(a):
    values = [vars(gan)[field.name] for gan in (a, b)]
    free = field.name in TRAINING_KEYS or field.name.startswith(_FREE)
    if not free and values[0] != values[1]:
      raise UserError(
        f'model.{field.name} is {values[0]!r} in {name_a} and {values[1]!r} in '
        f'{name_b}: runs of one architecture can be blended.'
      )


def check_resolution(gan: GAN, res: int, ramp: int) -> None:
  """
  Raises:
    UserError: the generator has no feature maps of this side, or a negative ramp.
  """
  sizes = sorted({*gan.block_sizes, 2 * gan.res})
  if res not in sizes:
    *own, above = map(str, sizes)
    raise UserError(
      f'--res={res}: the generator has feature maps of {", ".join(own)} pixels, and '
      f'{above} takes all from A.'
    )
  if ramp < 0:
    raise UserError(f'--ramp={ramp} is negative: 0 or more resolutions are needed.')


def blend(gan: GAN, a: Variables, b: Variables, res: int, ramp: int = 0) -> Variables:
  """The generator whose layers come from `a` below `res`, and from `b` from there on.

  Args:
    ramp: number of resolutions, from `res` on, that are mixtures. All weights of a
      resolution have the same share of `b`: with ramp=2, 1/3 at `res`, 2/3 at the next
      one, 1 from then on.
  """
  globs = [
    (glob, size)
    for block, size in zip(gan.blocks_of('g'), gan.block_sizes, strict=True)
    for glob in block
  ]

  def mix(key_path: Any, ours: Any, theirs: Any) -> np.ndarray:
    names = list(_layers(key_path))
    sizes = (s for glob, s in globs if any(fnmatchcase(n, glob) for n in names))
    size = next(sizes, None)
    if size is None:
      return np.asarray(ours)  # the mapping network, class embeddings, the mean w
    steps = math.log2(size / res) + 1
    share = min(max(steps / (ramp + 1), 0.0), 1.0)
    if share in (0, 1):
      return np.asarray(theirs if share else ours)
    low, high = np.asarray(ours), np.asarray(theirs)
    return (low + (high - low) * share).astype(low.dtype)

  return jax.tree_util.tree_map_with_path(mix, jax.device_get(a), jax.device_get(b))


def _layers(key_path: Any) -> Iterator[str]:
  """The names of a variable and of the layers it is in, as `blocks_of` writes them."""
  collection, *parts = (entry.key for entry in key_path)
  if collection == 'noise':
    parts.insert(0, 'synthesis')
  for n in range(1, len(parts) + 1):
    yield '/'.join(parts[:n])


if __name__ == '__main__':
  run_command(main)
