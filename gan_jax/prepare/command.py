"""The command line of gan_jax.prepare."""

import argparse
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from gan_jax import UserError
from gan_jax.data.decode import PIL_MODES
from gan_jax.data.folder import ImageSource, is_path, open_folder_or_zip
from gan_jax.data.summary import format_channels, format_counts
from gan_jax.data.tfds_source import MANIFEST, open_tfds
from gan_jax.prepare.options import MIN_RES, PrepareOptions
from gan_jax.prepare.survey import (
  HeaderSurvey,
  no_usable_image,
  survey_headers,
  unusable_images,
)
from gan_jax.prepare.writer import write_dataset
from gan_jax.runtime.flags import CommandParser


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.prepare',
    description='Converts images to a dataset with all resolutions of a GAN.',
  )
  p.add_argument(
    'src',
    metavar='SRC',
    help='folder or zip of images, or name of a tensorflow-datasets (TFDS) set',
  )
  p.add_argument(
    'dest',
    metavar='DEST',
    help='new folder; its last part becomes the name of the set',
  )
  p.add_argument(
    '--res',
    type=int,
    help='side of the images in pixels, a power of two; default: the shorter side of '
    'the source images, if all are equal',
  )
  p.add_argument(
    '--channels',
    type=int,
    default=3,
    choices=sorted(PIL_MODES),
    help='1 (grey), 3 (RGB) or 4 (RGBA)',
  )
  shape = p.add_mutually_exclusive_group()
  shape.add_argument(
    '--crop', action='store_true', help='crop images to their centered square'
  )
  shape.add_argument(
    '--pad', action='store_true', help='pad images to a square with --background'
  )
  p.add_argument(
    '--background', default='white', help='color behind padding and transparency'
  )
  p.add_argument(
    '--upscale', action='store_true', help='upsample smaller images to --res'
  )
  p.add_argument(
    '--skip_bad',
    action='store_true',
    help='leave out images that cannot be used; manifest.json lists them',
  )
  p.add_argument(
    '--split',
    default='train',
    help='split of a TFDS set, or one of the folders train, val, test, ... of SRC',
  )
  p.add_argument('--data_dir', help='folder of the TFDS sets')
  p.add_argument(
    '--dry-run',
    action='store_true',
    help='read the headers and print what would be written; write nothing',
  )
  p.add_argument(
    '--report',
    action='store_true',
    help='write DEST/report.png: an image grid and the label histogram',
  )
  p.add_argument(
    '--png_level',
    type=int,
    default=0,
    choices=range(10),
    metavar='0-9',
    help='PNG compression; files of level 0 are read about ten times as fast as those '
    'of level 6, and are 1.6 times as large',
  )
  p.add_argument(
    '--shard_images', type=int, default=1000, help='number of images in a file'
  )
  p.add_argument('--threads', type=int, default=os.cpu_count())
  return p


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command; `argv` defaults to the command line of the process."""
  args = make_parser().parse_args(argv)
  for key in ('shard_images', 'threads'):
    if getattr(args, key) < 1:
      raise UserError(f'--{key}={getattr(args, key)}: it must be at least 1.')
  background = _parse_color(args.background)
  dest = Path(args.dest).expanduser()
  check_dest(dest)
  source = open_source(args.src, args.split, args.data_dir)
  survey = survey_headers(source, args.src, args.threads)
  options = PrepareOptions(
    res=_check_res(args.res or survey.common_side()),
    channels=args.channels,
    fit='crop' if args.crop else 'pad' if args.pad else '',
    upscale=args.upscale,
    background=background,
    png_level=args.png_level,
    shard_images=args.shard_images,
  )
  print(survey.describe(options))
  _check_usable(survey, options, args.skip_bad)
  if args.dry_run:
    print('dry run: nothing was written; only the headers of the images were checked')
    return
  manifest = write_dataset(
    source,
    dest,
    options,
    source_name=args.src,
    skip_bad=args.skip_bad,
    threads=args.threads,
    with_report=args.report,
  )
  print(describe_result(dest, manifest))


def _parse_color(text: str) -> tuple[int, int, int]:
  try:
    return ImageColor.getrgb(text)[:3]
  except ValueError as error:
    raise UserError(
      f'--background={text}: a color name such as white, or #ff8800, is needed.'
    ) from error


def _check_res(res: int) -> int:
  if res < MIN_RES or res & (res - 1):
    raise UserError(
      f'--res={res}: a power of two is needed, {MIN_RES} or more, like the resolutions '
      'of the models.'
    )
  return res


def _check_usable(
  survey: HeaderSurvey, options: PrepareOptions, skip_bad: bool
) -> None:
  unusable = survey.unusable(options)
  if unusable and not skip_bad:
    raise UserError(unusable_images(unusable, survey.n_candidates))
  if len(unusable) == survey.n_candidates:
    raise UserError(no_usable_image(survey.source_name))


def check_dest(dest: Path) -> None:
  """Checks that DEST is free and that its name is valid for tensorflow-datasets."""
  if not re.fullmatch(r'[a-z][a-z0-9_]*', dest.name):
    raise UserError(
      f'The last part of DEST, {dest.name!r}, is not a valid name of a set: lower-case '
      'letters, digits and _ are allowed, starting with a letter.'
    )
  if (dest / MANIFEST).is_file():
    raise UserError(
      f'{dest} is a prepared set already: delete it, or use another DEST.'
    )
  if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
    raise UserError(f'{dest} exists and is not empty: use a new DEST.')


def open_source(name: str, split: str, data_dir: str | None) -> ImageSource:
  """Opens the images of a folder, a zip or a tensorflow-datasets set.

  Raises:
    UserError: it does not exist or has no images.
  """
  if is_path(name) or os.path.isdir(name):
    if (Path(name).expanduser() / MANIFEST).is_file():
      raise UserError(
        f'{name} is a prepared set already: SRC has to be what it was prepared from.'
      )
    return open_folder_or_zip(name, split)
  records = open_tfds(name, split=split, data_dir=data_dir)

  def read(i: int) -> tuple[bytes, int]:
    example = records.source[i]
    return example['image'], int(example['label']) if records.labeled else 0

  return ImageSource(
    kind='tensorflow-datasets',
    n_images=len(records.source),
    read=read,
    display_name=lambda i: f'{name}[{i}]',
    class_names=records.class_names,
    labels=np.zeros(0, np.int32),
    refused={},
    n_other_files=0,
    fingerprint=hashlib.sha256(records.description.encode()).hexdigest(),
  )


def describe_result(dest: Path, manifest: dict[str, Any]) -> str:
  """Lines of text about a set that was written."""
  n_refused = len(manifest['refused'])
  lines = [
    f'{dest}: {manifest["count"]:,} images written, {n_refused:,} left out (listed in '
    f'{dest / MANIFEST})'
  ]
  if manifest['class_names']:
    counts = np.array(manifest['histogram'])
    lines.append(f'labels: {format_counts(manifest["class_names"], counts)}')
  mean, deviation = (format_channels(manifest[key]) for key in ('mean', 'deviation'))
  lines.append(f'pixel values: mean {mean}, standard deviation {deviation}')
  lines.append(f'next: --config.data.name={dest.absolute()}')
  return '\n'.join(lines)
