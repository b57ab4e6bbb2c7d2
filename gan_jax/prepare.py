"""Pictures become a data set: python -m gan_jax.prepare SRC DEST --res=128 --crop.

DEST gets a folder for each resolution, res, res / 2, ..., 4, each a tensorflow-datasets
set of lossless PNGs in ArrayRecord (`tfds.builder_from_files('name/64')`), with the
same pictures in the same order, and a manifest. gan_jax.data reads it by its path.

It is written as DEST.partial, a file at a time and each of them whole, and renamed when
all is there. What was killed goes on with the same command.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image, ImageColor
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm import tqdm

from gan_jax import UserError, data
from gan_jax.data import pictures, report
from gan_jax.data.pictures import Refused, Source

FORMAT = 1  # of the manifest
SMALLEST = 4  # the lowest level
VERSION = '1.0.0'
WORK = '.work'  # in DEST.partial: what is done and what is not whole yet
_NAMED = 5  # damaged pictures named in a message; all are in the manifest


@dataclasses.dataclass(frozen=True)
class Options:
  """What decides the bytes that are written."""

  res: int
  channels: int
  fit: str  # 'crop', 'pad' or '': only squares
  upscale: bool
  background: tuple[int, int, int]
  png_level: int
  shard_images: int

  @property
  def levels(self) -> list[int]:
    """Resolutions, the full one first."""
    return [self.res >> i for i in range((self.res // SMALLEST).bit_length())]


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    'python -m gan_jax.prepare',
    description=(__doc__ or '').partition(':')[0] + '.',
    allow_abbrev=False,
  )
  p.add_argument('src', metavar='SRC', help='folder, file.zip or a TFDS name')
  p.add_argument('dest', metavar='DEST', help='a new folder; its name is the set name')
  p.add_argument(
    '--res', type=int, help='a power of two; default: the side that all pictures have'
  )
  p.add_argument('--channels', type=int, default=3, choices=sorted(pictures.MODES))
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
    help='compression; 0 reads about three times as fast at 1.5 times the size',
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
  print(summary(dest, manifest))


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


def open_source(name: str, split: str, data_dir: str | None) -> Source:
  """The pictures of a path or of a tensorflow-datasets name.

  Raises:
    UserError: there are none.
  """
  if pictures.is_path(name) or os.path.isdir(name):
    if (Path(name).expanduser() / data.MANIFEST).is_file():
      raise UserError(f'{name} is prepared already; SRC is what it was made of.')
    return pictures.open_source(name)
  records = data.open_tfds(name, split=split, data_dir=data_dir)

  def read(i):
    example = records.source[i]
    return example['image'], int(example['label']) if records.labeled else 0

  return Source(
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


@dataclasses.dataclass(frozen=True)
class Survey:
  """What the headers of all pictures say.

  Attributes:
    sizes: int32 [n, 2], width and height; 0 where there is no usable header.
    modes: PIL mode -> pictures.
    bad: index -> why its header is refused.
  """

  sizes: np.ndarray
  modes: Counter[str]
  bad: dict[int, str]

  def common_side(self, src: str) -> int:
    """The side of all pictures.

    Raises:
      UserError: they differ.
    """
    good = self.sizes[self.sizes[:, 0] > 0]
    if not len(good):
      raise UserError(f'{src} has no picture that can be used.')
    shorter = good.min(axis=1)
    if shorter.min() != shorter.max() or shorter[0] & (shorter[0] - 1):
      raise UserError(
        f'--res is needed: the shorter sides are {shorter.min()} to {shorter.max()} '
        f'pixels, half of them up to {int(np.median(shorter))}; take a power of two.'
      )
    return int(shorter[0])

  def unusable(self, source: Source, options: Options) -> dict[str, str]:
    """Name -> why, of all that is known to be refused without decoding it."""
    bad = dict(source.refused)
    for i, (width, height) in enumerate(self.sizes.tolist()):
      if i in self.bad:
        bad[source.title(i)] = self.bad[i]
      elif why := misfit(width, height, options):
        bad[source.title(i)] = why
    return bad

  def describe(self, src: str, source: Source, options: Options) -> str:
    """What there is and what would be made of it, for a terminal."""
    good = self.sizes[self.sizes[:, 0] > 0]
    modes = ', '.join(f'{mode} {count:,}' for mode, count in self.modes.most_common())
    bad = self.unusable(source, options)
    lines = [
      f'{src} ({source.kind}): {source.n:,} pictures, {source.others:,} other files',
    ]
    if len(source.class_names) and len(source.labels):
      counts = np.bincount(source.labels, minlength=len(source.class_names))
      lines.append(f'labels: {report.histogram_line(source.class_names, counts)}')
    elif not len(source.class_names):
      lines.append('labels: none')
    if len(good):
      small, large = good.min(axis=0), good.max(axis=0)
      lines += [
        f'sizes: {small[0]} x {small[1]} to {large[0]} x {large[1]}, '
        f'{int((good[:, 0] != good[:, 1]).sum()):,} of them oblong; modes: {modes}',
      ]
    levels = ', '.join(map(str, options.levels))
    size = sum(side**2 for side in options.levels) * options.channels * source.n
    lines.append(
      f'to be written: levels {levels}; {options.channels} channels; '
      f'oblong ones: {options.fit or "refused"}; up to {size / 1e9:.2f} GB'
    )
    if bad:
      lines.append(f'cannot be used: {len(bad):,}: {pictures.some(bad, _NAMED)}')
    return '\n'.join(lines)


def misfit(width: int, height: int, options: Options) -> str:
  """Why a picture of that size is refused; '' if it is not."""
  if width != height and not options.fit:
    return f'is {width} x {height}, not square (--crop or --pad)'
  side = max(width, height) if options.fit == 'pad' else min(width, height)
  if side < options.res and not options.upscale:
    return f'is {width} x {height}, below {options.res} (--upscale or a lower --res)'
  return ''


def refusal(bad: dict[str, str], n: int) -> str:
  return (
    f'{len(bad):,} of {n:,} pictures cannot be used: {pictures.some(bad, _NAMED)}; '
    'mend them, or pass --skip_bad to leave them out.'
  )


def survey(source: Source, threads: int) -> Survey:
  """Reads the header of every picture."""
  sizes = np.zeros((source.n, 2), np.int32)
  modes: Counter[str] = Counter()
  bad: dict[int, str] = {}

  def look(part):
    found = Counter[str]()
    for i in part:
      try:
        image = pictures.open_picture(source.read(i)[0])
      except Refused as error:
        bad[i] = str(error)
        continue
      sizes[i] = image.size  # turned or not: only the shorter and longer side matter
      found[image.mode] += 1
    return len(part), found

  parts = [range(i, min(i + 256, source.n)) for i in range(0, source.n, 256)]
  with (
    tqdm(total=source.n, unit='img', desc='headers', disable=None) as bar,
    ThreadPoolExecutor(threads) as pool,
  ):
    for done, found in pool.map(look, parts):
      bar.update(done)
      modes.update(found)
  return Survey(sizes, modes, dict(sorted(bad.items())))


def prepare(
  source: Source,
  dest: Path,
  options: Options,
  *,
  source_name: str,
  skip_bad: bool = False,
  threads: int = 1,
  with_report: bool = False,
) -> dict[str, Any]:
  """Writes the data set and returns its manifest.

  Args:
    source_name: what the manifest calls the source.
    skip_bad: leave out pictures that cannot be used; they are named in the manifest.

  Raises:
    UserError: pictures cannot be used and skip_bad is not set (what is done is kept),
      DEST.partial belongs to another source or is being written by another process.
  """
  partial = dest.with_name(f'{dest.name}.partial')
  work = partial / WORK
  plan = {
    'format': FORMAT,
    'state': source.state,
    'options': json.loads(json.dumps(dataclasses.asdict(options))),
  }
  with _claimed(partial, plan):
    shards = _write_shards(source, partial, dest.name, options, threads)
    manifest = _manifest(source, options, shards, source_name)
    if manifest['refused'] and not skip_bad:
      text = refusal(manifest['refused'], source.n + len(source.refused))
      raise UserError(f'{text[:-1]}: all that is done is kept in {partial}.')
    if not manifest['count']:
      raise UserError(f'{source_name} has no picture that can be used.')
    for side in options.levels:
      _write_metadata(partial, dest.name, side, options, source.class_names, shards)
    _write(partial / data.MANIFEST, json.dumps(manifest, indent=2) + '\n')
    if with_report:
      whole = data.load(
        str(partial.absolute()), res=min(options.res, 128), channels=options.channels
      )
      data.doctor(whole, work)  # which reads it back, too
      os.replace(work / 'data.png', partial / 'report.png')
    if dest.is_dir():
      dest.rmdir()  # it is empty
    os.rename(partial, dest)
    _sync(dest.parent)
    shutil.rmtree(dest / WORK)
  return manifest


@contextlib.contextmanager
def _claimed(partial: Path, plan: dict[str, Any]) -> Iterator[None]:
  """Holds DEST.partial for one process and for one plan."""
  partial.parent.mkdir(parents=True, exist_ok=True)
  partial.mkdir(exist_ok=True)
  descriptor = os.open(partial, os.O_RDONLY)  # a lock of the folder dies with us
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(f'{partial} is being written by another process.') from error
    (partial / WORK).mkdir(exist_ok=True)
    path = partial / WORK / 'plan.json'
    if not path.is_file():
      _write(path, json.dumps(plan))
    elif (old := json.loads(path.read_text())) != plan:
      changed = [
        f'--{key}: {old["options"].get(key)} -> {value}'
        for key, value in plan['options'].items()
        if old['options'].get(key) != value
      ] or ['the pictures']
      raise UserError(
        f'{partial} was begun with other pictures or options ({", ".join(changed)}): '
        'go on with those, or delete it.'
      )
    yield
  finally:
    os.close(descriptor)


def _write_shards(
  source: Source, partial: Path, name: str, options: Options, threads: int
) -> list[dict[str, Any]]:
  """Writes the shards that are not there yet; returns what is in each of all."""
  n = -(-source.n // options.shard_images)
  records = [partial / WORK / f'{shard:05d}.json' for shard in range(n)]
  for side in options.levels:
    (partial / f'{side}' / VERSION).mkdir(parents=True, exist_ok=True)
  stop = threading.Event()
  done = sum(json.loads(r.read_text())['looked_at'] for r in records if r.is_file())
  # Threads: nearly all of the work is inside of libraries that let go of the lock, and
  # no worker outlives a kill.
  with (
    tqdm(total=source.n, initial=done, unit='img', desc='writing', disable=None) as bar,
    ThreadPoolExecutor(threads) as pool,
  ):

    def one(shard):
      about = _write_shard(source, partial, name, options, (shard, n), stop, bar.update)
      _write(records[shard], json.dumps(about))

    try:
      todo = [shard for shard in range(n) if not records[shard].is_file()]
      for future in as_completed([pool.submit(one, shard) for shard in todo]):
        future.result()
    except BaseException:
      stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  return [json.loads(record.read_text()) for record in records]


def _write_shard(
  source: Source,
  partial: Path,
  name: str,
  options: Options,
  which: tuple[int, int],
  stop: threading.Event,
  advance: Callable[[int], Any],
) -> dict[str, Any]:
  """Writes one file of every level, each appearing when it is whole."""
  shard, n_shards = which
  first = shard * options.shard_images
  indices = range(first, min(first + options.shard_images, source.n))
  n_classes, channels = len(source.class_names), options.channels
  parts = {s: partial / WORK / f'{shard:05d}-{s}.part' for s in options.levels}
  # PNGs do not become smaller; one to a group, for random access.
  writers = {
    side: array_record_module.ArrayRecordWriter(str(part), 'group_size:1,uncompressed')
    for side, part in parts.items()
  }
  protos = {
    side: ExampleSerializer(
      _features(side, options, source.class_names).get_serialized_info()
    ).get_tf_example
    for side in options.levels
  }
  refused, modes = {}, Counter[str]()
  histogram = [0] * n_classes
  sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
  for i in indices:
    if stop.is_set():
      raise InterruptedError('stopped')
    advance(1)
    try:
      content, label = source.read(i)
      if n_classes and not 0 <= label < n_classes:
        raise Refused(f'has the label {label}; 0 to {n_classes - 1} are allowed')
      mode, image = fitted(content, options)
    except Refused as error:
      refused[source.title(i)] = str(error)
      continue
    modes[mode] += 1
    values = image.astype(np.int64)
    sums += values.sum((0, 1))
    squares += (values**2).sum((0, 1))
    if n_classes:
      histogram[label] += 1
    for side in options.levels:
      level = pictures.means(image[None], options.res // side)[0]
      example: dict[str, Any] = {'image': _png(level, options.png_level)}
      if n_classes:
        example['label'] = label
      # Without a fixed order of the fields a rerun would have other bytes.
      proto = protos[side](example)
      writers[side].write(proto.SerializeToString(deterministic=True))
  files = {}
  for side, part in parts.items():
    writers[side].close()
    file = f'{name}-train.array_record-{shard:05d}-of-{n_shards:05d}'
    with part.open('rb') as whole:
      digest = hashlib.file_digest(whole, 'sha256').hexdigest()
      os.fsync(whole.fileno())
    files[side] = {'file': file, 'bytes': part.stat().st_size, 'sha256': digest}
    os.replace(part, partial / f'{side}' / VERSION / file)
  return {
    'looked_at': len(indices),
    'count': sum(modes.values()),
    'refused': refused,
    'modes': modes,
    'histogram': histogram,
    'sums': sums.tolist(),
    'squares': squares.tolist(),
    'files': files,
  }


def fitted(content: bytes, options: Options) -> tuple[str, np.ndarray]:
  """PIL's mode of an encoded picture, and it as uint8 [res, res, channels].

  Raises:
    Refused: it is damaged, unsafe, or of a shape or size that was not asked for.
  """
  image = pictures.open_picture(content)
  mode = image.mode
  image = pictures.upright(image, options.channels, options.background)
  if why := misfit(*image.size, options):
    raise Refused(why)
  if options.fit == 'pad':
    image = pictures.pad(image, options.background)
  return mode, pictures.crop(image, options.res)


def _png(image: np.ndarray, level: int) -> bytes:
  file = io.BytesIO()
  picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
  picture.save(file, 'PNG', compress_level=level)
  return file.getvalue()


def _features(side: int, options: Options, class_names: Sequence[str]) -> Any:
  shape = (side, side, options.channels)
  features = {'image': tfds.features.Image(shape=shape, encoding_format='png')}
  if class_names:
    features['label'] = tfds.features.ClassLabel(names=list(class_names))
  return tfds.features.FeaturesDict(features)


def _write_metadata(partial, name, side, options, class_names, shards):
  """What makes a level's files a tensorflow-datasets set."""
  folder = partial / f'{side}' / VERSION
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=name, split='train', filetype_suffix='array_record'
  )
  split = tfds.core.SplitInfo(
    name='train',
    shard_lengths=[shard['count'] for shard in shards],
    num_bytes=sum(shard['files'][f'{side}']['bytes'] for shard in shards),
    filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
    data_dir=str(folder),
    features=_features(side, options, class_names),
    split_infos=[split],
    check_data=False,
  )
  for path in folder.glob('*.*'):
    _sync(path)


