"""Images per second that one core reads. See README.md beside this file.

The command writes images, prepares them, and starts a process for each pipeline:
`run.py --pipeline=... --cores=...` measures one of them, pinned to these cores.
"""

import argparse
import csv
import gc
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
BATCH = 64
SIDES = (128, 256)
JPEG, PREPARED = 'JPEG folder', 'prepared'
SET = 'photos'  # name of the prepared set
# BigGAN-128 at batch 2048 on a v5e-256 pod: hosts, images of a step with two D updates,
# and predicted milliseconds of a step.
HOSTS, IMAGES_PER_STEP = 64, 2 * 2048
STEP_MS = {'plain': 83, 'improved': 74, 'target': 41}


def make_photos(folder: Path, n: int) -> None:
  """Writes n JPEGs of 500 x 375 with two labels, cropped from scikit-learn's photos."""
  from PIL import Image
  from sklearn.datasets import load_sample_image

  rng = np.random.default_rng(0)
  photos = [Image.fromarray(load_sample_image(f'{x}.jpg')) for x in ('china', 'flower')]
  for i in range(n):
    path = folder / ('china', 'flower')[i % 2] / f'{i:05d}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = int(rng.integers(140)), int(rng.integers(52))
    photos[i % 2].crop((x, y, x + 500, y + 375)).save(path, quality=95)


def copy_as_tfrecord(prepared: Path, res: int, root: Path) -> None:
  """Copies the records of a level to TFRecord, the format that `as_dataset` reads."""
  import tensorflow as tf
  from array_record.python import array_record_module

  source, folder = prepared / f'{res}/1.0.0', root / SET / '1.0.0'
  folder.mkdir(parents=True)
  for path in source.iterdir():
    if 'array_record' in path.name:
      records = array_record_module.ArrayRecordReader(str(path)).read_all()
      name = path.name.replace('array_record', 'tfrecord')
      with tf.io.TFRecordWriter(str(folder / name)) as file:
        for record in records:
          file.write(record)
    else:
      text = path.read_text().replace('array_record', 'tfrecord')
      (folder / path.name).write_text(text)


class GanJax:
  """gan_jax as it trains: shuffled, center square, Lanczos, flipped."""

  name = 'gan_jax'

  def __init__(self, work: Path, cores: int):
    self.paths = {JPEG: work / 'jpegs' / 'train', PREPARED: work / SET}
    self.cores = cores

  def batches(self, source, res):
    from gan_jax import data

    return data.iterate_batches(
      data.load_dataset(str(self.paths[source].absolute()), res=res, channels=3),
      shape=(1, BATCH),
      devices=(0,),
      n_devices=1,
      seed=0,
      start=0,
      flip=True,
      threads=self.cores,
    )


class Torch:
  """A DataLoader with a worker for each core on the same files, decoded by Pillow.

  JPEGs are resized bilinearly, the default of torchvision, or by Lanczos like gan_jax.
  """

  name = 'torch DataLoader'

  def __init__(self, work: Path, cores: int, method='BILINEAR'):
    self.work, self.cores, self.method = work, cores, method

  def batches(self, source, res):
    import torch

    torch.set_num_threads(1)
    images = TorchImages(self.work, source, res, self.method)
    loader = torch.utils.data.DataLoader(
      images,
      BATCH,
      shuffle=True,
      num_workers=self.cores,
      drop_last=True,
    )
    while True:
      yield from loader


class TorchImages:
  """A torch dataset of (image uint8 [res, res, 3], label)."""

  def __init__(self, work, source, res, method):
    self.res, self.method, self.records = res, method, None
    self.random = np.random.default_rng(0)
    if source == PREPARED:
      import tensorflow_datasets as tfds

      builder = tfds.core.read_only_builder.builder_from_directory(
        work / SET / f'{res}/1.0.0'
      )
      skip = {'image': tfds.decode.SkipDecoding()}
      self.records = builder.as_data_source('train', decoders=skip)
    else:
      self.files = sorted((work / 'jpegs' / 'train').rglob('*.jpg'))

  def __len__(self):
    return len(self.files if self.records is None else self.records)

  def __getitem__(self, i):
    import io

    from PIL import Image

    if self.records is None:
      file, label = self.files[i], int(self.files[i].parent.name == 'flower')
    else:
      record = self.records[i]
      file, label = io.BytesIO(record['image']), int(record['label'])
    image = Image.open(file).convert('RGB')
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if side != self.res:
      image = image.resize(
        (self.res, self.res),
        Image.Resampling[self.method],
        box=(left, top, left + side, top + side),
      )
    if self.random.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image), label


