"""Writes a prepared set; it appears only when it is complete, and resumes if killed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.data.folder import ImageSource
from gan_jax.data.load import load_dataset
from gan_jax.data.prepared import MANIFEST
from gan_jax.data.summary import summarize
from gan_jax.prepare.fit import enclosing
from gan_jax.prepare.options import PrepareOptions, level_name
from gan_jax.prepare.shard import VERSION, SetLayout, write_shard
from gan_jax.prepare.survey import no_usable_image, unusable_images
from gan_jax.runtime.image_size import Size
from gan_jax.storage.files import atomic_path

FORMAT = 1  # of the manifest


def write_dataset(
  source: ImageSource,
  dest: Path,
  options: PrepareOptions,
  *,
  source_name: str,
  skip_bad: bool = False,
  threads: int = 1,
  with_report: bool = False,
) -> dict[str, Any]:
  """Writes a prepared set and returns its manifest.

  Args:
    source: the images.
    dest: folder of the set; must not exist or be empty.
    options: resolution, shape and encoding.
    source_name: name of the source in the manifest.
    skip_bad: leave out images that cannot be used; the manifest lists them.
    threads: number of shards written at the same time.
    with_report: write dest/report.png, a grid of images and the label histogram.

  Raises:
    UserError: images cannot be used and skip_bad is False (finished shards are kept),
      or DEST.partial belongs to another source or another running process.
  """
  layout = SetLayout(
    dest.with_name(f'{dest.name}.partial'), dest.name, options, source.class_names
  )
  with _lock_partial(source, layout):
    shards = _write_shards(source, layout, threads)
    manifest = _make_manifest(source, options, shards, source_name)
    if manifest['refused'] and not skip_bad:
      n_candidates = source.n_images + len(source.refused)
      message = unusable_images(manifest['refused'], n_candidates)
      raise UserError(f'{message[:-1]}; finished files are kept in {layout.folder}.')
    if not manifest['count']:
      raise UserError(no_usable_image(source_name))
    for size in options.levels:
      _write_tfds_metadata(layout, size, shards)
    _write_durably(layout.folder / MANIFEST, json.dumps(manifest, indent=2) + '\n')
    if with_report:
      _write_report(layout)
    if dest.is_dir():
      dest.rmdir()  # empty
    os.rename(layout.folder, dest)
    _fsync(dest.parent)
    shutil.rmtree(dest / layout.work.name)
  return manifest


@contextlib.contextmanager
def _lock_partial(source: ImageSource, layout: SetLayout) -> Iterator[None]:
  """Holds DEST.partial for this process, source and options.

  The lock is on the folder: the operating system releases it if the process dies.

  Raises:
    UserError: another process holds it, or it was started from another source or with
      other options.
  """
  layout.folder.parent.mkdir(parents=True, exist_ok=True)
  layout.folder.mkdir(exist_ok=True)
  descriptor = os.open(layout.folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(
        f'{layout.folder} is being written by another process.'
      ) from error
    layout.work.mkdir(exist_ok=True)
    _check_plan(source, layout)
    yield
  finally:
    os.close(descriptor)


def _check_plan(source: ImageSource, layout: SetLayout) -> None:
  """Writes source and options to plan.json, or compares them with an earlier run's."""
  plan = {
    'format': FORMAT,
    'state': source.fingerprint,
    'options': json.loads(json.dumps(dataclasses.asdict(layout.options))),
  }
  path = layout.work / 'plan.json'
  if not path.is_file():
    _write_durably(path, json.dumps(plan))
    return
  earlier = json.loads(path.read_text())
  if earlier != plan:
    changed = [
      f'--{key}: {earlier["options"].get(key)} -> {value}'
      for key, value in plan['options'].items()
      if earlier['options'].get(key) != value
    ] or ['the images']
    raise UserError(
      f'{layout.folder} was started with other images or options '
      f'({", ".join(changed)}): resume with those, or delete it.'
    )


