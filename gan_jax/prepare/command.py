"""The command line of gan_jax.prepare."""

import argparse
import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from gan_jax import UserError
from gan_jax.data.decode import MAX_PIXELS, PIL_MODES
from gan_jax.data.depth import AUTO, SETTINGS, Ranges, fixed_ranges
from gan_jax.data.prepared import MANIFEST
from gan_jax.data.summary import format_channels, format_counts
from gan_jax.prepare.options import MIN_RES, PrepareOptions
from gan_jax.prepare.sources import open_source
from gan_jax.prepare.survey import (
  HeaderSurvey,
  no_usable_image,
  survey_headers,
  unusable_images,
)
from gan_jax.prepare.upload import Upload
from gan_jax.prepare.writer import write_dataset
from gan_jax.runtime.flags import CommandParser, data_dir, workdir
from gan_jax.runtime.image_size import MOST, Size


def make_parser() -> argparse.ArgumentParser:
  p = CommandParser(
    'gan_jax.prepare',
    description='Converts images to a dataset with all resolutions of a GAN.',
  )
  p.add_argument(
    'src',
    metavar='SRC',
    help="folder or zip of images; TFRecords of NVIDIA's GANs, an HDF5 file of "
    'BigGAN-PyTorch, idx files like those of MNIST, or Parquet files of Hugging Face; '
    'or the name of a tensorflow-datasets (TFDS) set',
  )
  p.add_argument(
    'dest',
    type=workdir,
    metavar='DEST',
    help='new folder, or a gs:// or s3:// URL; its last part becomes the name of the '
    'set',
  )
  p.add_argument(
    '--res',
    metavar='RES',
    help='side of the images in pixels, a power of two, or WIDTHxHEIGHT, such as '
    '256x144 for a model of model.first_map=9,16; default: the shorter side of '
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
    '--crop', action='store_true', help='crop images to the centered part that fits'
  )
  shape.add_argument(
    '--pad',
    action='store_true',
    help='pad images to a square, or the shape of --res, with --background',
  )
  p.add_argument(
    '--background',
    default='white',
    help='color of padding and borders, and behind transparency',
  )
  small = p.add_mutually_exclusive_group()
  small.add_argument(
    '--upscale', action='store_true', help='upsample smaller images to --res'
  )
  small.add_argument(
    '--border',
    action='store_true',
    help='surround smaller images with --background up to --res',
  )
  p.add_argument(
    '--range',
    default=AUTO,
    metavar='RANGE',
    help='the values of images with more than 8 bits that become 0 and 255: '
    f'{SETTINGS}; default: auto, which decodes all such images to find the range',
  )
  p.add_argument(
    '--max_pixels',
    type=int,
    default=MAX_PIXELS,
    help='images that declare more pixels are not decoded; raise it for panoramas; '
    f'default: {MAX_PIXELS}',
  )
  p.add_argument(
    '--skip_bad',
    action='store_true',
    help='leave out images that cannot be used; manifest.json lists them',
  )
  p.add_argument(
    '--split',
    default='train',
    help='split of a TFDS set or of Parquet or idx files, or one of the folders train, '
    'val, test, ... of SRC',
  )
  p.add_argument('--data_dir', type=data_dir, help='folder or URL of the TFDS sets')
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
  for key in ('shard_images', 'threads', 'max_pixels'):
    if getattr(args, key) < 1:
      raise UserError(f'--{key}={getattr(args, key)}: it must be at least 1.')
  res = args.res and parse_res(args.res)
  background = parse_color(args.background)
  ranges = fixed_ranges(args.range, '--range')
  check_dest(args.dest)
  with _pixel_limit(args.max_pixels):
    _prepare(args, res, background, ranges)