class TensorFlow:
  """TFDS's as_dataset on a folder of JPEGs, and on the prepared records as TFRecord.

  Only the center square of a JPEG is decoded; it is resized by `method`.
  """

  name = 'tf.data (TFDS as_dataset)'

  def __init__(self, work: Path, cores: int, method='bilinear'):
    self.work, self.method = work, method

  def batches(self, source, res):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def crop_and_resize(example):
      height, width = tf.unstack(tf.io.extract_jpeg_shape(example['image'])[:2])
      side = tf.minimum(height, width)
      window = [(height - side) // 2, (width - side) // 2, side, side]
      image = tf.image.decode_and_crop_jpeg(example['image'], window, channels=3)
      image = tf.image.resize(image, (res, res), self.method, antialias=True)
      image = tf.round(tf.clip_by_value(image, 0, 255))
      return {**example, 'image': tf.cast(image, tf.uint8)}

    def flip(example):
      return tf.image.random_flip_left_right(example['image']), example['label']

    # TFDS caches a set that fits into memory; real datasets do not fit.
    config = tfds.ReadConfig(try_autocache=False)
    options = dict(split='train', shuffle_files=True, read_config=config)
    if source == JPEG:
      folder = tfds.ImageFolder(self.work / 'jpegs')
      skip = {'image': tfds.decode.SkipDecoding()}
      dataset = folder.as_dataset(**options, decoders=skip)
      dataset = dataset.repeat().shuffle(1000).map(crop_and_resize, tf.data.AUTOTUNE)
    else:
      folder = self.work / f'tfrecord{res}' / SET / '1.0.0'
      builder = tfds.core.read_only_builder.builder_from_directory(folder)
      dataset = builder.as_dataset(**options)
      dataset = dataset.repeat().shuffle(1000)
    dataset = dataset.map(flip, tf.data.AUTOTUNE).batch(BATCH)
    return dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


PIPELINES = {'gan_jax': GanJax, 'tf': TensorFlow, 'torch': Torch}
LANCZOS = {'tf': 'lanczos3', 'torch': 'LANCZOS'}  # the filter of gan_jax
PACKAGES = {'gan_jax': 'gan_jax', 'tf': 'tensorflow', 'torch': 'torch'}


def measure(args) -> None:
  """Prints a JSON line for each source, resolution and method of one pipeline."""
  os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.cores]))
  make = PIPELINES[args.pipeline]
  cases = [(make, (), source) for source in (JPEG, PREPARED)]
  if args.pipeline in LANCZOS and args.cores == 1:
    cases.append((make, (LANCZOS[args.pipeline],), JPEG))
  for (make, method, source), res in itertools.product(cases, SIDES):
    batches = iter(make(args.work, args.cores, *method).batches(source, res))
    start = time.perf_counter()
    for n_warm_up in itertools.count():
      next(batches)
      if n_warm_up and time.perf_counter() - start > 0.5:
        break
    n, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < args.seconds:
      next(batches)
      n += BATCH
    lanczos = ', Lanczos' if method else ''
    row = dict(
      pipeline=f'{make.name}{lanczos}',
      source=source,
      res=res,
      cores=args.cores,
      images_per_s=round(n / seconds, 1),
    )
    print(json.dumps(row), flush=True)
    del batches
    gc.collect()