def _write_shards(
  source: ImageSource, layout: SetLayout, threads: int
) -> list[dict[str, Any]]:
  """Writes the shards that are missing; returns the records of all shards."""
  n_shards = -(-source.n_images // layout.options.shard_images)
  records = [layout.work / f'{shard:05d}.json' for shard in range(n_shards)]
  for size in layout.options.levels:
    layout.level_folder(size).mkdir(parents=True, exist_ok=True)
  finished = [json.loads(r.read_text())['looked_at'] for r in records if r.is_file()]
  stop = threading.Event()
  # Threads, because nearly all of the work is in libraries that release the lock of
  # the interpreter, and no worker survives a kill.
  with (
    tqdm(
      total=source.n_images,
      initial=sum(finished),
      unit='img',
      desc='writing',
      disable=None,
    ) as progress,
    ThreadPoolExecutor(threads) as pool,
  ):

    def write(shard: int) -> None:
      record = write_shard(source, layout, (shard, n_shards), stop, progress.update)
      _write_durably(records[shard], json.dumps(record))

    try:
      missing = [shard for shard in range(n_shards) if not records[shard].is_file()]
      for future in as_completed([pool.submit(write, shard) for shard in missing]):
        future.result()
    except BaseException:
      stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  return [json.loads(record.read_text()) for record in records]


def _write_tfds_metadata(
  layout: SetLayout, size: Size, shards: list[dict[str, Any]]
) -> None:
  """Writes the files that make a level a tensorflow-datasets set."""
  folder = layout.level_folder(size)
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name=layout.name,
    split='train',
    filetype_suffix='array_record',
  )
  split = tfds.core.SplitInfo(
    name='train',
    shard_lengths=[shard['count'] for shard in shards],
    num_bytes=sum(shard['files'][level_name(size)]['bytes'] for shard in shards),
    filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
    data_dir=str(folder),
    features=layout.features(size),
    split_infos=[split],
    check_data=False,
  )
  for path in folder.glob('*.*'):
    _fsync(path)


def _write_report(layout: SetLayout) -> None:
  """Writes report.png, reading the set back as training does."""
  options = layout.options
  dataset = load_dataset(
    str(layout.folder.absolute()),
    res=next((x for x in options.levels if max(x) <= 128), options.levels[-1]),
    channels=options.channels,
  )
  summarize(dataset, layout.work)
  os.replace(layout.work / 'data.png', layout.folder / 'report.png')


def _make_manifest(
  source: ImageSource,
  options: PrepareOptions,
  shards: list[dict[str, Any]],
  source_name: str,
) -> dict[str, Any]:
  """The content of manifest.json; mean and deviation are of values in 0..255."""
  count = sum(shard['count'] for shard in shards)
  refused = dict(source.refused)
  modes: Counter[str] = Counter()
  for shard in shards:
    refused |= shard['refused']
    modes.update(shard['modes'])
  sums, squares, histogram = (
    [sum(column) for column in zip(*(shard[key] for shard in shards))]
    for key in ('sums', 'squares', 'histogram')
  )
  height, width = options.size
  n_pixels = max(count * height * width, 1)
  mean = [x / n_pixels for x in sums]
  # A record of an earlier version has no box: nothing is cropped then.
  whole = (0, 0, height, width)
  content = (
    enclosing(tuple(s.get('content', whole)) for s in shards if s['count'])
    if count
    else whole
  )
  return {
    'format': FORMAT,
    'source': source_name,
    'source_kind': source.kind,
    'source_state': source.fingerprint,
    'options': dataclasses.asdict(options),
    'channels': options.channels,
    'pictures': source.n_images,
    'count': count,
    'other_files': source.n_other_files,
    'not_read': dict(source.ignored),
    'labels_from': source.labels_from,
    'class_names': list(source.class_names),
    'content': list(content),
    'histogram': histogram,
    'source_modes': dict(sorted(modes.items())),
    'mean': mean,
    'deviation': [
      float(np.sqrt(max(x / n_pixels - m**2, 0))) for x, m in zip(squares, mean)
    ],
    'levels': {
      name: _level_entry(name, shards) for name in map(level_name, options.levels)
    },
    'refused': refused,
  }


def _level_entry(name: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
  """The manifest's entry of a level: its folder, and size and digest of each file."""
  entries = [shard['files'][name] for shard in shards]
  return {
    'folder': f'{name}/{VERSION}',
    'files': {
      entry['file']: {'bytes': entry['bytes'], 'sha256': entry['sha256']}
      for entry in entries
    },
  }


def _write_durably(path: Path, text: str) -> None:
  """Writes a file atomically and flushes it to the disk."""
  with atomic_path(path) as part:
    part.write_text(text)
    _fsync(part)


def _fsync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