def _manifest(
  source: Source, options: Options, shards: list[dict[str, Any]], source_name: str
) -> dict[str, Any]:
  """All that is known of the set; see README, Train on your own images."""
  count = sum(shard['count'] for shard in shards)
  refused = dict(source.refused)
  modes: Counter[str] = Counter()
  for shard in shards:
    refused |= shard['refused']
    modes.update(shard['modes'])
  # Sums of whole numbers, so that neither threads nor resuming change a bit.
  sums, squares, histogram = (
    [sum(column) for column in zip(*(shard[key] for shard in shards))]
    for key in ('sums', 'squares', 'histogram')
  )
  pixels = max(count * options.res**2, 1)
  mean = [x / pixels for x in sums]
  return {
    'format': FORMAT,
    'source': source_name,
    'source_kind': source.kind,
    'source_state': source.state,
    'options': dataclasses.asdict(options),
    'channels': options.channels,
    'pictures': source.n,
    'count': count,
    'other_files': source.others,
    'class_names': list(source.class_names),
    'histogram': histogram,
    'source_modes': dict(sorted(modes.items())),
    'mean': mean,  # by channel, of the full resolution, 0 to 255
    'deviation': [
      float(np.sqrt(max(x / pixels - m**2, 0))) for x, m in zip(squares, mean)
    ],
    'levels': {
      side: {
        'folder': f'{side}/{VERSION}',
        'files': {
          (about := shard['files'][f'{side}'])['file']: {
            key: about[key] for key in ('bytes', 'sha256')
          }
          for shard in shards
        },
      }
      for side in options.levels
    },
    'refused': refused,
  }


def summary(dest: Path, manifest: dict[str, Any]) -> str:
  """The last lines on the terminal."""
  lines = [
    f'{dest}: {manifest["count"]:,} pictures written, {len(manifest["refused"]):,} '
    f'left out (named in {dest / data.MANIFEST})'
  ]
  if manifest['class_names']:
    counts = np.array(manifest['histogram'])
    lines.append(f'labels: {report.histogram_line(manifest["class_names"], counts)}')
  mean, deviation = (report.figures(manifest[key]) for key in ('mean', 'deviation'))
  lines.append(f'pixels: mean {mean}, deviation {deviation}')
  lines.append(f'next: --config.data.name={dest.absolute()}')
  return '\n'.join(lines)


def _write(path: Path, text: str) -> None:
  """Atomically, and for good."""
  part = path.with_name(f'{path.name}.part')
  part.write_text(text)
  _sync(part)
  os.replace(part, path)


def _sync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from None
  except OSError as error:  # a full disk, a folder that is not ours
    print(f'error: {error}; the same command goes on.', file=sys.stderr)
    raise SystemExit(1) from None
