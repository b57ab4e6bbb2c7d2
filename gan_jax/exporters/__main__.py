"""Exports a run's weights by official names: python -m gan_jax.exporters ..."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.config.workdir import read_config
from gan_jax.exporters.official import OfficialFiles, official_files
from gan_jax.exporters.saved_run import read_run
from gan_jax.models.biggan import BigGAN
from gan_jax.runtime.errors import run_command
from gan_jax.runtime.flags import CommandParser, path, workdir
from gan_jax.sampling.output import cannot_write
from gan_jax.storage.files import atomic_path, check_output_folder, write_json
from gan_jax.storage.torch_file import write_torch
from gan_jax.storage.working_copy import open_workdir

FORMATS = ('pth', 'npz', 'safetensors')


def make_parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  p = CommandParser(
    'gan_jax.exporters',
    description='Writes the weights of a run by the names, and in the layouts, of the '
    'original code. gan_jax.importers reads the files again.',
    epilog='example: python -m gan_jax.exporters --workdir=runs/imagenet --out=weights',
  )
  p.add_argument(
    '--workdir', type=workdir, help='folder of the run, or a gs:// or s3:// URL'
  )
  p.add_argument('--out', type=path, metavar='FOLDER', help='new folder of the files')
  p.add_argument(
    '--format',
    choices=FORMATS,
    help='pth: files of torch.save, for BigGAN; default: pth for BigGAN, npz otherwise',
  )
  p.add_argument('--checkpoint', type=int, help='step to export; default: the newest')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  args = make_parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns that it cannot write checkpoints
  for flag in ('workdir', 'out'):
    if not getattr(args, flag):
      raise UserError(
        f'--{flag} is missing: --workdir names the run, --out a new folder.'
      )
  check_out(args.out)
  with open_workdir(args.workdir) as folder:
    is_biggan = isinstance(read_config(folder).gan, BigGAN)
    file_format = choose_format(args.format, is_biggan)
    files = official_files(read_run(folder, args.checkpoint))
  try:
    written = write_files(files, args.out, file_format)
  except OSError as error:
    raise cannot_write(args.out, error) from error
  for note in files.notes:
    print(f'note: {note}')
  source = args.out if is_biggan else next(p for p in written if p.suffix != '.json')
  print(
    f'{", ".join(p.name for p in written)} of {files.codebase} in {args.out}: '
    f'python -m gan_jax.importers {source} --workdir=NEW reads them'
  )


def check_out(out: Path) -> None:
  """
  Raises:
    UserError: `out` is a file, or a folder with files, or cannot be written.
  """
  check_output_folder(out, '--out')
  names = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
  if names:
    raise UserError(
      f'--out={out} holds files already, such as {names[0]}: take a new folder.'
    )


def choose_format(given: str | None, is_biggan: bool) -> str:
  """The format of the files.

  Raises:
    UserError: the family has no files of this format, or a package is not installed.
  """
  chosen = given or ('pth' if is_biggan else 'npz')
  if chosen == 'pth' and not is_biggan:
    raise UserError(
      '--format=pth is for BigGAN, whose original code is in PyTorch: take npz or '
      'safetensors.'
    )
  if chosen == 'safetensors' and not importlib.util.find_spec('safetensors'):
    raise UserError(
      "--format=safetensors needs a package: pip install 'gan_jax[export]'."
    )
  return chosen


def write_files(files: OfficialFiles, out: Path, file_format: str) -> list[Path]:
  """Writes the files, and returns their paths.

  Raises:
    OSError: a file cannot be written.
  """
  out.mkdir(parents=True, exist_ok=True)
  written = []
  for name, value in files.settings.items():
    write_json(out / name, value)
    written.append(out / name)
  for stem, arrays in files.arrays.items():
    path = out / f'{stem}.{file_format}'
    if file_format == 'pth' and stem == 'model':
      path = out / 'pytorch_model.bin'  # the name that Hugging Face's package reads
    write_arrays(path, arrays, file_format)
    written.append(path)
  for name, tree in files.training.items():
    if file_format == 'pth' or name == 'state_dict':
      write_torch(out / f'{name}.pth', tree)
      written.append(out / f'{name}.pth')
  return written


def write_arrays(path: Path, arrays: dict[str, np.ndarray], file_format: str) -> None:
  """Writes arrays by name, atomically.

  Raises:
    OSError: the file cannot be written.
  """
  if file_format == 'pth':
    write_torch(path, arrays)
    return
  with atomic_path(path) as part:
    if file_format == 'npz':
      np.savez(part, allow_pickle=False, **arrays)
    else:
      from safetensors.numpy import save_file

      save_file(arrays, part)


if __name__ == '__main__':
  run_command(main)
