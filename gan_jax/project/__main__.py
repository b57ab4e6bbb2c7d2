"""Finds latents of given images: python -m gan_jax.project IMAGE... --workdir=DIR."""

import argparse
from collections.abc import Sequence

from absl import logging

from gan_jax import UserError
from gan_jax.project.options import ProjectOptions
from gan_jax.project.session import OUT, Session
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, add_flags, parsed_flags, path, workdir
from gan_jax.storage.compile_cache import use_compile_cache
from gan_jax.storage.lock import lock_workdir
from gan_jax.storage.working_copy import check_results_folder, open_workdir


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.project',
    description='Finds latents whose images are the given ones: the optimization of '
    'StyleGAN2. Writes OUT/latents.npz for gan_jax.sample --latents, side_by_side.png, '
    'a film and results.json with PSNR and LPIPS. The same command goes on after it '
    'was interrupted. Faces are to be aligned before, as in the training set.',
    epilog='example: python -m gan_jax.project face.png --workdir=runs/stylegan',
  )
  p.add_argument(
    'images', nargs='+', type=path, metavar='IMAGE', help='image files, one batch'
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument(
    '--out', type=path, help=f'folder of the results; default: {OUT} in the workdir'
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument(
    '--raw', action='store_true', help='raw weights instead of EMA weights'
  )
  add_flags(p, ProjectOptions)
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  if not args.workdir:
    raise UserError('--workdir=DIR of a run is needed.')
  options = parsed_flags(ProjectOptions, args)
  check_results_folder(args.workdir, args.out)
  with open_workdir(args.workdir, write=not args.out) as local:
    out = args.out or local / OUT
    session = Session(local, args.images, options, out, args.checkpoint, not args.raw)
    with lock_workdir(out, '--out'):
      session.run()
    print(f'results are in {args.out or f"{args.workdir}/{OUT}"}')


if __name__ == '__main__':
  keep_freed_memory()
  use_compile_cache()
  run_command(main)
