"""The command line: what SRC and DEST mean, what is refused, what is said."""

import argparse
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from gan_jax import UserError, data
from gan_jax.data import decode, folder, summary
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.survey import SMALLEST, Options, refusal, survey
from gan_jax.prepare.writer import prepare


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    'python -m gan_jax.prepare',
    description='Pictures become a data set.',
    allow_abbrev=False,
  )
  p.add_argument('src', metavar='SRC', help='folder, file.zip or a TFDS name')
  p.add_argument('dest', metavar='DEST', help='a new folder; its name is the set name')
  p.add_argument(
    '--res', type=int, help='a power of two; default: the side that all pictures have'
  )
  p.add_argument('--channels', type=int, default=3, choices=sorted(decode.MODES))
  shape = p.add_mutually_exclusive_group()
  shape.add_argument(
    '--crop', action='store_true', help='take the middle square of oblong pictures'
  )
  shape.add_argument(
    '--pad', action='store_true', help='put oblong pictures on a square of --background'
  )
  p.add_argument(
    '--background', default='white', help='colour behind padding and transparency'
  )
  p.add_argument(
    '--upscale', action='store_true', help='enlarge smaller pictures up to --res'
  )
  p.add_argument(
    '--skip_bad', action='store_true', help='leave out and count what cannot be used'
  )
  p.add_argument('--split', default='train', help='of a TFDS name')
  p.add_argument('--data_dir', help='where TFDS sets are prepared')
  p.add_argument('--dry-run', action='store_true', help='look and say; write nothing')
  p.add_argument(
    '--report', action='store_true', help='write DEST/report.png: a sheet, the labels'
  )
  p.add_argument(
    '--png_level',
    type=int,
    default=0,
    choices=range(10),
    metavar='0-9',
    help='compression; 0 reads about ten times as fast as 6, at 1.6 times the size',
  )
  p.add_argument('--shard_images', type=int, default=1000, help='pictures in a file')
  p.add_argument('--threads', type=int, default=os.cpu_count())
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  for key in ('shard_images', 'threads'):
    if getattr(args, key) < 1:
      raise UserError(f'--{key}={getattr(args, key)}: it must be at least 1.')
  try:
    background = ImageColor.getrgb(args.background)[:3]
  except ValueError as error:
    raise UserError(
      f'--background={args.background}: a name such as white, or #ff8800.'
    ) from error
  dest = Path(args.dest).expanduser()
  check_dest(dest)
  source = open_source(args.src, args.split, args.data_dir)
  found = survey(source, args.threads)
  options = Options(
    res=args.res or found.common_side(args.src),
    channels=args.channels,
    fit='crop' if args.crop else 'pad' if args.pad else '',
    upscale=args.upscale,
    background=background,
    png_level=args.png_level,
    shard_images=args.shard_images,
  )
  if options.res < SMALLEST or options.res & (options.res - 1):
    raise UserError(
      f'--res={options.res}: a power of two is needed, {SMALLEST} or more, as the '
      'resolutions of models are.'
    )
  print(found.describe(args.src, source, options))
  bad = found.unusable(source, options)
  if bad and not args.skip_bad:
    raise UserError(refusal(bad, source.n + len(source.refused)))
  if len(bad) == source.n + len(source.refused):
    raise UserError(f'{args.src} has no picture that can be used.')
  if args.dry_run:
    print('dry run: nothing was written; damage behind the headers was not looked for')
    return
  manifest = prepare(
    source,
    dest,
    options,
    source_name=args.src,
    skip_bad=args.skip_bad,
    threads=args.threads,
    with_report=args.report,
  )
  print(describe_result(dest, manifest))


def check_dest(dest: Path) -> None:
  """Refuses a DEST that is there, or whose name tensorflow-datasets cannot take."""
  if not re.fullmatch(r'[a-z][a-z0-9_]*', dest.name):
    raise UserError(
      f"DEST's last part is the set's name, and {dest.name!r} is none: lower-case "
      'letters, digits and _ are allowed, a letter first.'
    )
  if (dest / data.MANIFEST).is_file():
    raise UserError(f'{dest} is prepared already: delete it, or take another DEST.')
  if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
    raise UserError(f'{dest} is there and not empty: take a new DEST.')


def open_source(name: str, split: str, data_dir: str | None) -> ImageSource:
  """The pictures of a path or of a tensorflow-datasets name.

  Raises:
    UserError: there are none.
  """
  if folder.is_path(name) or os.path.isdir(name):
    if (Path(name).expanduser() / data.MANIFEST).is_file():
      raise UserError(f'{name} is prepared already; SRC is what it was made of.')
    return folder.open_source(name)
  records = data.open_tfds(name, split=split, data_dir=data_dir)

  def read(i):
    example = records.source[i]
    return example['image'], int(example['label']) if records.labeled else 0

  return ImageSource(
    kind='tensorflow-datasets',
    n=len(records.source),
    read=read,
    title=lambda i: f'{name}[{i}]',
    class_names=records.class_names,
    labels=np.zeros(0, np.int32),
    refused={},
    others=0,
    state=hashlib.sha256(records.state.encode()).hexdigest(),
  )


def describe_result(dest: Path, manifest: dict[str, Any]) -> str:
  """The last lines on the terminal."""
  lines = [
    f'{dest}: {manifest["count"]:,} pictures written, {len(manifest["refused"]):,} '
    f'left out (named in {dest / data.MANIFEST})'
  ]
  if manifest['class_names']:
    counts = np.array(manifest['histogram'])
    lines.append(f'labels: {summary.histogram_line(manifest["class_names"], counts)}')
  mean, deviation = (summary.figures(manifest[key]) for key in ('mean', 'deviation'))
  lines.append(f'pixels: mean {mean}, deviation {deviation}')
  lines.append(f'next: --config.data.name={dest.absolute()}')
  return '\n'.join(lines)