def write_inputs(args) -> None:
  """Writes the JPEGs and the prepared sets that do not exist yet."""
  photos = args.work / 'jpegs' / 'train'
  if not photos.is_dir():
    make_photos(photos, args.photos)
  if not (args.work / SET).is_dir():
    subprocess.run(
      [
        *(sys.executable, '-m', 'gan_jax.prepare'),
        *(photos, args.work / SET, f'--res={max(SIDES)}', '--crop'),
      ],
      check=True,
    )
  if importlib.util.find_spec('tensorflow'):
    for res in SIDES:
      if not (args.work / f'tfrecord{res}').is_dir():
        copy_as_tfrecord(args.work / SET, res, args.work / f'tfrecord{res}')


def table(rows: list[dict]) -> str:
  """README's first table: median (minimum to maximum) of the rounds."""
  columns = list(itertools.product((1, 2), SIDES, (JPEG, PREPARED)))
  heads = [f'{c} core{"s" * (c > 1)}: {r}, {s}' for c, r, s in columns]
  lines = [f'| images/s | {" | ".join(heads)} |', '|---' * (len(heads) + 1) + '|']
  for name in dict.fromkeys(row['pipeline'] for row in rows):
    cells = []
    for cores, res, source in columns:
      key = {'pipeline': name, 'source': source, 'res': res, 'cores': cores}
      rates = [r['images_per_s'] for r in rows if key.items() <= r.items()]
      if rates:
        low, high = min(rates), max(rates)
        cells.append(f'{np.median(rates):,.0f} ({low:,.0f} to {high:,.0f})')
      else:
        cells.append('')
    lines.append(f'| {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def pod_table(rows: list[dict]) -> str:
  """README's second table: images that a v5e-256 pod reads, and the cores it needs."""
  per_core = {}
  for source in (PREPARED, JPEG):
    key = {'pipeline': 'gan_jax', 'source': source, 'res': 128, 'cores': 1}
    rates = [r['images_per_s'] for r in rows if key.items() <= r.items()]
    per_core[source] = float(np.median(rates))
  lines = [
    '| step, predicted | images/s, pod | per host | cores, prepared | cores, JPEG |',
    '|---|---|---|---|---|',
  ]
  for name, milliseconds in STEP_MS.items():
    rate = IMAGES_PER_STEP / milliseconds * 1000
    cores = [rate / HOSTS / per_core[source] for source in (PREPARED, JPEG)]
    lines.append(
      f'| {milliseconds} ms ({name}) | {rate:,.0f} | {rate / HOSTS:,.0f} | '
      f'{cores[0]:.2f} | {cores[1]:.1f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--work', type=Path, required=True, help='folder for the images')
  p.add_argument('--photos', type=int, default=1000)
  p.add_argument('--seconds', type=float, default=3, help='of each measurement')
  p.add_argument('--rounds', type=int, default=3, help='measurements of each pipeline')
  p.add_argument('--out', type=Path, default=HERE / 'results' / 'images_per_s.csv')
  p.add_argument('--pipeline', choices=PIPELINES, help=argparse.SUPPRESS)
  p.add_argument('--cores', type=int, help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.pipeline:
    measure(args)
    return
  write_inputs(args)
  installed = [name for name in PIPELINES if importlib.util.find_spec(PACKAGES[name])]
  rows = []
  # In rounds, so that a slow minute of the machine affects all pipelines.
  for round_, cores, name in itertools.product(range(args.rounds), (1, 2), installed):
    process = subprocess.run(
      [
        *(sys.executable, __file__, f'--work={args.work}', f'--pipeline={name}'),
        *(f'--cores={cores}', f'--seconds={args.seconds}'),
      ],
      check=True,
      stdout=subprocess.PIPE,
      env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2', 'JAX_PLATFORMS': 'cpu'},
      text=True,
    )
    lines = [s for s in process.stdout.splitlines() if s.startswith('{')]
    rows += [json.loads(line) | {'round': round_} for line in lines]
    print(f'round {round_ + 1} of {args.rounds}: {name}, {cores} core(s)', flush=True)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  print(f'\n{table(rows)}\n\n{pod_table(rows)}')


if __name__ == '__main__':
  main()
