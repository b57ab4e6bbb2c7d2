"""Pictures into levels of shards: each file whole or not there, and so is the set."""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm import tqdm

from gan_jax import UserError, data
from gan_jax.data import decode, raw_png
from gan_jax.data.decode import UnreadableImage
from gan_jax.data.folder import ImageSource
from gan_jax.prepare.survey import Options, misfit, refusal
from gan_jax.storage.files import atomic_path

FORMAT = 1  # of the manifest
VERSION = '1.0.0'
WORK = '.work'  # in DEST.partial: what is done and what is not whole yet


def prepare(
  source: ImageSource,
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
      whole = data.load_dataset(
        str(partial.absolute()), res=min(options.res, 128), channels=options.channels
      )
      data.summarize(whole, work)  # which reads it back, too
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
  source: ImageSource, partial: Path, name: str, options: Options, threads: int
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
  source: ImageSource,
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
        raise UnreadableImage(
          f'has the label {label}; 0 to {n_classes - 1} are allowed'
        )
      mode, image = fitted(content, options)
    except UnreadableImage as error:
      refused[source.title(i)] = str(error)
      continue
    modes[mode] += 1
    values = image.astype(np.int64)
    sums += values.sum((0, 1))
    squares += (values**2).sum((0, 1))
    if n_classes:
      histogram[label] += 1
    for side in options.levels:
      level = decode.area_downsample(image[None], options.res // side)[0]
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
  image = decode.open_image(content)
  mode = image.mode
  page = decode.decode(image, options.channels, options.background)
  if why := misfit(*page.size, options):
    raise UnreadableImage(why)
  if options.fit == 'pad':
    page = decode.pad(page, options.background)
  return mode, decode.apply_orientation(decode.crop(page, options.res), image)


def _png(image: np.ndarray, level: int) -> bytes:
  if level == 0:
    return raw_png.encode_png(image)
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
  source: ImageSource, options: Options, shards: list[dict[str, Any]], source_name: str
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


def _write(path: Path, text: str) -> None:
  """Atomically, and for good."""
  with atomic_path(path) as part:
    part.write_text(text)
    _sync(part)


def _sync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