def _prepare(
  args: argparse.Namespace,
  res: int | Size | None,
  background: tuple[int, int, int],
  ranges: Ranges | None,
) -> None:
  """Surveys the source, prints what would be written, and writes it."""
  source = open_source(args.src, args.split, args.data_dir)
  survey = survey_headers(
    source,
    args.src,
    args.threads,
    max_pixels=args.max_pixels,
    measure_ranges=ranges is None,
  )
  options = PrepareOptions(
    res=res or _check_side(survey.common_side()),
    channels=args.channels,
    fit='crop' if args.crop else 'pad' if args.pad else '',
    upscale=args.upscale,
    border=args.border,
    background=background,
    png_level=args.png_level,
    shard_images=args.shard_images,
    range=dict(survey.ranges if ranges is None else ranges),
    max_pixels=args.max_pixels,
  )
  print(survey.describe(options))
  _check_usable(survey, options, args.skip_bad)
  if args.dry_run:
    print('dry run: nothing was written; only the headers of the images were checked')
    return
  write = lambda dest: write_dataset(
    source,
    dest,
    options,
    source_name=args.src,
    skip_bad=args.skip_bad,
    threads=args.threads,
    with_report=args.report,
  )
  if isinstance(args.dest, str):
    manifest = Upload(args.dest).write(source, options, write)
  else:
    manifest = write(args.dest)
  print(describe_result(args.dest, manifest))


@contextlib.contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
  """Raises PIL's own limit, which is global, to `max_pixels`."""
  limit = Image.MAX_IMAGE_PIXELS
  if limit is not None:
    Image.MAX_IMAGE_PIXELS = max(limit, max_pixels)
  try:
    yield
  finally:
    Image.MAX_IMAGE_PIXELS = limit


def parse_color(text: str) -> tuple[int, int, int]:
  """The value of --background: 'white' or '#ff8800' -> RGB.

  Raises:
    UserError: there is no such color.
  """
  try:
    return ImageColor.getrgb(text)[:3]
  except ValueError as error:
    raise UserError(
      f'--background={text}: a color name such as white, or #ff8800, is needed.'
    ) from error


def parse_res(text: str) -> int | Size:
  """The value of --res: '64', or '96x64' -> (64, 96), height and width.

  Raises:
    UserError: no model has such images.
  """
  match = re.fullmatch(r'(\d{1,6})(?:x(\d{1,6}))?', text)
  if not match:
    raise UserError(
      f'--res={text}: a number of pixels such as 256, or WIDTHxHEIGHT such as 256x144, '
      'is needed.'
    )
  width, height = int(match[1]), int(match[2] or match[1])
  if width == height:
    return _check_side(width)
  doublings = math.gcd(width, height)
  doublings &= -doublings  # the power of two that divides both
  if not doublings or max(width, height) > MOST * doublings:
    raise UserError(
      f'--res={text}: both sides must be a first map of 1 to {MOST} rows and columns '
      'times one power of two, such as 192x128 or 256x144.'
    )
  return height, width


def _check_side(res: int) -> int:
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


def check_dest(dest: Path | str) -> None:
  """Checks that DEST is free and that its name is valid for tensorflow-datasets."""
  name = Path(dest).name
  if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
    raise UserError(
      f'The last part of DEST, {name!r}, is not a valid name of a set: lower-case '
      'letters, digits and _ are allowed, starting with a letter.'
    )
  if isinstance(dest, str):
    Upload(dest).check_dest()
    return
  if (dest / MANIFEST).is_file():
    raise UserError(
      f'{dest} is a prepared set already: delete it, or use another DEST.'
    )
  if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
    raise UserError(f'{dest} exists and is not empty: use a new DEST.')


def describe_result(dest: Path | str, manifest: dict[str, Any]) -> str:
  """Lines of text about a set that was written."""
  n_refused = len(manifest['refused'])
  lines = [
    f'{dest}: {manifest["count"]:,} images written, {n_refused:,} left out (listed in '
    f'{dest}/{MANIFEST})'
  ]
  if manifest['class_names']:
    counts = np.array(manifest['histogram'])
    lines.append(f'labels: {format_counts(manifest["class_names"], counts)}')
  mean, deviation = (format_channels(manifest[key]) for key in ('mean', 'deviation'))
  lines.append(f'pixel values: mean {mean}, standard deviation {deviation}')
  name = dest if isinstance(dest, str) else dest.absolute()
  lines.append(f'next: --config.data.name={name}')
  return '\n'.join(lines)
